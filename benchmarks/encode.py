"""Patch pairs per second of one core: a plain rasterio loop against this project's reader and encoder.

python benchmarks/encode.py --copies 50

The six pairs of the bigearthnet-common package are copied that often, so that the files are many and their contents
real. All files are in the page cache: what is measured is the work per file, not the disk. The values that every way
reads, and the records that both ways write, are compared. The process uses one core, threads included. The stages of
the encoder are timed one after the other over all pairs; the archive is written to the disk of --folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import rasterio
from safetensors.numpy import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.bands import S1_BANDS, S2_BANDS
from bigearthnet_cbir.data.geotiff import read_s1_folder, read_s2_folder
from bigearthnet_cbir.data.official_splits import package_folder
from bigearthnet_cbir.data.patch_folders import PatchFolders, read_notes
from bigearthnet_cbir.data.patch_store import PatchWriter
from bigearthnet_cbir.pipelines.encode import encode
from bigearthnet_cbir.pipelines.encode_types import EncodeOptions

Reader = Callable[[Path, Path], tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]


def by_rasterio(s2: Path, s1: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    def bands(folder: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        found = {}
        for band in names:
            with rasterio.open(folder / f"{folder.name}_{band}.tif") as source:
                found[band] = source.read(1)
        return found

    return bands(s2, S2_BANDS), bands(s1, S1_BANDS)


def by_rasterio_tuned(s2: Path, s1: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"):
        return by_rasterio(s2, s1)


def by_this_project(s2: Path, s1: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return read_s2_folder(s2), read_s1_folder(s1)


def build(root: Path, copies: int) -> list[tuple[Path, Path]]:
    """Write copies of the six pairs under names of their own; return the (Sentinel-2, Sentinel-1) folders."""
    for sensor in ("S1", "S2"):
        with tarfile.open(package_folder() / f"BigEarthNet-{sensor}-Example.tar.bz2") as archive:
            archive.extractall(root, filter="data")
    found = []
    for original in sorted((root / "BigEarthNet-S1-Example").iterdir()):
        s2_name = read_notes(original).s2
        assert s2_name is not None
        for number in range(copies):
            pair = []
            for source, kind in ((root / "BigEarthNet-S2-Example" / s2_name, "S2"), (original, "S1")):
                name = f"{source.name}{number:04}"
                target = root / kind / name
                target.mkdir(parents=True)
                for file in source.iterdir():
                    copy = target / file.name.replace(source.name, name)
                    shutil.copy(file, copy)
                    if copy.suffix == ".json":
                        copy.write_text(copy.read_text().replace(s2_name, f"{s2_name}{number:04}"))
                pair.append(target)
            found.append((pair[0], pair[1]))
    return found


def rate(reader: Reader, folders: list[tuple[Path, Path]], repeats: int) -> float:
    """Return pairs per second of the fastest of several passes."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        for s2, s1 in folders:
            reader(s2, s1)
        times.append(time.perf_counter() - started)
    return len(folders) / min(times)


def plain_archive(folders: list[tuple[Path, Path]], target: Path) -> float:
    """Write an archive by the usual means, and return its pairs per second."""
    started = time.perf_counter()
    with lmdb.open(str(target), map_size=1 << 34) as environment:
        for first in range(0, len(folders), 128):
            with environment.begin(write=True) as transaction:
                for s2, s1 in folders[first : first + 128]:
                    labels = {"labels": json.dumps(read_notes(s2).labels)}
                    for folder, bands in zip((s2, s1), by_rasterio(s2, s1), strict=True):
                        transaction.put(folder.name.encode(), save(bands, metadata=labels))
    return len(folders) / (time.perf_counter() - started)


def stages(folders: list[tuple[Path, Path]], target: Path) -> dict[str, float]:
    """Return the seconds of each stage of the encoder over all pairs."""
    clock = [time.perf_counter()]
    read = [(*map(read_notes, pair), *by_this_project(*pair)) for pair in folders]
    clock.append(time.perf_counter())
    encoded = [[records.encode_record(bands, notes.labels) for bands in sensors] for notes, _, *sensors in read]
    clock.append(time.perf_counter())
    with PatchWriter(target) as writer:
        for pair, pair_records in zip(folders, encoded, strict=True):
            for folder, record in zip(pair, pair_records, strict=True):
                writer.write_record(folder.name, record)
    clock.append(time.perf_counter())
    return dict(zip(("read", "encode", "commit"), np.diff(clock).tolist(), strict=True))


def whole(root: Path, pairs: int, target: Path) -> float:
    """Return the seconds of the encoder from the folders to the archive."""
    started = time.perf_counter()
    report = encode(
        EncodeOptions(PatchFolders(root / "S1", "S1").root, PatchFolders(root / "S2", "S2").root, target, target)
    )
    assert report.encoded == pairs
    return time.perf_counter() - started


def contents(archive: Path) -> dict[bytes, bytes]:
    """Return all records of an archive."""
    with lmdb.open(str(archive), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {bytes(key): bytes(record) for key, record in transaction.cursor()}


def print_archives(root: Path, folders: list[tuple[Path, Path]], repeats: int) -> None:
    """Print what writing archives takes: the plain loop, the encoder, and its stages."""
    plain = max(plain_archive(folders, root / f"plain{number}") for number in range(repeats))
    print(f"{'folders to LMDB, plain rasterio loop':<40}{plain:>8,.0f} pairs/s {1:>6.1f} x")
    seconds = min(whole(root, len(folders), root / f"whole{number}") for number in range(repeats))
    speed = len(folders) / seconds
    print(f"{'folders to LMDB, this project':<40}{speed:>8,.0f} pairs/s {speed / plain:>6.1f} x")
    parts = min((stages(folders, root / f"parts{number}") for number in range(repeats)), key=lambda d: sum(d.values()))
    parts["pairing, checks, counts"] = max(seconds - sum(parts.values()), 0)
    for name, part in parts.items():
        print(f"  {name:<38}{1e6 * part / len(folders):>8,.0f} us a pair {part / seconds:>6.0%}")
    expected, found = (contents(root / name) for name in ("plain0", "whole0"))
    assert expected == found, "the two archives differ"
    print(f"both archives hold the same {len(found):,} records, byte for byte")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=50, help="of the six pairs (default 50, 90 MB)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where to write; by default the folder of temporary files")
    given = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        root = Path(folder)
        folders = build(root, given.copies)
        for pair in folders[:: given.copies]:
            for expected, found in zip(by_rasterio(*pair), by_this_project(*pair), strict=True):
                assert all(np.array_equal(found[band], pixels) for band, pixels in expected.items())
                assert all(found[band].dtype == pixels.dtype for band, pixels in expected.items())
        print(f"{len(folders)} pairs of 14 files, one core, the same values each way")
        plain = rate(by_rasterio, folders, given.repeats)
        for label, reader in (
            ("plain rasterio loop", by_rasterio),
            ("rasterio, directory scan off", by_rasterio_tuned),
            ("this project's reader", by_this_project),
        ):
            speed = plain if reader is by_rasterio else rate(reader, folders, given.repeats)
            print(f"{label:<40}{speed:>8,.0f} pairs/s {speed / plain:>6.1f} x")
        print_archives(root, folders, given.repeats)


if __name__ == "__main__":
    main()
