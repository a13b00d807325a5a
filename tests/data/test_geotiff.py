"""Patch folders: values as rasterio reads them, by whichever way, and files that look like the published ones."""

from __future__ import annotations

import shutil
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from bigearthnet_cbir.data import geotiff
from bigearthnet_cbir.data.fast_tiff import read_strips
from bigearthnet_cbir.errors import DataError


def test_direct_reader_equals_rasterio_on_every_published_file(real_pairs, true_patches):
    for pair in real_pairs.pairs:
        for name, root in ((pair.s2, real_pairs.s2_root), (pair.s1, real_pairs.s1_root)):
            for band, expected in true_patches[name].bands.items():
                pixels = read_strips(root / name / f"{name}_{band}.tif")
                assert pixels is not None, "the published layout must not need the slow way"
                assert pixels.dtype == expected.dtype
                np.testing.assert_array_equal(pixels, expected)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_direct_reader_equals_rasterio_on_v2_files(samples):
    files = sorted(samples.glob("bigearthnet-v2/BigEarthNet-S?/*/*/*.tif"))
    assert len(files) == 6 * 14
    for path in files:
        with rasterio.Env(), rasterio.open(path) as source:
            np.testing.assert_array_equal(read_strips(path), source.read(1))


PIXELS = np.random.default_rng(0).integers(0, 10_000, (60, 60), dtype=np.uint16)


@pytest.mark.parametrize(
    "layout",
    [
        {"compress": "deflate"},
        {"compress": "lzw", "predictor": 2},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
    ],
    ids=lambda layout: next(iter(layout)),
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_other_layouts_go_through_rasterio_with_the_same_values(tmp_path, layout):
    path = tmp_path / "band.tif"
    with rasterio.open(path, "w", "GTiff", 60, 60, 1, dtype="uint16", **layout) as file:
        file.write(PIXELS, 1)
    assert read_strips(path) is None
    pixels = geotiff.read_band(path)
    np.testing.assert_array_equal(pixels, PIXELS)
    assert pixels.dtype == np.uint16


def test_written_files_have_the_published_layout_and_pixels(real_pairs, true_patches, tmp_path):
    pair = real_pairs.pairs[0]
    for name, root in ((pair.s2, real_pairs.s2_root), (pair.s1, real_pairs.s1_root)):
        published = sorted((root / name).glob("*.tif"))
        with rasterio.open(published[0]) as source:
            corner, zone = (source.transform.c, source.transform.f), source.crs.to_epsg() - 32600
        place = {"upper_left": corner, "utm_zone": zone}
        bands = true_patches[name].bands
        if root == real_pairs.s2_root:
            geotiff.write_s2_folder(tmp_path, name, bands, ["Pastures"], **place)
        else:
            geotiff.write_s1_folder(tmp_path, name, bands, ["Pastures"], pair.s2, **place)
        for path in published:
            with rasterio.open(path) as theirs, rasterio.open(tmp_path / name / path.name) as ours:
                assert ours.profile == theirs.profile
                np.testing.assert_array_equal(ours.read(), theirs.read())
            assert read_strips(tmp_path / name / path.name) is not None


def test_full_disk_is_an_error_when_a_band_is_written(tmp_path):
    (tmp_path / "P").mkdir()
    (tmp_path / "P" / "P_B05.tif").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        geotiff.write_s2_folder(tmp_path, "P", {"B05": PIXELS}, ["Pastures"])


def _broken_copy(real_pairs, tmp_path: Path) -> Path:
    name = real_pairs.pairs[0].s2
    return Path(shutil.copytree(real_pairs.s2_root / name, tmp_path / name))


def test_missing_band_is_named(real_pairs, tmp_path):
    folder = _broken_copy(real_pairs, tmp_path)
    (folder / f"{folder.name}_B8A.tif").unlink()
    with pytest.raises(DataError, match=r"_B8A\.tif: this band is missing"):
        geotiff.read_s2_folder(folder)


def test_misshapen_band_is_named(real_pairs, tmp_path):
    folder = _broken_copy(real_pairs, tmp_path)
    shutil.copy(folder / f"{folder.name}_B05.tif", folder / f"{folder.name}_B02.tif")
    with pytest.raises(DataError, match=r"_B02\.tif: 60x60 pixels of uint16, but band B02 is 120x120"):
        geotiff.read_s2_folder(folder)


def test_band_of_the_wrong_type_is_named(real_pairs, tmp_path):
    folder = _broken_copy(real_pairs, tmp_path)
    pair = real_pairs.pairs[0]
    shutil.copy(real_pairs.s1_root / pair.s1 / f"{pair.s1}_VV.tif", folder / f"{folder.name}_B02.tif")
    with pytest.raises(DataError, match=r"_B02\.tif: 120x120 pixels of float32, but band B02 is 120x120 of uint16"):
        geotiff.read_s2_folder(folder)


@pytest.mark.parametrize("length", [0, 4, 9, 100, 380, 5000, 7559])
def test_truncated_band_is_refused_at_any_length(real_pairs, tmp_path, length):
    folder = _broken_copy(real_pairs, tmp_path)
    path = folder / f"{folder.name}_B05.tif"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"_B05\.tif: not a readable GeoTIFF.* download this patch again"):
        geotiff.read_s2_folder(folder)


def test_nan_in_sentinel_1_is_refused(real_pairs, true_patches, tmp_path):
    pair = real_pairs.pairs[0]
    bands = {band: pixels.copy() for band, pixels in true_patches[pair.s1].bands.items()}
    bands["VH"][7, 9] = np.nan
    folder = geotiff.write_s1_folder(tmp_path, pair.s1, bands, [], pair.s2)
    with pytest.raises(DataError, match=r"_VH\.tif: band VH holds NaN"):
        geotiff.read_s1_folder(folder)


