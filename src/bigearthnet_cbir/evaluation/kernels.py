"""Compiled kernels that compute all curves from ranked label bitmasks.

Each query visits its retrieved items once, in rank order; s is the number of labels that an item shares with the query.
The serial loops multiply by tabulated reciprocals instead of dividing.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import compiled, popcount
from bigearthnet_cbir.evaluation.label_bitmasks import MOST_LABELS
from bigearthnet_cbir.types import DoubleArray

# Rows of the per-query and summed tables, in this order.
PRECISION, RECALL, F1, AP, ACG, WAP, NDCG = range(7)
CURVES: Final = 7


class Tables(NamedTuple):
    """Constants of the kernels, for curves of length K.

    Attributes:
        over: reciprocals, over[n] = 1 / n with over[0] = 0, up to max(K, 64).
        discounts: (K,) 1 / log2(1 + rank).
        summed: (K,) cumulative sums of the discounts.
        gains: (33,) 2^s - 1.
    """

    over: DoubleArray
    discounts: DoubleArray
    summed: DoubleArray
    gains: DoubleArray


def tables_for(top_k: int) -> Tables:
    """Return the constants of curves of length `top_k`."""
    over = np.zeros(max(top_k, 2 * MOST_LABELS) + 1)
    over[1:] = 1 / np.arange(1, len(over))
    discounts = 1 / np.log2(np.arange(top_k) + 2)
    return Tables(over, discounts, np.cumsum(discounts), np.exp2(np.arange(MOST_LABELS + 1)) - 1)


@compiled
def ideal_dcg(tally: Any, tables: Any, ideal: Any) -> None:
    """Write DCG@k of the ideal ranking, from the tally of shared labels; `ideal` is (K,) float64.

    Items with equal gain are consecutive, so each group adds its gain times a difference of summed discounts.
    """
    start = 0
    total = before = 0.0
    for level in range(tally.size - 1, -1, -1):
        stop = min(start + tally[level], ideal.size)
        gain = tables.gains[level]
        for i in range(start, stop):
            ideal[i] = total + gain * (tables.summed[i] - before)
        if stop > start:
            total, before, start = ideal[stop - 1], tables.summed[stop - 1], stop
    for i in range(start, ideal.size):  # the archive is smaller than K
        ideal[i] = total


@compiled
def _normalize(dcg: Any, ideal: Any, row: Any) -> None:
    for i in range(row.size):
        row[i] = dcg[i] / ideal[i] if ideal[i] > 0.0 else 0.0


@compiled
def _add(sums: Any, rows: Any) -> None:
    flat, added = sums.reshape(-1), rows.reshape(-1)
    for i in range(flat.size):
        flat[i] += added[i]


@compiled
def _meet(word: Any, items: Any, tables: Any, pairs: Any) -> None:
    """Write (4, K) float64 values of each retrieved item: s, precision, F1, gain."""
    over, gains = tables.over, tables.gains
    labels = np.int64(popcount(word))
    for i in range(items.size):
        shared = np.int64(popcount(word & items[i]))
        size = np.int64(popcount(items[i]))
        pairs[0, i] = shared
        pairs[1, i] = shared * over[size]
        pairs[2, i] = 2.0 * shared * over[size + labels]
        pairs[3, i] = gains[shared] * tables.discounts[i]


@compiled
def _accumulate(labels: int, pairs: Any, tables: Any, rows: Any, original: Any, dcg: Any) -> None:
    """Write one query's curves except NDCG, in rank order, and its DCG.

    The loop has no data-dependent branch: about half of all items are relevant, so it would often be mispredicted.

    Args:
        labels: number of the query's labels, at least 1.
        pairs: (4, K) from _meet.
        tables: see Tables.
        rows: (7, K) float64 standard curves, written.
        original: (7, K) float64, the original's WAP written.
        dcg: (K,) float64, written.
    """
    over = tables.over
    over_labels = over[labels]
    precision = f1 = ap = wap = wap_original = gained = total = 0.0
    hits = 0
    for i in range(dcg.size):
        over_rank = over[i + 1]
        shared = pairs[0, i]
        hit = shared > 0.0
        hits += hit
        total += shared
        precision += pairs[1, i]
        f1 += pairs[2, i]
        gained += pairs[3, i]
        mean_gain = total * over_rank
        relevant = np.float64(hit)
        ap += relevant * (hits * over_rank)
        wap += relevant * mean_gain
        wap_original += relevant * (mean_gain * over_rank)
        over_hits = over[hits]
        rows[PRECISION, i] = precision * over_rank
        rows[RECALL, i] = mean_gain * over_labels
        rows[F1, i] = f1 * over_rank
        rows[AP, i] = ap * over_hits
        rows[ACG, i] = mean_gain
        rows[WAP, i] = wap * over_hits
        original[WAP, i] = wap_original * over_hits
        dcg[i] = gained


@compiled
def _take_last(labels: int, pairs: Any, tables: Any, original: Any) -> None:
    """Write the curves that look at one item per rank in the original convention; arguments as of _accumulate."""
    over_labels = tables.over[labels]
    original[PRECISION] = pairs[1]
    original[F1] = pairs[2]
    for i in range(pairs.shape[1]):
        original[RECALL, i] = pairs[0, i] * over_labels


@compiled
def add_rows(queries: Any, archive: Any, indices: Any, tallies: Any, tables: Any, standard: Any, original: Any) -> int:
    """Add the curves of all labelled queries to the two (7, K) sums; return the number of these queries.

    Queries are added one by one, so that the sums do not depend on the partition into blocks. Average precision and ACG
    are equal in both conventions; `original` has zeros for them.

    Args:
        queries: (Q,) uint32 words.
        archive: (N,) uint32 words.
        indices: (Q, K) archive positions in rank order.
        tallies: (Q, 33) number of archive items that share s labels with each query.
        tables: see Tables.
        standard: (7, K) float64 sums.
        original: (7, K) float64 sums.
    """
    counted = 0
    length = indices.shape[1]
    items, dcg, ideal = np.empty(length, np.uint32), np.empty(length, np.float64), np.empty(length, np.float64)
    pairs, rows, original_rows = np.empty((4, length)), np.empty_like(standard), np.zeros_like(original)
    retrieved = np.empty(MOST_LABELS + 1, np.int64)
    for q in range(queries.size):
        word = queries[q]
        if word == 0:
            continue
        counted += 1
        retrieved[:] = 0
        for i in range(length):
            items[i] = archive[indices[q, i]]
            retrieved[popcount(word & items[i])] += 1
        _meet(word, items, tables, pairs)
        labels = np.int64(popcount(word))
        _accumulate(labels, pairs, tables, rows, original_rows, dcg)
        _take_last(labels, pairs, tables, original_rows)
        ideal_dcg(tallies[q], tables, ideal)
        _normalize(dcg, ideal, rows[NDCG])
        ideal_dcg(retrieved, tables, ideal)
        _normalize(dcg, ideal, original_rows[NDCG])
        _add(standard, rows)
        _add(original, original_rows)
    return counted


@compiled
def standard_at(
    queries: Any, archive: Any, indices: Any, tallies: Any, tables: Any, ranks: npt.NDArray[np.int64], values: Any
) -> None:
    """Write (7, Q, R) standard values at the given ranks (from 1); NaN for queries without labels; see add_rows."""
    length = indices.shape[1]
    items, dcg, ideal = np.empty(length, np.uint32), np.empty(length, np.float64), np.empty(length, np.float64)
    pairs, rows, unused = np.empty((4, length)), np.empty((CURVES, length)), np.empty((CURVES, length))
    for q in range(queries.size):
        if queries[q] == 0:
            values[:, q, :] = np.nan
            continue
        for i in range(length):
            items[i] = archive[indices[q, i]]
        _meet(queries[q], items, tables, pairs)
        _accumulate(np.int64(popcount(queries[q])), pairs, tables, rows, unused, dcg)
        ideal_dcg(tallies[q], tables, ideal)
        _normalize(dcg, ideal, rows[NDCG])
        for r in range(ranks.size):
            values[:, q, r] = rows[:, ranks[r] - 1]
