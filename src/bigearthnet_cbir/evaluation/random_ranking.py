"""Exact expected value of every standard curve for a random ranking of the archive (chance level).

Nothing is sampled. docs/metrics.md derives the formulas; the tests compare them with simulated rankings.
"""

from __future__ import annotations

import numpy as np

from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.kernels import Tables, ideal_dcg, tables_for
from bigearthnet_cbir.evaluation.label_bitmasks import MOST_LABELS, Counts, label_counts
from bigearthnet_cbir.evaluation.metrics import HARMONIC, STANDARD, check_top_k, harmonic
from bigearthnet_cbir.types import DoubleArray


def chance_curves(truth: GroundTruth, top_k: int) -> dict[str, DoubleArray]:
    """Return the expected standard curves, (top_k,) float64 each, by the names of `metrics.STANDARD`.

    The expectation is over uniformly random permutations of the items that a query may retrieve, averaged over the
    queries with labels.

    Raises:
        ResultsError: top_k is outside 1 ... N.
    """
    check_top_k(top_k, len(truth.archive))
    labelled = truth.queries > 0
    if not labelled.any():
        return {name: np.zeros(top_k) for name in STANDARD}
    tally = truth.tallies[labelled]
    size = tally.sum(axis=1)
    shared = tally @ np.arange(MOST_LABELS + 1)
    pairs = truth.pair_sums[labelled]
    constants = {
        "precision": pairs[:, 0] / size,
        "recall": shared / label_counts(truth.queries[labelled]) / size,
        "f1score": pairs[:, 1] / size,
        "average_cumulative_gains": shared / size,
    }
    curves = {name: np.full(top_k, values.mean()) for name, values in constants.items()}
    ap, wap = _average_precisions(size, size - tally[:, 0], shared, top_k)
    return {
        **curves,
        HARMONIC: harmonic(curves["precision"], curves["recall"]),
        "average_precision": ap,
        "weighted_avg_precision": wap,
        "normalized_discounted_cumulative_gains": _normalized_gains(tally, tables_for(top_k)),
    }


def _average_precisions(size: Counts, relevant: Counts, shared: Counts, top_k: int) -> tuple[DoubleArray, DoubleArray]:
    """Return the means over queries of E[AP@k] and E[WAP@k].

    Given n relevant items among the first k, their ranks are a uniformly random subset, and AP@k is on average
    (H_k + (n - 1) / (k - 1) * (k - H_k)) / k with the harmonic number H_k: linear in n, so that only P(n >= 1) and
    E[n] of the hypergeometric distribution are needed. Gains do not depend on ranks, so WAP@k is on average AP@k
    times the mean number of labels that a relevant item shares.

    Args:
        size: (Q,) number of retrievable items per query.
        relevant: (Q,) number of relevant items among them.
        shared: (Q,) sum of the shared labels over the relevant items.
        top_k: length of the curves.
    """
    groups, back, times = np.unique(np.stack([size, relevant]), axis=1, return_inverse=True, return_counts=True)
    gains = np.bincount(back.ravel(), weights=shared / np.maximum(relevant, 1), minlength=len(times))
    drawn = np.arange(top_k)
    k = drawn + 1
    harmonic_number = np.cumsum(1 / k)
    slope = np.divide(k - harmonic_number, k * (k - 1), out=np.zeros(top_k), where=k > 1)
    ap, wap = np.zeros(top_k), np.zeros(top_k)
    for (items, hits), count, gain in zip(groups.T, times, gains, strict=True):
        # Probability of no relevant item among k: product of (items - hits - i) / (items - i) for i = 0 ... k - 1.
        some = 1 - np.cumprod(np.maximum(items - hits - drawn, 0) / np.maximum(items - drawn, 1))
        expected = some * harmonic_number / k + (k * hits / items - some) * slope
        ap += count * expected
        wap += gain * expected
    return ap / len(size), wap / len(size)


def _normalized_gains(tally: Counts, tables: Tables) -> DoubleArray:
    """Return the mean over queries of E[NDCG@k]: mean gain times the sum of discounts, divided by the ideal DCG."""
    distinct, times = np.unique(tally, axis=0, return_counts=True)
    reached = tables.summed
    total, ideal = np.zeros(len(reached)), np.empty(len(reached))
    for row, count in zip(distinct, times, strict=True):
        ideal_dcg(row, tables, ideal)
        gain = row @ tables.gains / row.sum()
        total += count * np.divide(gain * reached, ideal, out=np.zeros(len(ideal)), where=ideal > 0)
    mean: DoubleArray = total / len(tally)
    return mean
