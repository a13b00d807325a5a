"""The exact expectation of every retrieval curve when the archive is ranked at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.evaluation.label_words import MOST_LABELS, ArchiveLabels, Words, shared, to_words
from bigearthnet_cbir.evaluation.metrics import GAINS, STANDARD, Curve, harmonic, ideal_dcg
from bigearthnet_cbir.types import ByteArray


def chance_curves(
    query_labels: ByteArray,
    archive_labels: ByteArray,
    top_k: int,
    exclude: npt.NDArray[np.integer] | None = None,
) -> dict[str, Curve]:
    """Return the exact expectation of every standard curve when the archive is ranked at random.

    Nothing is sampled: see docs/metrics.md for the formulas. Arguments as in retrieval_curves.
    """
    labelled = query_labels.sum(axis=1) > 0
    words = to_words(query_labels[labelled])
    exclude = None if exclude is None else exclude[labelled]
    if len(words) == 0:
        return dict.fromkeys((*STANDARD, "f1score_harmonic"), np.zeros(top_k))
    archive = ArchiveLabels(archive_labels)
    histogram = archive.shared_histogram(words, exclude)
    size = histogram.sum(axis=1)
    level = np.arange(MOST_LABELS + 1)
    precision = float(np.mean(_mean_over_archive(archive, words, exclude, _precision) / size))
    f1 = float(np.mean(_mean_over_archive(archive, words, exclude, _f1) / size))
    gain = (histogram @ level) / size
    recall = float(np.mean(gain / np.bitwise_count(words)))
    flat = np.ones(top_k)
    ap, wap = _chance_ap(size, size - histogram[:, 0], histogram @ level, top_k)
    curves = {
        "precision": precision * flat,
        "recall": recall * flat,
        "f1score": f1 * flat,
        "average_precision": ap,
        "average_cumulative_gains": float(gain.mean()) * flat,
        "weighted_avg_precision": wap,
        "normalized_discounted_cumulative_gains": _chance_ndcg(histogram, top_k),
    }
    return {**curves, "f1score_harmonic": harmonic(curves["precision"], curves["recall"])}


def _precision(s: Any, size: Any, query_size: Any) -> Any:
    return s / np.maximum(size, 1)


def _f1(s: Any, size: Any, query_size: Any) -> Any:
    return 2.0 * s / (size.astype(np.int64) + query_size)


def _mean_over_archive(archive: ArchiveLabels, words: Words, exclude: Any, weights: Any) -> Curve:
    """Return (Q,) sums of weights over the archive without each query's excluded positions."""
    total = archive.totals(words, weights)
    if exclude is not None:
        for column in exclude.T:
            rows = np.nonzero(column >= 0)[0]
            own, others = words[rows], archive.words[column[rows]]
            total[rows] -= weights(shared(own, others), np.bitwise_count(others), np.bitwise_count(own))
    return total


def _chance_ap(size: Any, relevant: Any, shared_labels: Any, top_k: int) -> tuple[Curve, Curve]:
    """Return the means over queries of E[AP@k] and E[WAP@k].

    With n of the first k items relevant, their positions are a uniform random subset, which makes E[AP@k | n]
    linear in n: only P(n > 0) and E[n] of the hypergeometric distribution are needed.
    """
    ranks = np.arange(1, top_k + 1, dtype=np.float64)
    harmonic_numbers = np.cumsum(1.0 / ranks)
    slope = np.divide(ranks - harmonic_numbers, ranks - 1, out=np.zeros(top_k), where=ranks > 1)
    ap, wap = np.zeros(top_k), np.zeros(top_k)
    groups, times, mean_shared = _groups(size, relevant, shared_labels)
    for (n_items, n_relevant), count, mean in zip(groups, times, mean_shared, strict=True):
        drawn = np.arange(top_k)
        none = np.cumprod(np.clip((n_items - n_relevant - drawn) / np.maximum(n_items - drawn, 1), 0.0, None))
        some = 1.0 - none
        expected = (harmonic_numbers * some + slope * (ranks * n_relevant / n_items - some)) / ranks
        ap += count * expected
        wap += mean * expected
    return ap / len(size), wap / len(size)


def _groups(size: Any, relevant: Any, shared_labels: Any) -> tuple[Any, Any, Any]:
    """Return distinct (archive size, relevant items), how often each occurs, and the summed mean shared labels."""
    pairs = np.stack([size, relevant], axis=1)
    groups, back, times = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    mean = shared_labels / np.maximum(relevant, 1)
    return groups, times, np.bincount(back.ravel(), weights=mean, minlength=len(groups))


def _chance_ndcg(histogram: Any, top_k: int) -> Curve:
    discounts = 1.0 / np.log2(np.arange(2, top_k + 2))
    unique, times = np.unique(histogram, axis=0, return_counts=True)
    total, ideal = np.zeros(top_k), np.empty(top_k)
    summed = np.cumsum(discounts)
    for row, count in zip(unique, times, strict=True):
        ideal_dcg(row, GAINS, discounts, ideal)
        mean_gain = (row @ GAINS) / row.sum()
        total += count * np.divide(mean_gain * summed, ideal, out=np.zeros(top_k), where=ideal > 0)
    result: Curve = total / len(histogram)
    return result
