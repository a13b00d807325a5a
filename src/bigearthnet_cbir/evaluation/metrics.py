"""Multi-label retrieval metrics at every rank, and their exact expectation under a random ranking.

Definitions, edge cases and sources: docs/metrics.md. Every curve is computed per query for k = 1..K and then averaged
over the queries that have labels.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.evaluation.label_words import MOST_LABELS, ArchiveLabels, to_words
from bigearthnet_cbir.types import ByteArray

Curve: TypeAlias = npt.NDArray[np.float64]

STANDARD: Final = (
    "precision",
    "recall",
    "f1score",
    "average_precision",
    "average_cumulative_gains",
    "weighted_avg_precision",
    "normalized_discounted_cumulative_gains",
)
AT_RANK: Final = ("precision", "recall", "f1score")
"""What the original scripts report under these names is the value of the single item at rank k."""

GAINS: Final[Curve] = np.exp2(np.arange(MOST_LABELS + 1, dtype=np.float64)) - 1.0
"""Gain of an item in DCG by the number of labels it shares."""


@numba.njit(cache=True, nogil=True)
def _popcount(word: Any) -> Any:
    count = 0
    while word:
        word &= word - np.uint32(1)
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def ideal_dcg(histogram: Any, gains: Any, discounts: Any, ideal: Any) -> None:
    """Fill ideal (K,) with the DCG@k of the best order of the items in a histogram of shared labels."""
    level, left, total = len(histogram) - 1, histogram[len(histogram) - 1], 0.0
    for i in range(len(ideal)):
        while left <= 0 and level > 0:
            level -= 1
            left = histogram[level]
        total += gains[level] * discounts[i] if level > 0 else 0.0
        left -= 1
        ideal[i] = total


@numba.njit(cache=True, nogil=True)
def _score(
    queries: Any, words: Any, indices: Any, histograms: Any, gains: Any, discounts: Any, values: Any, original: Any
) -> None:
    """Fill values (7, K) and original (5, K) for one query at a time; the caller adds them up."""
    k = indices.shape[1]
    retrieved = np.zeros(len(gains), np.int64)
    ideal, own_ideal = np.empty(k), np.empty(k)
    for q in range(len(queries)):
        query_size = _popcount(queries[q])
        if query_size == 0:
            continue
        retrieved[:] = 0
        for i in range(k):
            retrieved[_popcount(queries[q] & words[indices[q, i]])] += 1
        ideal_dcg(histograms[q], gains, discounts, ideal)
        ideal_dcg(retrieved, gains, discounts, own_ideal)
        precision = recall = f1 = ap = gain = wap = wap_original = dcg = 0.0
        relevant = 0
        for i in range(k):
            word = words[indices[q, i]]
            s, size = _popcount(queries[q] & word), _popcount(word)
            at_precision = s / size if size else 0.0
            at_recall = s / query_size
            precision += at_precision
            recall += at_recall
            f1 += 2.0 * s / (size + query_size)
            gain += s
            dcg += gains[s] * discounts[i]
            rank = i + 1
            if s > 0:
                relevant += 1
                ap += relevant / rank
                wap += gain / rank
                wap_original += gain / rank / rank
            per = 1.0 / relevant if relevant else 0.0
            values[0, i] += precision / rank
            values[1, i] += recall / rank
            values[2, i] += f1 / rank
            values[3, i] += ap * per
            values[4, i] += gain / rank
            values[5, i] += wap * per
            values[6, i] += dcg / ideal[i] if ideal[i] > 0 else 0.0
            both = at_precision + at_recall
            original[0, i] += at_precision
            original[1, i] += at_recall
            original[2, i] += 2.0 * at_precision * at_recall / both if both > 0 else 0.0
            original[3, i] += wap_original * per
            original[4, i] += dcg / own_ideal[i] if own_ideal[i] > 0 else 0.0


class CurveAccumulator:
    """Adds up the curves of all queries, block by block; the blocks' sizes do not change the result.

    Args:
        archive_labels: (N, L) of 0 and 1, L <= 32.
        top_k: ranks per query.
    """

    def __init__(self, archive_labels: ByteArray, top_k: int) -> None:
        self._archive = ArchiveLabels(archive_labels)
        self._discounts = 1.0 / np.log2(np.arange(2, top_k + 2))
        self._values = np.zeros((len(STANDARD), top_k))
        self._original = np.zeros((5, top_k))
        self.queries = 0
        self.without_labels = 0

    def update(
        self, query_labels: ByteArray, indices: npt.NDArray[np.integer], exclude: npt.NDArray[np.integer] | None = None
    ) -> None:
        """Add a block of queries.

        Args:
            query_labels: (Q, L) of 0 and 1.
            indices: (Q, top_k) archive positions, nearest first.
            exclude: (Q, E) archive positions that could not be retrieved, -1 as filling; the ideal ranking of
                NDCG leaves them out too.

        Raises:
            ValueError: the shapes do not fit.
        """
        if indices.shape != (len(query_labels), self._values.shape[1]):
            raise ValueError(f"indices have shape {indices.shape}; give {(len(query_labels), self._values.shape[1])}")
        words = to_words(query_labels)
        histograms = self._archive.shared_histogram(words, exclude)
        places = np.ascontiguousarray(indices, dtype=np.int64)
        _score(
            words, self._archive.words, places, histograms, GAINS, self._discounts, self._values, self._original
        )
        self.queries += int((words > 0).sum())
        self.without_labels += int((words == 0).sum())

    def standard(self) -> dict[str, Curve]:
        """Return the eight standard curves, (top_k,) float64 each; all zero where no query has labels."""
        means = self._values / max(self.queries, 1)
        curves = dict(zip(STANDARD, means, strict=True))
        return {**curves, "f1score_harmonic": harmonic(curves["precision"], curves["recall"])}

    def original(self) -> dict[str, Curve]:
        """Return the seven curves as the original scripts defined them."""
        precision, recall, f1, wap, ndcg = self._original / max(self.queries, 1)
        standard = self.standard()
        return {
            "precision": precision,
            "recall": recall,
            "f1score": f1,
            "average_precision": standard["average_precision"],
            "average_cumulative_gains": standard["average_cumulative_gains"],
            "weighted_avg_precision": wap,
            "normalized_discounted_cumulative_gains": ndcg,
        }


def harmonic(precision: Curve, recall: Curve) -> Curve:
    """Return the harmonic mean of two curves, 0 where both are 0."""
    both = precision + recall
    return np.divide(2.0 * precision * recall, both, out=np.zeros_like(both), where=both > 0)


def retrieval_curves(
    query_labels: ByteArray,
    archive_labels: ByteArray,
    indices: npt.NDArray[np.integer],
    exclude: npt.NDArray[np.integer] | None = None,
) -> dict[str, Curve]:
    """Return the standard curves of a search.

    Args:
        query_labels: (Q, L) of 0 and 1; queries without a label are left out of the means.
        archive_labels: (N, L) of 0 and 1; an item without labels has precision 0 with every query.
        indices: (Q, K) archive positions, nearest first.
        exclude: (Q, E) positions that a query could not retrieve, -1 as filling.

    Returns:
        Name -> (K,) float64, position k - 1 for rank k.
    """
    scores = CurveAccumulator(archive_labels, indices.shape[1])
    scores.update(query_labels, indices, exclude)
    return scores.standard()


def original_convention_curves(
    query_labels: ByteArray, archive_labels: ByteArray, indices: npt.NDArray[np.integer]
) -> dict[str, Curve]:
    """Return the curves as the original scripts defined them; arguments as in retrieval_curves."""
    scores = CurveAccumulator(archive_labels, indices.shape[1])
    scores.update(query_labels, indices)
    return scores.original()
