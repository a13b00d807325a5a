"""Candidates of a tile of queries: collected from screen values, reduced by the error bound, ranked exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import compiled, trailing_zeros
from bigearthnet_cbir.search.distances import (
    CHI2,
    COSINE,
    EUCLIDEAN,
    chi_square_distance,
    cosine_distance,
    euclidean_distance,
)
from bigearthnet_cbir.search.kernels.simd_sums import MARKS, marks_within, prefetch
from bigearthnet_cbir.search.kernels.topk import (
    compact_leq,
    is_listed,
    keep_smallest,
    kth_smallest,
    kth_upper_bound,
    sort_candidates,
)
from bigearthnet_cbir.types import DoubleArray, FloatArray, IntArray

TILE = 1024
"""Archive rows per block; with 256 queries, 1 MiB of screen values."""

AHEAD = 4
"""Number of rows to prefetch before their distances are computed."""

LEAST_ROOM = 320
"""Candidates stored in addition to a tile and 2k, before they are reduced."""


class Candidates(NamedTuple):
    """Candidates of a tile of Q queries, each query in archive order.

    Attributes:
        kind: COSINE, EUCLIDEAN or CHI2.
        queries: (Q, D) float64.
        lengths: (Q,) float64.
        centres: (Q,) float64 part of the cosine that is equal for all rows and not in the screen values.
        absolute: (Q,) float64 absolute error bound of the screen values.
        relative: relative error bound of the screen values.
        values: (Q, R) float32 screen values.
        indices: (Q, R) int32 archive indices.
        counts: (Q,) int64 numbers of stored candidates.
        limits: (Q,) float32; pairs with larger screen values are excluded.
        exclude: (Q, E) int32 excluded positions, ascending.
    """

    kind: int
    queries: DoubleArray
    lengths: DoubleArray
    centres: DoubleArray
    absolute: DoubleArray
    relative: float
    values: FloatArray
    indices: IntArray
    counts: npt.NDArray[np.int64]
    limits: FloatArray
    exclude: IntArray


@compiled
def _gather(
    screen: Any, scale: Any, shift: Any, base: int, limit: Any, listed: Any, mine: Any, where: Any, stored: int
) -> int:
    """Append one query's pairs of a block within its limit; return its number of candidates."""
    whole = screen.size - screen.size % MARKS
    for first in range(0, whole, MARKS):
        left = marks_within(screen, scale, shift, first, limit)
        while left:
            j = first + np.int64(trailing_zeros(left))
            left &= left - np.uint64(1)
            if listed.size and is_listed(listed, base + j):
                continue
            mine[stored] = shift[j] - screen[j] * scale[j]
            where[stored] = base + j
            stored += 1
    for j in range(whole, screen.size):
        value = shift[j] - screen[j] * scale[j]
        if value <= limit and not (listed.size and is_listed(listed, base + j)):
            mine[stored] = value
            where[stored] = base + j
            stored += 1
    return stored


@compiled
def _cut(found: Any, i: int, k: int, tally: Any, exactly: bool) -> None:
    """Drop the candidates of a query whose value exceeds the k-th by more than the error bound."""
    stored = found.counts[i]
    if stored < k:
        return
    values = found.values[i, :stored]
    value = np.float64(kth_smallest(values, k, tally)) if exactly else kth_upper_bound(values, k, tally)
    limit = np.float32(value + 2.0 * (found.absolute[i] + found.relative * abs(value)))
    found.limits[i] = limit
    found.counts[i] = compact_leq(found.values[i], found.indices[i], stored, limit)


@compiled
def _measure(found: Any, i: int, shard: Any) -> None:
    """Replace one query's screen values by exact distances."""
    count = found.counts[i]
    values, indices, rows, query = found.values[i], found.indices[i], shard.rows, found.queries[i]
    for c in range(min(AHEAD, count)):
        prefetch(rows[indices[c] - shard.offset])
    for c in range(count):
        prefetch(rows[indices[min(c + AHEAD, count - 1)] - shard.offset])
        row = indices[c] - shard.offset
        if found.kind == COSINE:
            values[c] = cosine_distance(query, found.lengths[i], rows[row], shard.lengths[row])
        elif found.kind == EUCLIDEAN:
            values[c] = euclidean_distance(query, rows[row])
        else:
            values[c] = chi_square_distance(query, rows[row])


@compiled
def _as_screen(found: Any, i: int) -> None:
    """Convert the exact distances of a query back to screen values, which differ by less than the bound."""
    for c in range(found.counts[i]):
        distance = np.float64(found.values[i, c])
        if found.kind == COSINE:
            value = distance - 1.0 + found.centres[i]
        elif found.kind == CHI2:
            value = 2.0 * distance
        else:
            value = (distance * distance - found.lengths[i] ** 2) / 2.0
        found.values[i, c] = value


@compiled
def collect(screen: Any, scales: Any, first: int, k: int, shard: Any, found: Any, tally: Any) -> None:
    """Add one block of screen values for all queries of the tile.

    Args:
        screen: (>= Q, S) float32 products of the queries with the rows from `first`; values beyond the tile's
            queries and rows are not read.
        scales: (N,) float32 factors from products to similarities.
        first: first row of the block.
        k: number of neighbours.
        shard: the whole shard.
        found: the tile's candidates so far.
        tally: (DIGITS,) int32 scratch.
    """
    size = min(TILE, screen.shape[1], shard.shift.size - first)
    scale, shift = scales[first : first + size], shard.shift[first : first + size]
    room = found.values.shape[1]
    for i in range(found.counts.size):
        found.counts[i] = _gather(
            screen[i, :size],
            scale,
            shift,
            shard.offset + first,
            found.limits[i],
            found.exclude[i],
            found.values[i],
            found.indices[i],
            found.counts[i],
        )
        if found.counts[i] + TILE > room:
            _cut(found, i, k, tally, False)
        if found.counts[i] + TILE > room:
            _cut(found, i, k, tally, True)
        # If the bound cannot separate the candidates (as in a collapsed embedding), compute exact distances now.
        if found.counts[i] + TILE > room:
            _measure(found, i, shard)
            found.counts[i] = keep_smallest(found.values[i], found.indices[i], found.counts[i], k, tally)
            _as_screen(found, i)
            _cut(found, i, k, tally, True)


@compiled
def finish(k: int, shard: Any, found: Any, tally: Any, indices: Any, distances: Any) -> None:
    """Rank the remaining candidates and write the result, padded with -1 and infinity."""
    room = found.values.shape[1]
    spare, spare_indices = np.empty(room, np.uint32), np.empty(room, np.int32)
    for i in range(indices.shape[0]):
        _cut(found, i, k, tally, False)
        _measure(found, i, shard)
        sort_candidates(found.values[i], found.indices[i], found.counts[i], spare, spare_indices, tally)
        size = min(found.counts[i], k)
        indices[i, :size] = found.indices[i, :size]
        distances[i, :size] = found.values[i, :size]
        indices[i, size:] = -1
        distances[i, size:] = np.inf
