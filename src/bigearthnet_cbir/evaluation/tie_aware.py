"""Tie-aware AP and NDCG: means over all orders of items at equal distance.

McSherry & Najork 2008, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
Scores", https://doi.org/10.1007/978-3-540-78646-7_38. Our average precision at k divides by the relevant items among
the first k, which is itself random if k is inside a group of ties; docs/metrics.md has the formula.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import compiled, kernel_array, popcount
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.kernels import ideal_dcg, tables_for
from bigearthnet_cbir.evaluation.metrics import ranks_of
from bigearthnet_cbir.evaluation.positions import Positions
from bigearthnet_cbir.evaluation.summary import HEADLINE_RANK
from bigearthnet_cbir.files import release_pages
from bigearthnet_cbir.results import CurveVariant

TIE_AWARE: Final = ("average_precision", "normalized_discounted_cumulative_gains")
_NEGLIGIBLE: Final = 1e-18
"""Numbers of relevant items with a lower probability are ignored."""


@compiled
def _draw(chance: Any, window: Any, size: int, relevant: int, drawn: int) -> None:
    """Update `chance[j]`, the probability of j relevant items, from `drawn` items of a group to one more.

    Args:
        chance: (relevant + 1,) or longer, 0 outside the window.
        window: first and last j in use.
        size: number of items in the group.
        relevant: number of relevant items in the group.
        drawn: number of items drawn before.
    """
    left = size - drawn
    low, high = window[0], min(window[1] + 1, relevant)
    for j in range(high, low - 1, -1):
        value = chance[j] * (left - (relevant - j)) / left
        if j > low:
            value += chance[j - 1] * (relevant - j + 1) / left
        chance[j] = value
    while low < high and chance[low] < _NEGLIGIBLE:
        chance[low] = 0.0
        low += 1
    while high > low and chance[high] < _NEGLIGIBLE:
        chance[high] = 0.0
        high -= 1
    window[0], window[1] = low, high


@compiled
def _hits(j: int, m: int, before: int, over: float, climbed: float) -> float:
    """Return the expected sum of N_i / i over the relevant items at m ranks of a group.

    Args:
        j: number of relevant items at the m ranks.
        m: number of ranks.
        before: number of relevant items in the preceding groups.
        over: sum of 1 / rank over the m ranks.
        climbed: sum of (t - 1) / rank over them, t = 1 ... m.
    """
    value = over * (before + 1)
    if m > 1:
        value += climbed * (j - 1) / (m - 1)
    return value * j / m


@compiled
def _expect(shared: Any, distances: Any, tables: Any, ideal: Any, chance: Any, rows: Any) -> None:
    """Write the expected AP and NDCG of a query at every rank to `rows`, (2, K)."""
    window = np.zeros(2, np.int64)
    start = before = 0
    summed = gained = 0.0
    while start < shared.size:
        stop = start
        relevant = 0
        gain = 0.0
        while stop < shared.size and distances[stop] == distances[start]:
            relevant += shared[stop] > 0
            gain += tables.gains[shared[stop]]
            stop += 1
        size = stop - start
        gain /= size
        chance[: relevant + 1] = 0.0
        chance[0] = 1.0
        window[:] = 0
        over = climbed = 0.0
        for m in range(1, size + 1):
            rank = start + m
            _draw(chance, window, size, relevant, m - 1)
            over += 1.0 / rank
            climbed += (m - 1) / rank
            expected = 0.0
            for j in range(window[0], window[1] + 1):
                if before + j:
                    expected += chance[j] * (summed + _hits(j, m, before, over, climbed)) / (before + j)
            rows[0, rank - 1] = expected
            gained += gain * tables.discounts[rank - 1]
            rows[1, rank - 1] = gained / ideal[rank - 1] if ideal[rank - 1] > 0.0 else 0.0
        summed += _hits(relevant, size, before, over, climbed)
        before += relevant
        start = stop


@compiled
def _add_expected(
    queries: Any, archive: Any, indices: Any, distances: Any, tallies: Any, tables: Any, sums: Any, sizes: Any
) -> None:
    """Add the expected curves of all labelled queries to (2, K) `sums`, and write (Q,) `sizes`.

    The size is that of the group at rank 10 (at the last rank of a shorter list). It is negative if the group has
    several items, the list ends with it, and the query could retrieve more; it is 0 for a query without labels.
    """
    length = indices.shape[1]
    at = min(HEADLINE_RANK, length) - 1
    shared, ideal, chance = np.empty(length, np.int64), np.empty(length), np.empty(length + 1)
    rows = np.empty((2, length))
    for q in range(queries.size):
        sizes[q] = 0
        if queries[q] == 0:
            continue
        for i in range(length):
            shared[i] = np.int64(popcount(queries[q] & archive[indices[q, i]]))
        ideal_dcg(tallies[q], tables, ideal)
        _expect(shared, distances[q], tables, ideal, chance, rows)
        sums += rows
        same = distances[q] == distances[q, at]
        sizes[q] = same.sum()
        if sizes[q] > 1 and same[length - 1] and tallies[q].sum() > length:
            sizes[q] = -sizes[q]


def tie_aware_curves(truth: GroundTruth, indices: Positions, distances: npt.NDArray[np.floating[Any]]) -> CurveVariant:
    """Return AP and NDCG as means over the orders of equal distances, and the sizes of the groups of ties.

    A retrieved list may end inside a group of equal distances. The mean is then over the orders of the retrieved
    members only, so the ranks of this group still depend on the archive order.

    Args:
        truth: ground truth of Q queries and their archive.
        indices: (Q, K) archive positions, nearest first.
        distances: (Q, K) distances of these positions.

    Returns:
        Curves by the names of TIE_AWARE, (K,) float64 each. Numbers over the queries with labels: mean_group and
        largest_group, the number of retrieved items at the distance of rank 10; cut_queries, the number of queries
        whose group at rank 10 has several members, ends the list, and may continue beyond it. A tie between the last
        retrieved item and an item beyond the list cannot be detected and is not counted.

    Raises:
        ResultsError: shapes do not fit, a position is outside the archive, or distances are not ascending.
    """
    top_k = ranks_of(truth, indices)
    if np.shape(distances) != np.shape(indices):
        raise ResultsError(
            f"distances have shape {np.shape(distances)}; they must be {np.shape(indices)}, one per position"
        )
    tables, sums = tables_for(top_k), np.zeros((len(TIE_AWARE), top_k))
    sizes = np.zeros(len(truth.queries), np.int64)
    for rows, places in truth.ranked_blocks(indices):
        ranked = _ascending(distances[rows], rows.start)
        words, tallies = truth.queries[rows], truth.tallies[rows]
        _add_expected(words, truth.archive, places, ranked, tallies, tables, sums, sizes[rows])
        release_pages(distances)
    queries, cut = max(int((sizes != 0).sum()), 1), int((sizes < 0).sum())
    mean, largest = int(abs(sizes).sum()) / queries, int(abs(sizes).max(initial=0))
    curves = dict(zip(TIE_AWARE, sums / queries, strict=True))
    return CurveVariant(curves, {"mean_group": mean, "largest_group": largest, "cut_queries": cut})


def _ascending(distances: npt.NDArray[Any], first: int) -> npt.NDArray[np.floating[Any]]:
    """Return validated, ascending rows of distances for the kernels; `first` is the index of the first row."""
    given = np.asarray(distances)
    kind = np.float32 if given.dtype == np.float32 else np.float64  # rounding would create ties
    ranked = kernel_array(given, kind)
    wrong = ~(ranked[:, 1:] >= ranked[:, :-1]).all(axis=1) | np.isnan(ranked[:, 0])
    if wrong.any():
        raise ResultsError(
            f"distances of query {first + wrong.argmax():,} have NaN or are not ascending; give them as returned "
            "by the search"
        )
    return ranked
