"""Exact k nearest float features of an archive shard: approximate screen, then exact distances in double precision.

A matrix product (of float32, or of 16-bit integers for the cosine, see `kernels/int16_screen`) gives an approximate
value for every pair (the negative similarity, scaled and shifted; smaller is nearer) and a bound on its error. A pair
whose value exceeds the k-th smallest value by more than the error bound cannot be among the k nearest. The exact
distances (`distances`) of the few other pairs determine the ranking, so the screen affects the time of a search but
not its result. The bound of the float32 products holds for any order of additions (Higham 2002, "Accuracy and
Stability of Numerical Algorithms", section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bigearthnet_cbir.compiled import compiled_loosely, kernel_array
from bigearthnet_cbir.search.distances import KINDS
from bigearthnet_cbir.search.kernels.int16_dot import PANEL, has_pair_products
from bigearthnet_cbir.search.kernels.int16_screen import RoundedQueries, round_queries, screen_panels
from bigearthnet_cbir.search.kernels.rerank import LEAST_ROOM, TILE, Candidates, collect, finish
from bigearthnet_cbir.search.kernels.topk import DIGITS
from bigearthnet_cbir.search.shards import FeatureShard, lengths_of
from bigearthnet_cbir.types import DoubleArray, FloatArray, IntArray, Neighbours

CHI2_TINY = 1e-10
"""The constant in the denominators of the chi-square distance."""

UNIT = 2.0**-24
"""Unit roundoff of float32."""

SLACK = 32
"""Upper limit of the roundings other than those of the D terms: scale, shift, limit and result."""


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


def start_tile(queries: FloatArray, shard: FeatureShard, distance: str, k: int, exclude: IntArray) -> Candidates:
    """Return empty candidate lists for a tile of queries, with the error bounds of the screen values."""
    count, width = queries.shape
    lengths = lengths_of(queries)
    smallest = width * 2.0**-120  # values that float32 may flush to zero
    absolute, relative = np.full(count, smallest), 0.0
    if distance == "cosine":
        absolute += (width + SLACK) * UNIT
    elif distance == "euclidean":
        reach = lengths + shard.longest
        absolute += UNIT * ((width + SLACK) * reach * shard.longest + SLACK * reach**2)
    else:
        relative = (width + SLACK) * UNIT
        absolute /= CHI2_TINY  # a square may be flushed to zero before this division
    room = 2 * k + TILE + LEAST_ROOM
    return Candidates(
        KINDS[distance],
        queries.astype(np.float64),
        lengths,
        np.zeros(count),
        absolute,
        relative,
        np.empty((count, room), np.float32),
        np.empty((count, room), np.int32),
        np.zeros(count, np.int64),
        np.full(count, np.inf, np.float32),
        kernel_array(exclude),
    )


def unit_rows(queries: FloatArray, lengths: DoubleArray) -> FloatArray:
    """Return the queries scaled to length 1; zero vectors are unchanged."""
    divisors = np.where(lengths > 0, lengths, 1.0)
    return (queries / divisors[:, None]).astype(np.float32)


def _products(
    queries: FloatArray, shard: FeatureShard, distance: str, found: Candidates
) -> Iterator[tuple[int, FloatArray]]:
    """Yield (first row, (Q, TILE) screen products) of each block of the shard, reusing the same memory."""
    screened = unit_rows(queries, found.lengths) if distance == "cosine" else kernel_array(queries)
    memory = np.empty(len(queries) * TILE, np.float32)
    for first in range(0, len(shard.rows), TILE):
        rows = shard.rows[first : first + TILE]
        screen = memory[: len(queries) * len(rows)].reshape(len(queries), len(rows))
        if distance == "chi2":
            _chi_square_screen(screened, rows, screen)
        else:
            np.matmul(screened, rows.T, out=screen)
        yield first, screen


def _rounded_products(rounded: RoundedQueries, shard: FeatureShard) -> Iterator[tuple[int, FloatArray]]:
    """Like `_products`, with integers; the blocks have a few more columns than rows."""
    # With a row stride of 4 KiB all rows would map to the same few cache lines.
    screen = np.empty((len(rounded.values), TILE + PANEL), np.float32)
    for first in range(0, len(shard.rows), TILE):
        block = shard.panels.values[first // PANEL : (first + TILE) // PANEL]
        screen_panels(rounded.values, rounded.steps, block, screen)
        yield first, screen


def nearest_features(queries: FloatArray, shard: FeatureShard, distance: str, k: int, exclude: IntArray) -> Neighbours:
    """Return the k nearest rows of a shard, padded with -1 and infinity if the shard has fewer.

    BLAS is called once per block; limit it to one thread (as `knn` does) and run several tiles in parallel instead.

    Args:
        queries: (Q, D) float32, checked.
        shard: from `shards.make_shard`, for the same distance.
        distance: cosine, euclidean or chi2.
        k: how many to return.
        exclude: (Q, E) int32 archive indices to leave out, each row ascending.
    """
    found = start_tile(queries, shard, distance, k, exclude)
    if len(shard.panels.values) and has_pair_products():
        rounded = round_queries(found.queries, found.lengths, shard.panels)
        absolute = rounded.bounds + SLACK * UNIT + queries.shape[1] * 2.0**-120
        found = found._replace(centres=rounded.centres, absolute=absolute)
        blocks, scales = _rounded_products(rounded, shard), shard.panels.steps
    else:
        blocks, scales = _products(queries, shard, distance, found), shard.scale
    tally = np.empty(DIGITS, np.int32)
    for first, screen in blocks:
        collect(screen, scales, first, k, shard, found, tally)
    indices, distances = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
    finish(k, shard, found, tally, indices, distances)
    return Neighbours(indices, distances)
