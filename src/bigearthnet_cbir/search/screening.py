"""Exact k nearest float features of an archive shard: screen with float32 blocks, then decide in double precision.

A matrix product gives a cheap value for every pair (minus the similarity, scaled and shifted: smaller is nearer)
together with a bound on its error. Whoever lies further behind the k-th value than the bound allows cannot be
among the k nearest; the few that remain are measured exactly (`distances.exact_distance`) and ranked by that.
So the screen changes how long a search takes and never what it returns. Error bound: Higham 2002, "Accuracy and
Stability of Numerical Algorithms", section 3.1, which holds for every order of the additions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.search.compiled import compiled, compiled_loosely, read_only, trailing_zeros
from bigearthnet_cbir.search.distances import (
    CHI2,
    COSINE,
    EUCLIDEAN,
    KINDS,
    chi_square_distance,
    cosine_distance,
    euclidean_distance,
)
from bigearthnet_cbir.search.lanes import MARKS, marks_within, prefetch
from bigearthnet_cbir.search.selection import (
    DIGITS,
    is_listed,
    keep_smallest,
    keep_up_to,
    kth_smallest,
    loose_limit,
    sort_candidates,
)
from bigearthnet_cbir.search.shards import FeatureShard, lengths_of
from bigearthnet_cbir.types import DoubleArray, FloatArray, IntArray, Neighbours

TILE = 1024
"""Archive rows of a block: with 256 queries, 1 MiB of screen values."""

AHEAD = 2
"""Rows asked for before they are measured."""

LEAST_ROOM = 320
"""Candidates stored beside a tile's own and 2k, before they are cut back."""

UNIT = 2.0**-24
"""Unit roundoff of float32."""

SLACK = 32
"""Roundings besides those of a product's D terms, generously: scale, shift, limit, and the result's own float32."""


class Candidates(NamedTuple):
    """What a tile of Q queries has gathered so far, each query in archive order.

    Attributes:
        kind: COSINE, EUCLIDEAN or CHI2.
        queries: (Q, D) float64.
        lengths: (Q,) float64.
        absolute: (Q,) float64 bound on a screen value's error.
        relative: the same, as a fraction of the value.
        values: (Q, R) float32 screen values.
        places: (Q, R) int32 archive positions.
        counts: (Q,) int64 candidates stored.
        limits: (Q,) float32; a pair with a greater screen value is out.
        exclude: (Q, E) int32 positions that are out, ascending.
    """

    kind: int
    queries: DoubleArray
    lengths: DoubleArray
    absolute: DoubleArray
    relative: float
    values: FloatArray
    places: IntArray
    counts: npt.NDArray[np.int64]
    limits: FloatArray
    exclude: IntArray


@compiled_loosely
def _chi_square_screen(queries: Any, rows: Any, screen: Any) -> None:
    """Write sum (u - v)^2 / (u + v + 1e-10) in float32 for every query and row."""
    tiny = np.float32(1e-10)
    for i in range(queries.shape[0]):
        u = queries[i]
        for j in range(rows.shape[0]):
            v = rows[j]
            total = np.float32(0.0)
            for d in range(u.size):
                difference = u[d] - v[d]
                total += difference * difference / (u[d] + v[d] + tiny)
            screen[i, j] = total


@compiled
def _gather(
    screen: Any, scale: Any, shift: Any, base: int, limit: Any, listed: Any, mine: Any, where: Any, stored: int
) -> int:
    """Append one query's pairs of a block that are within its limit; return how many candidates it has now."""
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
    """Drop one query's candidates that lie further behind the k-th than the error bound allows."""
    stored = found.counts[i]
    if stored < k:
        return
    values = found.values[i, :stored]
    value = np.float64(kth_smallest(values, k, tally)) if exactly else loose_limit(values, k, tally)
    limit = np.float32(value + 2.0 * (found.absolute[i] + found.relative * abs(value)))
    found.limits[i] = limit
    found.counts[i] = keep_up_to(found.values[i], found.places[i], stored, limit)


@compiled
def _measure(found: Any, i: int, shard: Any) -> None:
    """Replace one query's screen values by exact distances."""
    count = found.counts[i]
    values, places, rows, query = found.values[i], found.places[i], shard.rows, found.queries[i]
    for c in range(min(AHEAD, count)):
        prefetch(rows[places[c] - shard.offset])
    for c in range(count):
        prefetch(rows[places[min(c + AHEAD, count - 1)] - shard.offset])
        row = places[c] - shard.offset
        if found.kind == COSINE:
            values[c] = cosine_distance(query, found.lengths[i], rows[row], shard.lengths[row])
        elif found.kind == EUCLIDEAN:
            values[c] = euclidean_distance(query, rows[row])
        else:
            values[c] = chi_square_distance(query, rows[row])


