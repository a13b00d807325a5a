"""Two-stage search: candidates by the Hamming distance of codes are re-ranked by the cosine of the stored vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import compiled, kernel_array
from bigearthnet_cbir.search.archive_shards import ARCHIVE_BYTES
from bigearthnet_cbir.search.distances import check_features, cosine_distance
from bigearthnet_cbir.search.rows import PIECE_BYTES, Sliceable, all_rows, as_rows, batched_ranges
from bigearthnet_cbir.search.shards import lengths_of
from bigearthnet_cbir.types import DoubleArray, FloatArray, IntArray, Neighbours


@compiled
def _measure(queries: Any, query_lengths: Any, rows: Any, row_lengths: Any, slots: Any, distances: Any) -> None:
    """Write the cosine distance of every query to the rows in its slots."""
    for i in range(slots.shape[0]):
        for j in range(slots.shape[1]):
            row = slots[i, j]
            distances[i, j] = cosine_distance(queries[i], query_lengths[i], rows[row], row_lengths[row])


def rerank_by_cosine(queries: npt.NDArray[Any], candidates: IntArray, archive: Sliceable, k: int) -> Neighbours:
    """Return the k nearest of each query's candidates by cosine distance, ties by archive index.

    The distances are bitwise equal to those of `knn.search`. The list is therefore the result of an exact search in an
    archive of the candidates alone.

    Args:
        queries: (Q, D) float vectors.
        candidates: (Q, n) archive positions, n >= k, in any order.
        archive: (N, D) float vectors; only the rows of the candidates are used.
        k: number of neighbours.

    Raises:
        SearchError: the cosine of a vector is undefined: NaN, infinite, or a length outside the range of float32.
    """
    rows = as_rows(queries, "cosine", "queries")
    query_lengths = lengths_of(rows)
    check_features(rows, query_lengths, "cosine", "queries")
    ascending = np.sort(candidates, axis=1)
    positions, slots = np.unique(ascending, return_inverse=True)
    vectors = _rows_at(archive, positions)
    vector_lengths = lengths_of(vectors)
    check_features(vectors, vector_lengths, "cosine", "archive")
    distances = np.empty(ascending.shape, np.float32)
    _measure(
        kernel_array(rows, np.float64), kernel_array(query_lengths), kernel_array(vectors),
        kernel_array(vector_lengths), kernel_array(slots.reshape(ascending.shape), np.int64), distances,
    )  # fmt: skip
    nearest = distances.argsort(axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(ascending, nearest, 1), np.take_along_axis(distances, nearest, 1))


def iter_rerank(
    blocks: Iterable[tuple[int, Neighbours]], queries: Sliceable, archive: Sliceable, k: int
) -> Iterator[tuple[int, Neighbours]]:
    """Yield each block of candidates as its k nearest by cosine; arguments and errors as in `rerank_by_cosine`.

    Args:
        blocks: (first query, its block's candidates), of an exact search by Hamming distance.
        queries: (Q, D) vectors of all queries, read block by block.
        archive: (N, D) vectors; cached in memory up to 2 GiB, or else read for every block, skipping pieces without
            candidates.
        k: number of neighbours.
    """
    kept = all_rows(archive, 0, archive.shape[0], "cosine") if _fits(archive) else archive
    for start, found in blocks:
        yield start, rerank_by_cosine(queries[start : start + len(found.indices)], found.indices, kept, k)


def _fits(archive: Sliceable) -> bool:
    return 4 * archive.shape[0] * archive.shape[1] <= ARCHIVE_BYTES


def _rows_at(archive: Sliceable, positions: npt.NDArray[np.int32]) -> FloatArray:
    """Return rows of an archive at ascending positions. If it supports slices only, just the pieces needed are read."""
    if isinstance(archive, np.ndarray):
        return as_rows(archive[positions], "cosine", "archive")
    chosen = np.empty((len(positions), archive.shape[1]), np.float32)
    each = max(1, PIECE_BYTES // (4 * archive.shape[1]))
    for first, stop in batched_ranges(archive.shape[0], each):
        low, high = np.searchsorted(positions, (first, stop))
        if low < high:
            part = positions[low:high]
            piece = as_rows(archive[int(part[0]) : int(part[-1]) + 1], "cosine", "archive", int(part[0]))
            chosen[low:high] = piece[part - part[0]]
    return chosen


def recall_curve(found: IntArray, exact: IntArray) -> DoubleArray:
    """Return (k,) recall@i, averaged over queries: the share of the exact i nearest among the first i results.

    Args:
        found: (Q, k) archive positions of a re-ranked search.
        exact: (Q, k) those of the exact search by the same distance.
    """
    return recall_sums(found, exact) / max(len(found), 1)


def recall_sums(found: IntArray, exact: IntArray) -> DoubleArray:
    """Return (k,) sums over queries of recall@i; see `recall_curve`.

    Both lists are in the order of (distance, position). Therefore, if the exact i-th neighbour was found at all, it is
    among the first i.
    """
    offsets = np.arange(len(exact), dtype=np.int64)[:, None] << 32
    hits = np.isin(exact + offsets, found + offsets)
    ranks = np.arange(1, exact.shape[1] + 1)
    return np.asarray((hits.cumsum(axis=1) / ranks).sum(axis=0), np.float64)
