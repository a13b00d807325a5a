"""Uploads: real patches find themselves, and hostile files get one sentence."""

import io
import stat
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fastapi.testclient import TestClient
from rasterio.transform import from_origin
from tests.conftest import RealPairs

from bigearthnet_cbir.data.bands import MODEL_S2_BANDS, S1_BANDS, S2_BANDS
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.serve.unpacking import MOST_ENTRIES, MOST_FILES, unpack
from bigearthnet_cbir.serve.uploads import Encoders
from bigearthnet_cbir.types import PatchPair

pytestmark = pytest.mark.slow


def files_of(real: RealPairs, pair: PatchPair, sensors: str = "s1 s2") -> dict[str, bytes]:
    found = {}
    if "s1" in sensors:
        found |= {
            f"{pair.s1}/{pair.s1}_{band}.tif": (real.s1_root / pair.s1 / f"{pair.s1}_{band}.tif").read_bytes()
            for band in S1_BANDS
        }
    if "s2" in sensors:
        found |= {
            f"{pair.s2}/{pair.s2}_{band}.tif": (real.s2_root / pair.s2 / f"{pair.s2}_{band}.tif").read_bytes()
            for band in S2_BANDS
        }
    return found


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def send(client: TestClient, files: Iterable[tuple[str, bytes]]) -> Any:
    return client.post("/api/upload", files=[("files", item) for item in files])


def pair_of(index: Index, position: int) -> PatchPair:
    return PatchPair(index.names_s2[position], index.names_s1[position])


@pytest.mark.parametrize("run", [0, 1])
def test_a_zip_of_both_sensors_finds_itself(client: TestClient, index: Index, real_pairs: RealPairs, run: int) -> None:
    files = files_of(real_pairs, pair_of(index, 3))
    told = send(
        client, [("patch.zip", zipped({f"a folder/{name}": content for name, content in files.items()}))]
    ).json()
    assert told["sensors"] == ["s1", "s2"]
    assert len(told["directions"]) == 7
    for direction in ("fused", "s1_s1", "s2_s2"):
        found = client.post("/api/search", json={"upload": told["upload"], "direction": direction, "run": run}).json()
        assert found["results"][0]["position"] == 3
        assert found["results"][0]["distance"] == pytest.approx(0, abs=1e-4)
        assert len(found["results"]) == 6


def test_single_files_of_one_sensor_ask_in_its_directions(
    client: TestClient, index: Index, real_pairs: RealPairs
) -> None:
    files = files_of(real_pairs, pair_of(index, 1), "s1")
    told = send(client, [(name.rpartition("/")[2], content) for name, content in files.items()]).json()
    assert (told["sensors"], told["directions"]) == (["s1"], ["s1_s1", "s1_s2", "s1_fused"])
    found = client.post("/api/search", json={"upload": told["upload"], "direction": "s1_s1"}).json()
    assert found["results"][0]["position"] == 1
    refused = client.post("/api/search", json={"upload": told["upload"]})
    assert refused.status_code == 422
    assert "s1" in refused.json()["error"]
    assert client.get(f"/api/upload/{told['upload']}/s1").headers["content-type"] == "image/jpeg"
    assert client.get(f"/api/upload/{told['upload']}/s2").status_code == 404


