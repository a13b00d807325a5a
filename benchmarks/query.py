"""One query at a time: ours against faiss, same data, same cores, same run, with and without filters.

    python benchmarks/query.py [--size 590000]

The index is made of names and tiles of the demo world and of random vectors: 256 numbers fused, 128 a sensor. faiss
has IndexFlatIP and IndexBinaryFlat, and for filters an IDSelectorBitmap. Calls take turns, so that a busy machine
hurts both alike; of each the median and the best are shown. Ours includes the filter and the list of results that it
leaves, `find` as the command and the server call it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import faiss
import numpy as np
from hardware import write_results

from bigearthnet_cbir.data.catalogue import build_catalogue
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.positions import positions_of
from bigearthnet_cbir.data.synthetic import acquisition_of
from bigearthnet_cbir.query.filters import Filters
from bigearthnet_cbir.query.find import find, query_vector
from bigearthnet_cbir.query.index import Index, open_index
from bigearthnet_cbir.query.index_writing import IndexWriter
from bigearthnet_cbir.search.binarizers import fit_binarizers
from bigearthnet_cbir.storage.features import DATASETS

SENSOR_WIDTH: Final = 128
K: Final = 100
PAUSE: Final = 0.02
"""Seconds before a call, in which the threads of the call before stop spinning."""

SHARES: Final = (0.01, 0.1, 0.5)
"""Of the pairs that have the class of a filter."""


def make_index(folder: Path, size: int) -> Index:
    """Write an index of `size` pairs; class c is on a share SHARES[c] of them."""
    rng = np.random.default_rng(0)
    pairs = [acquisition_of(number).names for number in range(size)]
    writer = IndexWriter(folder / "index", "benchmark", size)
    for first in range(0, size, 1 << 14):
        rows = min(1 << 14, size - first)
        one, two = (rng.standard_normal((rows, SENSOR_WIDTH), dtype=np.float32) for _ in range(2))
        labels = np.zeros((rows, len(CLASSES)), np.uint8)
        labels[:, : len(SHARES)] = rng.random((rows, len(SHARES))) < SHARES
        writer.append({"s1": one, "s2": two, "fused": np.concatenate([one, two], axis=1)}, labels)
    catalogue = build_catalogue(pairs, positions_of(pairs), {}, ["train"] * size)
    details = {"distance": "cosine", "fusion": "concat", "feature": "projection", "checkpoint": "none"}
    codes = {side: fit_binarizers("median", {side: writer.vectors()[name]})[side] for side, name in DATASETS.items()}
    writer.finish(catalogue, CLASSES, details, codes)
    return open_index(folder)


def alternate(calls: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, list[float]]:
    """Return the milliseconds of every call; the first turn (compilation, page cache) is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            call(turn)
            if turn:
                taken[name].append(1000 * (time.perf_counter() - start))
    return taken


def line(work: str, share: str, taken: dict[str, list[float]]) -> dict[str, Any]:
    """Return one row of the table."""
    shown: dict[str, Any] = {"search": work, "filter keeps": share}
    for name, times in taken.items():
        shown[f"{name} p50 ms"], shown[f"{name} best ms"] = f"{np.median(times):.2f}", f"{min(times):.2f}"
    shown["x faiss (p50)"] = f"{np.median(taken['faiss']) / np.median(taken['ours']):.2f}"
    shown["x faiss (best)"] = f"{min(taken['faiss']) / min(taken['ours']):.2f}"
    return shown


def measure(index: Index, distance: str, share: float | None, repeats: int) -> dict[str, Any]:
    """Time one distance, with a filter that keeps a share of the pairs, or without."""
    filters = Filters() if share is None else Filters(labels=(CLASSES[SHARES.index(share)],))
    asked = np.random.default_rng(1).integers(len(index), size=repeats + 1).tolist()
    side = faiss_index(index, distance)
    selected = None if share is None else np.packbits(filters.mask(index), bitorder="little")

    def ours(turn: int) -> Any:
        vector = query_vector(index, asked[turn], "fused", "fused")
        return find(index, vector, distance=distance, k=K, filters=filters, asked=asked[turn])

    def theirs(turn: int) -> Any:
        rows = index.codes("fused") if distance == "hamming" else index.vectors("fused")
        query = np.array(rows[asked[turn]])[None]
        if selected is None:
            return side.search(query, K)
        chosen = faiss.IDSelectorBitmap(len(index), faiss.swig_ptr(selected))
        return side.search(query, K, params=faiss.SearchParameters(sel=chosen))

    return line(
        distance, "all" if share is None else f"{share:.0%}", alternate({"ours": ours, "faiss": theirs}, repeats)
    )


def faiss_index(index: Index, distance: str) -> Any:
    """Return the index that faiss has for a distance, filled."""
    if distance == "hamming":
        codes = faiss.IndexBinaryFlat(8 * index.codes("fused").shape[1])
        codes.add(np.array(index.codes("fused")))
        return codes
    rows = np.array(index.vectors("fused"))
    faiss.normalize_L2(rows)
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    return flat


def main() -> None:
    """Measure every cell and write benchmarks/results/query.*."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=590_000, help="pairs (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=31, help="calls that are timed (default %(default)s)")
    given = parser.parse_args()
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    folder = Path(tempfile.mkdtemp())
    try:
        index = make_index(folder, given.size)
        rows = [measure(index, "hamming", None, given.repeats)]
        cold = measure(index, "cosine", None, given.repeats)
        rows.append({**cold, "search": "cosine, not prepared"})
        start = time.perf_counter()
        index.prepare("fused")
        print(f"prepared in {time.perf_counter() - start:.1f} s", file=sys.stderr)
        rows.append(measure(index, "cosine", None, given.repeats))
        rows += [measure(index, "cosine", share, given.repeats) for share in SHARES]
        load = os.getloadavg()[0]
        rows = [{**row, "load of the machine": f"{load:.1f}"} for row in rows]
        write_results("query", rows)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
