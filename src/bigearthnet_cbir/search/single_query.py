"""One query, straight over the archive: nothing is prepared, and only the rows that are asked for are read.

`search` lays the archive out for many queries, which costs more than one query does. Here every row gets its exact
distance at once, so that the result is that of `search`, to the last index.
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
"""Rows that are worth a thread of their own."""

FEW_QUERIES: Final = 3
"""Queries, at most, for which codes are read as they are; bit planes take about as long for four as for one."""


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the threads of this process; a forked child has none of its parent's."""
    return ThreadPoolExecutor(threads)


def in_threads(
    size: int, task: Callable[[int, int], Any], threads: int | None = None, least: int = LEAST_ROWS
) -> list[Any]:
    """Return the results of a task on consecutive ranges (first, stop) of 0 ... size - 1, one a thread.

    The caller's own thread takes the first range, so that a small task wakes no other.
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
    """Write the exact distances of the rows at positions first ... stop - 1; NaN where chi2 is not defined.

    `lengths` are those of all rows, or (0,) for the cosine to measure them.
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
    """Return the k nearest of chosen rows to one float query, as (1, k), nearest first, ties by position.

    Args:
        query: (D,) float32.
        rows: (N, D) float32 archive, all finite; may be memory-mapped.
        positions: (M,) int32 ascending rows that may be found, M >= k.
        k: how many to return.
        distance: cosine, euclidean or chi2.
        lengths: (N,) Euclidean lengths of all rows where they are known, which saves the cosine half its work.

    Raises:
        SearchError: the query or a row has no such distance, or k is not in 1 ... M.
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
    """Return one query as (1, D) and its length; raise SearchError where it has no defined distance."""
    asks = as_rows(query[None], distance, "queries")
    lengths = lengths_of(asks)
    check_features(asks, lengths, distance, "queries")
    return asks, float(lengths[0])


def nearest_prepared(query: FloatArray, archive: PreparedArchive, k: int, exclude: IntArray) -> Neighbours:
    """Return the k nearest rows of an archive that was prepared for the cosine, on a processor with integer products.

    Args:
        query: (D,) float32.
        archive: prepared for the cosine, N rows.
        k: how many to return.
        exclude: (E,) int32 ascending positions that may not be found; k or more are left.

    Returns:
        Neighbours of (1, k) arrays, nearest first, ties by position.

    Raises:
        SearchError: the query has no defined distance.
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
    """Return the places of the k smallest values, smallest first, ties by place."""
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
        codes: (N, B) uint8; may be memory-mapped. Without a copy where B is a multiple of 8.
        k: how many to return.
        allowed: (N,) which of them may be found, k or more; None for all.
        threads: threads to use; None for one a core.

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
    """Return the codes of a search that is best done query by query, or None where it is not one of few codes."""
    if job.distance != "hamming" or not 1 <= job.queries.shape[0] <= FEW_QUERIES:
        return None
    given = job.archive.given if isinstance(job.archive, PreparedArchive) else job.archive
    return as_rows(given, "hamming", "archive") if isinstance(given, np.ndarray) else None