def stack(real: RealPairs, pair: PatchPair, size: int = 120) -> bytes:
    """Return the encoders' Sentinel-2 bands as one GeoTIFF of 10 m, its middle the patch."""
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", width=size, height=size, count=len(MODEL_S2_BANDS), dtype="uint16",
                         crs="EPSG:32633", transform=from_origin(500_000, 5_300_000, 10, 10)) as target:  # fmt: skip
            for number, band in enumerate(MODEL_S2_BANDS, start=1):
                with rasterio.open(real.s2_root / pair.s2 / f"{pair.s2}_{band}.tif") as source:
                    pixels = source.read(1)
                pixels = np.kron(pixels, np.ones((120 // len(pixels),) * 2, pixels.dtype))
                target.write(np.resize(pixels, (size, size)), number)
                target.set_band_description(number, band)
        return bytes(memory.read())


def test_a_stack_finds_itself(client: TestClient, index: Index, real_pairs: RealPairs) -> None:
    told = send(client, [("place.tif", stack(real_pairs, pair_of(index, 2)))]).json()
    assert told["sensors"] == ["s2"]
    found = client.post("/api/search", json={"upload": told["upload"], "direction": "s2_s2"}).json()
    assert found["results"][0]["position"] == 2


def test_a_larger_stack_is_cut_and_says_so(client: TestClient, index: Index, real_pairs: RealPairs) -> None:
    told = send(client, [("place.tif", stack(real_pairs, pair_of(index, 2), 300))]).json()
    assert told["warnings"] == ["the stack was cut from 300 x 300 to 120 x 120 pixels around its middle"]


def test_an_upload_takes_marks(client: TestClient, index: Index, real_pairs: RealPairs) -> None:
    told = send(client, [("p.zip", zipped(files_of(real_pairs, pair_of(index, 0))))]).json()
    question = {"upload": told["upload"], "like": [index.names_s2[3]], "unlike": [index.names_s2[5]]}
    marked = client.post("/api/search", json=question).json()
    named = client.post("/api/search", json={**question, "upload": None, "patch": index.names_s2[0]}).json()
    assert [r["position"] for r in marked["results"] if r["position"] != 0] == [r["position"] for r in named["results"]]


def link(name: str, to: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def with_entry(entry: zipfile.ZipInfo | str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, content)
    return stream.getvalue()


def lying_zip(claimed: int, real: int) -> bytes:
    """A zip whose headers claim another size than its entry unpacks to."""
    content = with_entry("a_B02.tif", b"\0" * real)
    head = struct.pack("<I", real)
    return content.replace(head, struct.pack("<I", claimed))


def giant_tiff() -> bytes:
    """A small TIFF whose header claims 2,000,000,000 pixels a side."""
    entries = [(256, 4, 1, 2_000_000_000), (257, 4, 1, 2_000_000_000), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
               (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 2_000_000_000), (279, 4, 1, 100)]  # fmt: skip
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 8) + body


def damaged_zip() -> bytes:
    content = bytearray(with_entry("a_B02.tif", bytes(range(256)) * 40))
    content[50:80] = b"\xff" * 30
    return bytes(content)


VRT = b"""<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename>/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""
BOMB = with_entry("S1_x_VV.tif", b"\0" * (130 << 20))
HOSTILE: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "path upwards": ([("a.zip", with_entry("../../evil_B02.tif", b"x"))], "unsafe path"),
    "path upwards, backslashes": ([("a.zip", with_entry("..\\..\\evil_B02.tif", b"x"))], "unsafe path"),
    "absolute path": ([("a.zip", with_entry("/etc/evil_B02.tif", b"x"))], "unsafe path"),
    "drive": ([("a.zip", with_entry("C:/evil_B02.tif", b"x"))], "unsafe path"),
    "symbolic link": ([("a.zip", with_entry(link("a_B02.tif", ""), b"/etc/passwd"))], "link"),
    "bomb": ([("a.zip", BOMB)], "bytes"),
    "bomb that claims to be small": ([("a.zip", lying_zip(10, 130 << 20))], ""),
    "bomb in a bomb": ([("a.zip", with_entry("inner.zip", BOMB))], "no GeoTIFF"),
    "many entries": ([("a.zip", zipped({f"{i}.txt": b"" for i in range(MOST_ENTRIES + 1)}))], "entries"),
    "many files": ([("a.zip", zipped({f"a{i}_B02.tif": b"x" for i in range(MOST_FILES + 1)}))], "files"),
    "one file twice": ([("a_B02.tif", b"x"), ("a_B02.tif", b"y")], "two files"),
    "no zip": ([("a.zip", b"PK\3\4 nothing of the kind")], "zip"),
    "a cut zip": ([("a.zip", zipped({"a_B02.tif": b"x" * 1000})[:-30])], "zip"),
    "damaged content": ([("a.zip", damaged_zip())], ""),
    "a script": ([("run.sh", b"#!/bin/sh")], "not the name of a GeoTIFF"),
    "a page": ([("<script>alert(1)</script>.tif", b"x")], "not the name of a GeoTIFF"),
    "path as a name": ([("../../../etc/cron.d/x.tif", b"x")], ""),
    "text in a band": ([("a_B02.tif", b"no TIFF at all")], ""),
    "nothing in a band": ([("a_B02.tif", b"")], ""),
    "a TIFF of many pixels": ([("a_B02.tif", giant_tiff())], ""),
    "a stack of many pixels": ([("a.tif", giant_tiff())], ""),
    "GDAL's own XML": ([("a.tif", VRT)], ""),
    "two places": ([("a_VV.tif", b"x"), ("b_VV.tif", b"x")], "one location"),
    "stack beside bands": ([("a_VV.tif", b"x"), ("b.tif", b"x")], "one of the two"),
    "only a text": ([("a.zip", with_entry("readme.txt", b"hello"))], "no GeoTIFF"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_uploads_get_one_sentence(client: TestClient, case: str) -> None:
    files, word = HOSTILE[case]
    found = send(client, files)
    assert found.status_code == 422, found.text
    error = found.json()["error"]
    assert error.endswith(".")
    assert word in error
    assert not any(part in error for part in ("/tmp", "Traceback", "cbir-upload", "\n"))


def test_a_real_band_of_another_sensor_gets_one_sentence(
    client: TestClient, index: Index, real_pairs: RealPairs
) -> None:
    files = files_of(real_pairs, pair_of(index, 0), "s2")
    name, content = next(iter(files.items()))
    found = send(client, [(name.rpartition("/")[2], content)])
    assert found.status_code == 422
    assert "missing" in found.json()["error"]


def test_files_land_in_the_folder_and_nowhere_else(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir(), outside.mkdir()
    for name in ("../outside/a_B02.tif", "..\\outside\\a_B03.tif", "/a_B04.tif"):
        unpack([(name, io.BytesIO(b"x"))], inside) if not (inside / "a").exists() else None
        for path in inside.rglob("*"):
            assert path.resolve().is_relative_to(inside.resolve())
    assert list(outside.iterdir()) == []


def test_too_many_files_and_too_many_bytes_are_refused(client: TestClient) -> None:
    assert send(client, [(f"a{i}.tif", b"x") for i in range(MOST_FILES + 1)]).status_code == 413
    assert send(client, [("a.tif", b"\0" * (65 << 20))]).status_code == 413
    assert client.post("/api/upload").status_code == 422


def test_an_upload_that_takes_too_long_is_given_up_and_the_next_one_works(
    run_folders: list[Path], index: Index, real_pairs: RealPairs, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(zipped(files_of(real_pairs, pair_of(index, 0), "s1")))
    encoders = Encoders(run_folders[:1], seconds=0.0)
    try:
        with pytest.raises(QueryError, match="longer than 0 s"):
            encoders.embed([("a.zip", path)])
        assert encoders._process is None
        encoders._seconds = 60
        assert set(encoders.embed([("a.zip", path)]).vectors[0]) == {"s1"}
    finally:
        encoders.close()


def test_a_worker_that_dies_is_told_and_started_again(
    run_folders: list[Path], index: Index, real_pairs: RealPairs, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(zipped(files_of(real_pairs, pair_of(index, 0), "s1")))
    encoders = Encoders(run_folders[:1])
    try:
        encoders.embed([("a.zip", path)])
        process = encoders._process
        process.kill()
        process.join()
        assert set(encoders.embed([("a.zip", path)]).vectors[0]) == {"s1"}
    finally:
        encoders.close()


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    encoders = Encoders([tmp_path])
    with pytest.raises(QueryError, match="cannot be loaded"):
        encoders.embed([])
