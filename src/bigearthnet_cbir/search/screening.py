"""Exact k nearest float features of an archive shard: screen with float32 blocks, then decide in double precision.

A matrix product gives a cheap value for every pair (minus the similarity, scaled and shifted: smaller is nearer)
together with a bound on its error. Whoever lies further behind the k-th value than the bound allows cannot be
among the k nearest; the few that remain are measured exactly (`distances.exact_distance`) and ranked by that.
So the screen changes how long a search takes and never what it returns. Error bound: Higham 2002, "Accuracy and
Stability of Numerical Algorithms", section 3.1, which holds for every order of the additions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bigearthnet_cbir.search.candidates import LEAST_ROOM, TILE, Candidates, collect, finish
from bigearthnet_cbir.search.compiled import compiled_loosely, read_only
from bigearthnet_cbir.search.distances import KINDS
from bigearthnet_cbir.search.selection import DIGITS
from bigearthnet_cbir.search.shards import FeatureShard, lengths_of
from bigearthnet_cbir.types import DoubleArray, FloatArray, IntArray, Neighbours

UNIT = 2.0**-24
"""Unit roundoff of float32."""

SLACK = 32
"""Roundings besides those of a product's D terms, generously: scale, shift, limit, and the result's own float32."""


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


def start_tile(
    queries: FloatArray, shard: FeatureShard, distance: str, k: int, exclude: IntArray
) -> Candidates:
    """Return the empty candidate lists of a tile of queries, with the error bounds of its screen values."""
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


def unit_rows(queries: FloatArray, lengths: DoubleArray) -> FloatArray:
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
    found = start_tile(queries, shard, distance, k, exclude)
    screened = unit_rows(queries, found.lengths) if distance == "cosine" else read_only(queries)
    tally = np.empty(DIGITS, np.int32)
    memory = np.empty(len(queries) * TILE, np.float32)
    for first in range(0, len(shard.rows), TILE):
        rows = shard.rows[first : first + TILE]
        screen = memory[: len(queries) * len(rows)].reshape(len(queries), len(rows))
        if distance == "chi2":
            _chi_square_screen(screened, rows, screen)
        else:
            np.matmul(screened, rows.T, out=screen)
        collect(screen, first, k, shard, found, tally)
    indices, distances = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
    finish(k, shard, found, tally, indices, distances)
    return Neighbours(indices, distances)
