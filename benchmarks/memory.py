"""What a search holds in memory beside its archive: lists of many shards, and the preparation of codes.

    python benchmarks/memory.py

Every case runs in a process of its own, once small so that its kernels are compiled; then the growth of its resident
memory is taken at its highest. The shards are small here, because lists of neighbours do not depend on their size.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import h5py
import numpy as np
from hardware import write_results

from bigearthnet_cbir.search import archive_shards
from bigearthnet_cbir.search.binarizers import fit_binarizers
from bigearthnet_cbir.search.binary_codes import codes_of, median_thresholds
from bigearthnet_cbir.search.knn import iter_search
from bigearthnet_cbir.search.shards import PreparedArchive

SHARDS, SHARD_ROWS, QUERIES, K = 12, 8192, 16_384, 1000
CODES, CODE_BYTES = 10_000_000, 20
FEATURES, WIDTH = 200_000, 512


def resident(field: str) -> int:
    """Return a field of this process's status, in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


def growth(call: Callable[[], Any]) -> int:
    """Return by how many bytes a call made the resident memory grow at most."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    call()
    return resident("VmHWM") - before


def search_shards(file: h5py.File, queries: int) -> None:
    """Search an archive that is read from a file, one thread."""
    archive_shards.ARCHIVE_BYTES, archive_shards.SHARD_BYTES = 0, file["codes"].size // SHARDS
    for _ in iter_search(file["codes"][:queries], file["codes"], K, "hamming", threads=1):
        pass


def lists(folder: Path) -> dict[str, Any]:
    """Neighbour lists of one block of queries against many shards."""
    with h5py.File(folder / "lists.h5", "w") as file:
        file["codes"] = np.random.default_rng(0).integers(0, 256, (SHARDS * SHARD_ROWS, 32), dtype=np.uint8)
        search_shards(file, 256)
        bytes_more = growth(lambda: search_shards(file, QUERIES))
    return {"work": f"lists of {QUERIES:,} queries, k = {K:,}, {SHARDS} shards", "held": QUERIES * K * 8,
            "peak": bytes_more}  # fmt: skip


def codes(folder: Path) -> dict[str, Any]:
    """Packed codes from a file, made ready for the search."""
    with h5py.File(folder / "codes.h5", "w") as file:
        file["codes"] = np.random.default_rng(1).integers(0, 256, (CODES, CODE_BYTES), dtype=np.uint8)
        PreparedArchive(file["codes"][:1000], "hamming")
        bytes_more = growth(lambda: PreparedArchive(file["codes"], "hamming"))
    return {"work": f"{CODES:,} codes of {CODE_BYTES} bytes made ready", "held": CODES * CODE_BYTES, "peak": bytes_more}


def features(folder: Path) -> dict[str, Any]:
    """Float features from a file, turned into packed codes."""
    with h5py.File(folder / "features.h5", "w") as file:
        file["rows"] = np.random.default_rng(2).random((FEATURES, WIDTH), dtype=np.float32)
        codes_of(file["rows"][:1000], median_thresholds(file["rows"][:1000]))
        bytes_more = growth(lambda: codes_of(file["rows"], median_thresholds(file["rows"])))
    return {"work": f"{FEATURES:,} x {WIDTH} floats turned into codes", "held": FEATURES * WIDTH * 4,
            "peak": bytes_more}  # fmt: skip


def itq(folder: Path) -> dict[str, Any]:
    """Float features from a file, turned into codes of 64 bits by iterative quantisation."""
    with h5py.File(folder / "itq.h5", "w") as file:
        file["rows"] = np.random.default_rng(3).random((FEATURES, WIDTH), dtype=np.float32)

        def fit_and_code(rows: Any) -> None:
            fit_binarizers("itq", {"s1": rows}, 64)["s1"].codes(rows)

        fit_and_code(file["rows"][:1000])
        bytes_more = growth(lambda: fit_and_code(file["rows"]))
    return {"work": f"{FEATURES:,} x {WIDTH} floats turned into codes by ITQ", "held": FEATURES * WIDTH * 4,
            "peak": bytes_more}  # fmt: skip


def main() -> None:
    """Measure every case and write benchmarks/results/memory.*."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in (lists, codes, features, itq):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(case, (Path(folder),))
            rows.append({
                "work": found["work"], "result or archive MiB": f"{found['held'] / 2**20:.0f}",
                "memory grows by MiB": f"{found['peak'] / 2**20:.0f}", "times": f"{found['peak'] / found['held']:.2f}",
            })  # fmt: skip
    write_results("memory", rows)


if __name__ == "__main__":
    main()
