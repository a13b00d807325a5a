"""Exact search of a single query, without preparation of the archive. Only the rows that may be found are read.

`search` prepares the archive for many queries, which costs more than a single query. Here the exact distance of every
row is computed directly. The result is identical to that of `search`, including the order of ties.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import available_cores, compiled, kernel_array
from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.distances import (
    COSINE,
    EUCLIDEAN,
    KINDS,
    check_distance,
    check_features,
    chi_square_distance,
    cosine_distance,
    euclidean_distance,
    row_lengths,
)
from bigearthnet_cbir.search.float_search import nearest_features
from bigearthnet_cbir.search.kernels.hamming import scan_codes
from bigearthnet_cbir.search.kernels.merge import merge
from bigearthnet_cbir.search.partition import SearchRequest
from bigearthnet_cbir.search.planes import as_words
from bigearthnet_cbir.search.rows import as_rows
from bigearthnet_cbir.search.shards import ALIGNED, PreparedArchive, cut_shard, lengths_of
from bigearthnet_cbir.types import DoubleArray, FloatArray, IntArray, Neighbours

LEAST_ROWS: Final = 4096
"""Minimum number of rows for a separate thread."""

FEW_QUERIES: Final = 3
"""Maximum number of queries searched without bit planes, which take about as long for four queries as for one."""


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the thread pool of this process. A forked child does not inherit the threads of its parent."""
    return ThreadPoolExecutor(threads)