@compiled
def _as_screen(found: Any, i: int) -> None:
    """Turn one query's exact distances back into screen values: they differ by less than the bound."""
    for c in range(found.counts[i]):
        distance = np.float64(found.values[i, c])
        if found.kind == COSINE:
            value = distance - 1.0
        elif found.kind == CHI2:
            value = 2.0 * distance
        else:
            value = (distance * distance - found.lengths[i] ** 2) / 2.0
        found.values[i, c] = value


@compiled
def _collect(screen: Any, first: int, k: int, shard: Any, found: Any, tally: Any) -> None:
    """Take in one block of screen values for all queries of the tile."""
    size = screen.shape[1]
    scale, shift = shard.scale[first : first + size], shard.shift[first : first + size]
    room = found.values.shape[1]
    for i in range(screen.shape[0]):
        found.counts[i] = _gather(
            screen[i], scale, shift, shard.offset + first, found.limits[i], found.exclude[i],
            found.values[i], found.places[i], found.counts[i],
        )
        if found.counts[i] + TILE > room:
            _cut(found, i, k, tally, False)
        if found.counts[i] + TILE > room:
            _cut(found, i, k, tally, True)
        # Where the bound cannot tell candidates apart (a collapsed embedding, say), decide among them now.
        if found.counts[i] + TILE > room:
            _measure(found, i, shard)
            found.counts[i] = keep_smallest(found.values[i], found.places[i], found.counts[i], k, tally)
            _as_screen(found, i)
            _cut(found, i, k, tally, True)


@compiled
def _finish(k: int, shard: Any, found: Any, tally: Any, indices: Any, distances: Any) -> None:
    """Rank what remains and write it; -1 and infinity where the shard has fewer than k."""
    room = found.values.shape[1]
    spare, spare_places = np.empty(room, np.uint32), np.empty(room, np.int32)
    for i in range(indices.shape[0]):
        _cut(found, i, k, tally, False)
        _measure(found, i, shard)
        sort_candidates(found.values[i], found.places[i], found.counts[i], spare, spare_places, tally)
        size = min(found.counts[i], k)
        indices[i, :size] = found.places[i, :size]
        distances[i, :size] = found.values[i, :size]
        indices[i, size:] = -1
        distances[i, size:] = np.inf


def _start(
    queries: FloatArray, shard: FeatureShard, distance: str, k: int, exclude: IntArray
) -> Candidates:
    """Return the empty candidate lists of a tile, with the error bounds of its screen values."""
    count, width = queries.shape
    lengths = lengths_of(queries)
    smallest = width * 2.0**-120  # what float32 may flush to zero
    absolute, relative = np.full(count, smallest), 0.0
    if distance == "cosine":
        absolute += (width + SLACK) * UNIT
    elif distance == "euclidean":
        reach = lengths + shard.longest
        absolute += UNIT * ((width + SLACK) * reach * shard.longest + SLACK * reach**2)
    else:
        relative = (width + SLACK) * UNIT
    room = 2 * k + TILE + LEAST_ROOM
    return Candidates(
        KINDS[distance], queries.astype(np.float64), lengths, absolute, relative,
        np.empty((count, room), np.float32), np.empty((count, room), np.int32),
        np.zeros(count, np.int64), np.full(count, np.inf, np.float32), read_only(exclude),
    )


def _unit_rows(queries: FloatArray, lengths: DoubleArray) -> FloatArray:
    """Return the queries at length 1, zero vectors as they are."""
    divisors = np.where(lengths > 0, lengths, 1.0)
    return (queries / divisors[:, None]).astype(np.float32)


def nearest_features(queries: FloatArray, shard: FeatureShard, distance: str, k: int, exclude: IntArray) -> Neighbours:
    """Return the k nearest rows of a shard; -1 and infinity where the shard has fewer.

    BLAS is called once a block; hold it to one thread (`knn` does) and run several tiles side by side instead.

    Args:
        queries: (Q, D) float32, checked.
        shard: from `shards.make_shard`, for the same distance.
        distance: cosine, euclidean or chi2.
        k: how many to return.
        exclude: (Q, E) int32 archive positions to leave out, each row ascending.
    """
    found = _start(queries, shard, distance, k, exclude)
    screened = _unit_rows(queries, found.lengths) if distance == "cosine" else read_only(queries)
    tally = np.empty(DIGITS, np.int32)
    memory = np.empty(len(queries) * TILE, np.float32)
    for first in range(0, len(shard.rows), TILE):
        rows = shard.rows[first : first + TILE]
        screen = memory[: len(queries) * len(rows)].reshape(len(queries), len(rows))
        if distance == "chi2":
            _chi_square_screen(screened, rows, screen)
        else:
            np.matmul(screened, rows.T, out=screen)
        _collect(screen, first, k, shard, found, tally)
    indices, distances = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
    _finish(k, shard, found, tally, indices, distances)
    return Neighbours(indices, distances)