def test_strips_out_of_order_are_left_to_rasterio(real_pairs, tmp_path):
    """Swap two strips and their offsets: the values are the same, the direct reader must not assume an order."""
    pair = real_pairs.pairs[0]
    source = real_pairs.s2_root / pair.s2 / f"{pair.s2}_B02.tif"
    content = bytearray(source.read_bytes())
    count, at = next(
        struct.unpack_from("<II", content, 14 + 12 * entry)
        for entry in range(15)
        if struct.unpack_from("<H", content, 10 + 12 * entry) == (273,)
    )
    offsets = list(struct.unpack_from(f"<{count}I", content, at))
    second, third = (bytes(content[offset : offset + 8160]) for offset in offsets[1:3])
    content[offsets[1] : offsets[1] + 8160], content[offsets[2] : offsets[2] + 8160] = third, second
    offsets[1], offsets[2] = offsets[2], offsets[1]
    struct.pack_into(f"<{count}I", content, at, *offsets)
    (tmp_path / "swapped.tif").write_bytes(content)
    np.testing.assert_array_equal(geotiff.read_band(tmp_path / "swapped.tif"), geotiff.read_band(source))


def _entry(content: bytes, tag: int) -> int:
    """Return where the value of a directory's entry stands."""
    return next(at + 8 for at in range(10, 10 + 12 * 17, 12) if struct.unpack_from("<H", content, at) == (tag,))


def _damaged(real_pairs, tmp_path: Path, tag: int, value: int) -> Path:
    """Return a published B01, one strip, with the value of one entry changed."""
    pair = real_pairs.pairs[0]
    content = bytearray((real_pairs.s2_root / pair.s2 / f"{pair.s2}_B01.tif").read_bytes())
    struct.pack_into("<I", content, _entry(content, tag), value)
    path = tmp_path / "damaged.tif"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (273, 10, "overlap its directory; download"),
        (273, 0, "overlap its directory; download"),
        (256, 60_000, "60000x20 pixels; a patch has at most 120x120"),
        (257, 4_000_000_000, r"pixels; a patch has at most 120x120|not a readable"),
    ],
    ids=["in the directory", "nowhere", "wide", "gigabytes high"],
)
def test_directory_that_tells_of_other_pixels_is_refused(real_pairs, tmp_path, recwarn, tag, value, message):
    """GDAL reads a directory as pixels and makes room for any size."""
    with pytest.raises(DataError, match=message):
        geotiff.read_band(_damaged(real_pairs, tmp_path, tag, value))
    assert not recwarn.list, "one line is what the user gets"


def test_rows_of_a_strip_that_do_not_fit_its_bytes_are_refused(real_pairs, tmp_path):
    pair = real_pairs.pairs[0]
    content = bytearray((real_pairs.s2_root / pair.s2 / f"{pair.s2}_B02.tif").read_bytes())
    struct.pack_into("<I", content, _entry(content, 278), 17)
    (tmp_path / "rows.tif").write_bytes(content)
    with pytest.raises(DataError):
        geotiff.read_band(tmp_path / "rows.tif")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_pixels_that_are_not_in_the_file_are_no_zeros(tmp_path):
    path = tmp_path / "band.tif"
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16, "SPARSE_OK": True}
    with rasterio.open(path, "w", "GTiff", 60, 60, 1, dtype="uint16", **layout) as file:
        file.write(PIXELS[:16, :16], 1, window=Window(0, 0, 16, 16))
    with rasterio.open(path) as file:
        assert (file.read(1)[16:] == 0).all(), "GDAL must give zeros, or the test shows nothing"
    with pytest.raises(DataError, match="a part of its pixels is missing"):
        geotiff.read_band(path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_deflated_pixels_are_compared_with_their_checksum(tmp_path):
    """GDAL takes some of the changes that the checksum tells."""
    pixels = np.random.default_rng(0).integers(0, 9000, (120, 120), dtype=np.uint16)
    path = tmp_path / "band.tif"
    with rasterio.open(path, "w", "GTiff", 120, 120, 1, dtype="uint16", compress="deflate", predictor=2) as file:
        file.write(pixels, 1)
    np.testing.assert_array_equal(geotiff.read_band(path), pixels)
    with rasterio.open(path) as file:
        first = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    sound, taken = path.read_bytes(), 0
    for place in range(first, first + 7000, 97):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        with pytest.raises(DataError, match="not a readable GeoTIFF"):
            geotiff.read_band(path)
        with suppress(rasterio.errors.RasterioIOError), rasterio.open(path) as file:
            taken += bool((file.read(1) != pixels).any())
    assert taken, "GDAL must take one of them, or the test shows nothing"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_no_more_is_read_than_the_file_has(tmp_path):
    """A damaged directory may claim a block of any size: here 4 EiB, for which there is no memory."""
    path = tmp_path / "band.tif"
    layout = {"compress": "deflate", "blockysize": 120, "BIGTIFF": "YES"}
    with rasterio.open(path, "w", "GTiff", 120, 120, 1, dtype="uint16", **layout) as file:
        file.write(np.random.default_rng(0).integers(0, 9000, (120, 120), dtype=np.uint16), 1)
    content = bytearray(path.read_bytes())
    first = struct.unpack_from("<Q", content, 8)[0] + 8
    entry = next(at for at in range(first, len(content), 20) if struct.unpack_from("<H", content, at) == (279,))
    struct.pack_into("<HQQ", content, entry + 2, 16, 1, 2**62)
    path.write_bytes(content)
    with pytest.raises(DataError, match="a part of its pixels is truncated"):
        geotiff.read_band(path)