def in_threads(
    size: int, task: Callable[[int, int], Any], threads: int | None = None, least: int = LEAST_ROWS
) -> list[Any]:
    """Return the results of a task on consecutive ranges (first, stop) of 0 ... size - 1, one range per thread.

    The calling thread computes the first range, so a small task starts no other thread.
    """
    wanted = max(1, min(threads or available_cores(), size // least))
    bounds = [size * number // wanted for number in range(wanted + 1)]
    pool = _pool(os.getpid(), available_cores())
    rest = [pool.submit(task, first, stop) for first, stop in pairwise(bounds[1:])]
    return [task(bounds[0], bounds[1]), *(future.result() for future in rest)]


@compiled
def _measure_rows(
    kind: int, query: Any, length: float, rows: Any, lengths: Any, positions: Any, first: int, stop: int, out: Any
) -> None:
    """Write the exact distances of the rows at positions first ... stop - 1; NaN if chi2 is undefined.

    `lengths` are those of all rows, or (0,) to compute them for cosine.
    """
    own = np.empty(1, np.float64)
    for place in range(first, stop):
        position = positions[place]
        row = rows[position]
        if kind == COSINE:
            if lengths.size:
                own[0] = lengths[position]
            else:
                row_lengths(rows[position : position + 1], own)
            out[place] = cosine_distance(query, length, row, own[0])
        elif kind == EUCLIDEAN:
            out[place] = euclidean_distance(query, row)
        elif row.min() < 0:
            out[place] = np.nan
        else:
            out[place] = chi_square_distance(query, row)


def nearest_rows(
    query: FloatArray, rows: FloatArray, positions: IntArray, k: int, distance: str, lengths: DoubleArray | None = None
) -> Neighbours:
    """Return the k nearest of the given rows to one float query, as (1, k), nearest first, ties by position.

    Args:
        query: (D,) float32.
        rows: (N, D) float32 archive, all finite; may be memory-mapped.
        positions: (M,) int32 ascending rows that may be found, M >= k.
        k: number of neighbours.
        distance: cosine, euclidean or chi2.
        lengths: (N,) Euclidean lengths of all rows if known, which halves the work for cosine.

    Raises:
        SearchError: the distance is undefined for the query or a row, or k is not in 1 ... M.
    """
    check_distance(distance)
    if distance not in KINDS:
        raise SearchError(f"distance is {distance}; rows of floats have {', '.join(KINDS)}")
    if not 1 <= k <= len(positions):
        raise SearchError(f"k is {k:,}, but {len(positions):,} rows may be found; choose k from 1 to that")
    asks, length = _checked(query, distance)
    plain, chosen = kernel_array(rows), kernel_array(positions, np.int32)
    known = kernel_array(np.empty(0) if lengths is None else lengths)
    doubled, found = asks[0].astype(np.float64), np.empty(len(chosen), np.float32)

    def measure(first: int, stop: int) -> None:
        _measure_rows(KINDS[distance], doubled, length, plain, known, chosen, first, stop, found)

    in_threads(len(chosen), measure)
    if distance == "chi2" and np.isnan(found).any():
        raise SearchError("archive: chi2 is defined for non-negative features only; use cosine, euclidean or hamming")
    best = _smallest(found, k)
    return Neighbours(chosen[best][None], found[best][None])


def _checked(query: FloatArray, distance: str) -> tuple[FloatArray, float]:
    """Return one query as (1, D) and its length; raise SearchError if its distance is undefined."""
    asks = as_rows(query[None], distance, "queries")
    lengths = lengths_of(asks)
    check_features(asks, lengths, distance, "queries")
    return asks, float(lengths[0])


def nearest_prepared(query: FloatArray, archive: PreparedArchive, k: int, exclude: IntArray) -> Neighbours:
    """Return the k nearest rows of an archive prepared for cosine, on a processor with integer dot products.

    Args:
        query: (D,) float32.
        archive: prepared for cosine, N rows.
        k: number of neighbours.
        exclude: (E,) int32 ascending positions that may not be found; at least k others must remain.

    Returns:
        Neighbours of (1, k) arrays, nearest first, ties by position.

    Raises:
        SearchError: the distance is undefined for the query.
    """
    asks, _ = _checked(query, "cosine")
    shard: Any = archive.shard
    groups = -(-archive.shape[0] // ALIGNED)

    def scan(first: int, stop: int) -> Neighbours:
        piece: Any = cut_shard(shard, first * ALIGNED, min(stop * ALIGNED, archive.shape[0]))
        return nearest_features(asks, piece, "cosine", k, exclude[None])

    parts = in_threads(groups, scan, least=LEAST_ROWS // ALIGNED)
    return parts[0] if len(parts) == 1 else merge(parts)


def _smallest(values: FloatArray, k: int) -> npt.NDArray[np.intp]:
    """Return the positions of the k smallest values, smallest first, ties by position."""
    if k < len(values):
        limit = np.partition(values, k - 1)[k - 1]
        near = np.flatnonzero(values <= limit)
    else:
        near = np.arange(len(values))
    return np.asarray(near[np.argsort(values[near], kind="stable")[:k]])


def nearest_code(
    query: npt.NDArray[np.uint8],
    codes: npt.NDArray[np.uint8],
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
    *,
    threads: int | None = None,
) -> Neighbours:
    """Return the k nearest packed codes to one query by Hamming distance.

    Args:
        query: (B,) uint8.
        codes: (N, B) uint8; may be memory-mapped. Not copied if B is a multiple of 8.
        k: number of neighbours.
        allowed: (N,) mask of the codes that may be found, at least k; None for all.
        threads: number of threads; None for one per core.

    Returns:
        Neighbours of (1, k) arrays, nearest first, ties by position.
    """
    words, asks = as_words(codes), as_words(query[None])[0]
    mask = kernel_array(np.empty(0, np.bool_) if allowed is None else allowed)

    def scan(first: int, stop: int) -> Neighbours:
        found = Neighbours(np.empty((1, k), np.int32), np.empty((1, k), np.float32))
        scan_codes(asks, words, mask, first, stop, found)
        return found

    parts = in_threads(len(words), scan, threads)
    return parts[0] if len(parts) == 1 else merge(parts)


def plain_codes(job: SearchRequest) -> npt.NDArray[np.uint8] | None:
    """Return the codes of a search that is fastest query by query, or None for searches of another kind."""
    if job.distance != "hamming" or not 1 <= job.queries.shape[0] <= FEW_QUERIES:
        return None
    given = job.archive.given if isinstance(job.archive, PreparedArchive) else job.archive
    return as_rows(given, "hamming", "archive") if isinstance(given, np.ndarray) else None
