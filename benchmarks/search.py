"""Exact search: ours against faiss, usearch and the original chi-square, same data, same threads, same run.

    python benchmarks/search.py [--quick]

Every time is the best of several, ours and theirs in turn, so that a busy machine hurts both alike. Archives are
prepared outside the time, on either side: faiss's index.add, our PreparedArchive; `prepare s` is what ours takes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import faiss
import numpy as np
from hardware import write_results
from sklearn.metrics import pairwise_distances
from usearch.index import MetricKind
from usearch.index import search as usearch_exact

from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.shards import PreparedArchive

WIDTH = 256
BITS = 256
ARCHIVES = (7_761, 100_000, 590_000)
RANKS = (1000, 100)
QUERIES = {7_761: 2048, 100_000: 1024, 590_000: 512}
THREADS = len(os.sched_getaffinity(0))


def best_times(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the least seconds of each call over several turns; the first turn (compilation) is not counted."""
    least = dict.fromkeys(calls, float("inf"))
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                least[name] = min(least[name], time.perf_counter() - start)
    return least


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what the second call returns, and its seconds."""
    call()
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def row(work: str, size: int, queries: int, k: int, times: dict[str, float], prepare: float = 0.0) -> dict[str, Any]:
    """Return one line of the table: seconds and how many times faster ours is."""
    shown = {
        "work": work, "archive": f"{size:,}", "queries": f"{queries:,}", "k": k,
        "prepare s": f"{prepare:.3f}", "ours s": f"{times['ours']:.3f}",
        "ours pairs/s": f"{queries * size / times['ours']:.3g}",
    }  # fmt: skip
    for name in ("faiss", "usearch", "scikit-learn"):
        shown[f"{name} s"] = f"{times[name]:.3f}" if name in times else "-"
        shown[f"x {name}"] = f"{times[name] / times['ours']:.2f}" if name in times else "-"
    return shown


def hamming(size: int, k: int, repeats: int) -> dict[str, Any]:
    """Packed 256-bit codes."""
    generator = np.random.default_rng(0)
    archive = generator.integers(0, 256, (size, BITS // 8), dtype=np.uint8)
    queries = generator.integers(0, 256, (QUERIES[size], BITS // 8), dtype=np.uint8)
    prepared, seconds = timed(lambda: PreparedArchive(archive, "hamming"))
    index = faiss.IndexBinaryFlat(BITS)
    index.add(archive)
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: search(queries, prepared, k, "hamming", threads=THREADS),
        "faiss": lambda: index.search(queries, k),
    }
    if size == ARCHIVES[0]:
        calls["usearch"] = lambda: usearch_exact(
            archive, queries, k, MetricKind.Hamming, exact=True, threads=THREADS, dtype="b1"
        )
    return row("Hamming", size, len(queries), k, best_times(calls, repeats), seconds)


def cosine(size: int, k: int, repeats: int) -> dict[str, Any]:
    """Unit vectors of 256 floats; faiss searches them by inner product, which orders them alike."""
    generator = np.random.default_rng(0)
    archive = generator.standard_normal((size, WIDTH), dtype=np.float32)
    queries = generator.standard_normal((QUERIES[size], WIDTH), dtype=np.float32)
    faiss.normalize_L2(archive)
    faiss.normalize_L2(queries)
    prepared, seconds = timed(lambda: PreparedArchive(archive, "cosine"))
    index = faiss.IndexFlatIP(WIDTH)
    index.add(archive)
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: search(queries, prepared, k, "cosine", threads=THREADS),
        "faiss": lambda: index.search(queries, k),
    }
    if size == ARCHIVES[0]:
        calls["usearch"] = lambda: usearch_exact(archive, queries, k, MetricKind.Cos, exact=True, threads=THREADS)
    return row("cosine", size, len(queries), k, best_times(calls, repeats), seconds)


def chi_square(repeats: int) -> dict[str, Any]:
    """Against scikit-learn's pairwise_distances with the original scripts' lambda, one core each."""
    generator = np.random.default_rng(0)
    archive = generator.random((ARCHIVES[0], WIDTH), dtype=np.float32)
    queries = generator.random((16, WIDTH), dtype=np.float32)

    def original(u: Any, v: Any) -> Any:
        return 0.5 * np.sum((u - v) ** 2 / (u + v + 1e-10))

    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: search(queries, archive, 100, "chi2", threads=1),
        "scikit-learn": lambda: pairwise_distances(queries, archive, metric=original, n_jobs=1),
    }
    return row("chi-square, 1 core", len(archive), len(queries), 100, best_times(calls, repeats))


def main() -> None:
    """Measure every cell and write benchmarks/results/search.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest archive only")
    quick = parser.parse_args().quick
    faiss.omp_set_num_threads(THREADS)
    sizes = ARCHIVES[:1] if quick else ARCHIVES
    rows = []
    for size in sizes:
        for k in RANKS:
            rows += [hamming(size, k, 5), cosine(size, k, 5)]
            print(rows[-2], rows[-1], sep="\n", file=sys.stderr)
    rows.append(chi_square(5))
    write_results("search_quick" if quick else "search", rows)


if __name__ == "__main__":
    main()
