"""The compiled pass over ranked label words that every curve comes from.

Retrieved items are met once per query, in rank order; s is the number of labels that an item shares with the query.
The serial loops multiply with tables of reciprocals instead of dividing.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.evaluation.words import MOST_LABELS, compiled, popcount
from bigearthnet_cbir.types import DoubleArray

# Rows of the per-query and summed tables, in this order.
PRECISION, RECALL, F1, AP, ACG, WAP, NDCG = range(7)
CURVES: Final = 7


class Tables(NamedTuple):
    """Constants of the kernels, for curves of length K.

    Attributes:
        over: reciprocals, over[n] = 1 / n with over[0] = 0, up to the greater of K and 64.
        discounts: (K,) 1 / log2(1 + rank).
        gains: (33,) 2^s - 1.
    """

    over: DoubleArray
    discounts: DoubleArray
    gains: DoubleArray


def tables_for(top_k: int) -> Tables:
    """Return the constants of curves of length `top_k`."""
    over = np.zeros(max(top_k, 2 * MOST_LABELS) + 1)
    over[1:] = 1 / np.arange(1, len(over))
    return Tables(over, 1 / np.log2(np.arange(top_k) + 2), np.exp2(np.arange(MOST_LABELS + 1)) - 1)


@compiled
def ideal_dcg(tally: Any, tables: Any, ideal: Any) -> None:
    """Write DCG@k of the best order of the items in a tally of shared labels; `ideal` is (K,) float64."""
    level = tally.size - 1
    left = tally[level]
    total = 0.0
    for i in range(ideal.size):
        while left == 0 and level > 0:
            level -= 1
            left = tally[level]
        left -= 1
        total += tables.gains[level] * tables.discounts[i]
        ideal[i] = total


@compiled
def _normalize(dcg: Any, ideal: Any, row: Any) -> None:
    for i in range(row.size):
        row[i] = dcg[i] / ideal[i] if ideal[i] > 0.0 else 0.0


@compiled
def _standard_rows(word: Any, items: Any, tables: Any, dcg: Any, rows: Any) -> None:
    """Write one query's standard curves except NDCG, and its DCG.

    Args:
        word: uint32 labels of the query, not 0.
        items: (K,) uint32 labels of the retrieved, in rank order.
        tables: see Tables.
        dcg: (K,) float64, written.
        rows: (7, K) float64, written.
    """
    over, discounts, gains = tables.over, tables.discounts, tables.gains
    labels = np.int64(popcount(word))
    precision = f1 = ap = wap = gained = 0.0
    total = 0
    hits = 0
    for i in range(items.size):
        over_rank = over[i + 1]
        shared = np.int64(popcount(word & items[i]))
        if shared:
            size = np.int64(popcount(items[i]))
            hits += 1
            total += shared
            precision += shared * over[size]
            f1 += 2.0 * shared * over[size + labels]
            ap += hits * over_rank
            wap += total * over_rank
            gained += gains[shared] * discounts[i]
        rows[PRECISION, i] = precision * over_rank
        rows[RECALL, i] = total * over[labels] * over_rank
        rows[F1, i] = f1 * over_rank
        rows[AP, i] = ap * over[hits]
        rows[ACG, i] = total * over_rank
        rows[WAP, i] = wap * over[hits]
        dcg[i] = gained


@compiled
def _original_rows(word: Any, items: Any, tables: Any, rows: Any) -> None:
    """Write one query's original precision, recall, F1 (of the single item at a rank) and WAP; see _standard_rows."""
    over = tables.over
    labels = np.int64(popcount(word))
    wap = 0.0
    total = 0
    hits = 0
    for i in range(items.size):
        over_rank = over[i + 1]
        shared = np.int64(popcount(word & items[i]))
        size = np.int64(popcount(items[i]))
        total += shared
        if shared:
            hits += 1
            wap += total * over_rank * over_rank
        rows[PRECISION, i] = shared * over[size]
        rows[RECALL, i] = shared * over[labels]
        rows[F1, i] = 2.0 * shared * over[size + labels]
        rows[WAP, i] = wap * over[hits]


@compiled
def add_rows(
    queries: Any, archive: Any, indices: Any, tallies: Any, tables: Any, standard: Any, original: Any
) -> int:
    """Add every labelled query's curves to the two (7, K) sums; return how many queries that were.

    Queries are added one after the other, so that the sums do not depend on how they were cut into blocks. Average
    precision and ACG mean the same in both conventions; `original` holds zeros in their place.

    Args:
        queries: (Q,) uint32 words.
        archive: (N,) uint32 words.
        indices: (Q, K) archive positions in rank order.
        tallies: (Q, 33) archive items that share s labels with each query.
        tables: see Tables.
        standard: (7, K) float64 sums.
        original: (7, K) float64 sums.
    """
    counted = 0
    length = indices.shape[1]
    items, dcg, ideal = np.empty(length, np.uint32), np.empty(length, np.float64), np.empty(length, np.float64)
    rows, original_rows = np.empty_like(standard), np.zeros_like(original)
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
        _standard_rows(word, items, tables, dcg, rows)
        ideal_dcg(tallies[q], tables, ideal)
        _normalize(dcg, ideal, rows[NDCG])
        standard += rows
        _original_rows(word, items, tables, original_rows)
        ideal_dcg(retrieved, tables, ideal)
        _normalize(dcg, ideal, original_rows[NDCG])
        original += original_rows
    return counted


@compiled
def standard_at(
    queries: Any, archive: Any, indices: Any, tallies: Any, tables: Any, ranks: npt.NDArray[np.int64], values: Any
) -> None:
    """Write (7, Q, R) standard values at the given ranks (from 1); NaN for queries without labels; see add_rows."""
    length = indices.shape[1]
    items, dcg, ideal = np.empty(length, np.uint32), np.empty(length, np.float64), np.empty(length, np.float64)
    rows = np.empty((CURVES, length), np.float64)
    for q in range(queries.size):
        if queries[q] == 0:
            values[:, q, :] = np.nan
            continue
        for i in range(length):
            items[i] = archive[indices[q, i]]
        _standard_rows(queries[q], items, tables, dcg, rows)
        ideal_dcg(tallies[q], tables, ideal)
        _normalize(dcg, ideal, rows[NDCG])
        for r in range(ranks.size):
            values[:, q, r] = rows[:, ranks[r] - 1]
