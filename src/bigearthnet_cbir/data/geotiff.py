"""Reader and writer of patch folders of single-band GeoTIFFs; pixel values pass unchanged in both directions."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.bands import BAND_SIZES, PATCH_SIZE, S1_BANDS, S2_BANDS
from bigearthnet_cbir.data.fast_tiff import read_strips
from bigearthnet_cbir.data.patch_rules import check_values
from bigearthnet_cbir.errors import DataError

_PIXEL_METRES: Final = 10
_PATCH_METRES: Final = PATCH_SIZE * _PIXEL_METRES
_MOST_BYTES: Final = 1 << 20
"""Upper limit of the decompressed bytes of a block; a whole patch of 120x120 is smaller."""


def read_s2_folder(folder: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the twelve Sentinel-2 bands of a patch: uint16 reflectance x 10 000 at 120, 60 or 20 pixels.

    Raises:
        DataError: a band is missing, unreadable, or has the wrong size or data type.
    """
    return _read_bands(folder, S2_BANDS, np.dtype(np.uint16))


def read_s1_folder(folder: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return VV and VH of a patch: float32 dB at 120 pixels.

    Raises:
        DataError: as for read_s2_folder, or a value is not finite.
    """
    return _read_bands(folder, S1_BANDS, np.dtype(np.float32))


def _read_bands(folder: Path, bands: Sequence[str], dtype: np.dtype[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
    stem = f"{folder}/{folder.name}_"
    found = {}
    for band in bands:
        pixels = read_band(f"{stem}{band}.tif")
        side = BAND_SIZES[band]
        if pixels.shape != (side, side) or pixels.dtype != dtype:
            size = "x".join(map(str, pixels.shape))
            raise DataError(
                f"{stem}{band}.tif: {size} pixels of {pixels.dtype}, but band {band} is {side}x{side} of {dtype}; "
                "download this patch again"
            )
        try:
            check_values({band: pixels})
        except DataError as error:
            raise DataError(f"{stem}{band}.tif: {error}") from error
        found[band] = pixels
    return found


def read_band(path: Path | str) -> npt.NDArray[np.generic]:
    """Return the (H, W) pixels of a single-band GeoTIFF, unchanged.

    Files in plain strips, as published, are read directly; files with any other layout are read by rasterio.

    Raises:
        DataError: the file is missing, not a TIFF, truncated, or has several bands.
    """
    try:
        pixels = read_strips(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: this band is missing; download this patch again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the disk and the permissions") from error
    return _read_by_rasterio(path) if pixels is None else pixels


def _read_by_rasterio(path: Path | str) -> npt.NDArray[np.generic]:
    import rasterio  # imported lazily: published files do not need it
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    environment = rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
    try:
        with warnings.catch_warnings(), environment:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # only the pixels are used
            with rasterio.open(path, driver="GTiff") as source:
                return _only_band(source, path)
    except (RasterioError, zlib.error) as error:
        raise DataError(f"{path}: not a readable GeoTIFF, or truncated; download this patch again") from error


def read_corner(path: Path) -> tuple[str, float, float] | None:
    """Return the CRS (such as EPSG:32633), easting and northing of the upper left corner of a GeoTIFF.

    None if the file cannot be read or has no georeference.
    """
    import rasterio  # imported lazily: needed only if names and JSONs have no location
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as source:
                if source.crs is None:
                    return None
                return source.crs.to_string(), float(source.transform.c), float(source.transform.f)
    except RasterioError:
        return None


def _only_band(source: Any, path: Path | str) -> npt.NDArray[np.generic]:
    """Return the pixels of a file opened by rasterio, after checking its size: a damaged file may claim gigabytes."""
    if source.count != 1:
        raise DataError(f"{path}: {source.count} bands in one file; a BigEarthNet band file has one")
    if max(source.shape) > PATCH_SIZE:
        raise DataError(f"{path}: {source.width}x{source.height} pixels; a patch has at most {PATCH_SIZE}x{PATCH_SIZE}")
    for (row, column), _ in source.block_windows(1):
        _check_block(source, path, f"{column}_{row}")
    return np.asarray(source.read(1))


def _check_block(source: Any, path: Path | str, name: str) -> None:
    """Refuse a missing block (GDAL returns zeros) and a block with a wrong checksum (GDAL may not verify it)."""
    offset, size = (source.get_tag_item(f"BLOCK_{what}_{name}", "TIFF", bidx=1) for what in ("OFFSET", "SIZE"))
    if not offset or not size or int(size) == 0:
        raise DataError(f"{path}: a part of its pixels is missing; download this patch again")
    if source.compression is None or source.compression.name != "deflate":
        return
    unpacking = zlib.decompressobj()
    with open(path, "rb") as stream:
        if int(offset) + int(size) <= os.fstat(stream.fileno()).st_size:  # a damaged directory may claim any size
            stream.seek(int(offset))
            unpacking.decompress(stream.read(int(size)), _MOST_BYTES)
    if not unpacking.eof:
        raise DataError(f"{path}: a part of its pixels is truncated; download this patch again")


def write_s2_folder(
    root: Path,
    name: str,
    bands: Mapping[str, npt.NDArray[np.generic]],
    labels: Sequence[str],
    *,
    upper_left: tuple[float, float] = (500_000.0, 5_000_000.0),
    utm_zone: int = 33,
    acquired: str = "2017-06-13 10:10:31",
    tile_source: str = "",
) -> Path:
    """Write one Sentinel-2 patch folder in the layout of BigEarthNet v1 and return it.

    Args:
        root: parent of the patch folders; created if missing.
        name: patch name.
        bands: band name -> uint16 (H, W), reflectance x 10 000, at the band's native size.
        labels: class names for the JSON (43- or 19-class nomenclature).
        upper_left: easting and northing of the outer corner, in metres.
        utm_zone: 1 to 60, northern hemisphere.
        acquired: "YYYY-MM-DD hh:mm:ss".
        tile_source: name of the product that the patch is from.
    """
    folder = write_bands(root, name, bands, upper_left, utm_zone)
    extra = {"tile_source": tile_source, "acquisition_date": acquired}
    return _write_json(folder, labels, upper_left, utm_zone, "lry", extra)


def write_s1_folder(
    root: Path,
    name: str,
    bands: Mapping[str, npt.NDArray[np.generic]],
    labels: Sequence[str],
    corresponding_s2_patch: str,
    *,
    upper_left: tuple[float, float] = (500_000.0, 5_000_000.0),
    utm_zone: int = 33,
    acquired: str = "2017-06-13T16:50:43",
    scene_source: str = "",
) -> Path:
    """Write one Sentinel-1 patch folder in the layout of BigEarthNet v1 and return it.

    Args as for write_s2_folder; bands are float32 dB, acquired is "YYYY-MM-DDThh:mm:ss", and
    corresponding_s2_patch is the name of the Sentinel-2 patch of the same location.
    """
    folder = write_bands(root, name, bands, upper_left, utm_zone)
    extra = {
        "corresponding_s2_patch": corresponding_s2_patch,
        "scene_source": scene_source,
        "acquisition_time": acquired,
    }
    return _write_json(folder, labels, upper_left, utm_zone, "lly", extra)


def write_bands(
    root: Path,
    name: str,
    bands: Mapping[str, npt.NDArray[np.generic]],
    upper_left: tuple[float, float],
    utm_zone: int,
) -> Path:
    """Write the single-band GeoTIFFs of one patch, without a JSON, and return their folder; arguments as above."""
    import rasterio  # imported lazily: few commands write files

    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.Env():  # one for all bands, because entering it takes a tenth of the time of a file
        for band, pixels in bands.items():
            _write_band(folder / f"{name}_{band}.tif", pixels, upper_left, utm_zone)
    return folder


def _write_band(path: Path, pixels: npt.NDArray[np.generic], upper_left: tuple[float, float], utm_zone: int) -> None:
    """Write (H, W) pixels, uint16 or float32, in the published layout: uncompressed strips, UTM north.

    GDAL writes to memory, because it does not raise an error when the disk is full; Path.write_bytes does.
    """
    from rasterio.io import MemoryFile
    from rasterio.transform import Affine

    height, width = pixels.shape
    size = _PATCH_METRES / height
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": pixels.dtype.name}
    georeference = {
        "crs": f"EPSG:{32600 + utm_zone}",
        "transform": Affine(size, 0, upper_left[0], 0, -size, upper_left[1]),
    }
    with MemoryFile() as memory:
        with memory.open(**profile, **georeference, ENDIANNESS="LITTLE") as band:
            band.write(pixels.astype(pixels.dtype.newbyteorder("="), copy=False), 1)
        path.write_bytes(memory.getbuffer())


def _write_json(
    folder: Path,
    labels: Sequence[str],
    upper_left: tuple[float, float],
    utm_zone: int,
    lower_key: str,
    extra: Mapping[str, Any],
) -> Path:
    """Write the patch's JSON; lower_key is "lry", or "lly" the name of the same value in Sentinel-1 files."""
    left, top = upper_left
    corners = {"ulx": left, "uly": top, "lrx": left + _PATCH_METRES, lower_key: top - _PATCH_METRES}
    content = {"labels": list(labels), "coordinates": corners, "projection": f"EPSG:{32600 + utm_zone}", **extra}
    (folder / f"{folder.name}_labels_metadata.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
