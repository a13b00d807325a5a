"""Retrieval curves at k = 1 ... K: the field's definitions, and the original scripts' beside them.

Average precision: Manning, Raghavan & Schuetze 2008, https://nlp.stanford.edu/IR-book/, chapter 8. Cumulative gains:
Jarvelin & Kekalainen 2002, https://doi.org/10.1145/582415.582418, with the exponential gain of Burges et al. 2005,
https://doi.org/10.1145/1102351.1102363. docs/metrics.md spells every formula out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.kernels import (
    ACG,
    AP,
    CURVES,
    F1,
    NDCG,
    PRECISION,
    RECALL,
    WAP,
    add_rows,
    standard_at,
    tables_for,
)
from bigearthnet_cbir.evaluation.label_bitmasks import ArchiveLabels, label_words
from bigearthnet_cbir.evaluation.positions import Positions, retrieved_positions
from bigearthnet_cbir.types import DoubleArray

ROWS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "precision": PRECISION,
        "recall": RECALL,
        "f1score": F1,
        "average_precision": AP,
        "average_cumulative_gains": ACG,
        "weighted_avg_precision": WAP,
        "normalized_discounted_cumulative_gains": NDCG,
    }
)
HARMONIC: Final = "f1score_harmonic"
STANDARD: Final = (*ROWS, HARMONIC)
"""Names of the standard curves. The original scripts' convention has all but the last."""


def harmonic(precision: DoubleArray, recall: DoubleArray) -> DoubleArray:
    """Return 2pr / (p + r), 0 where both are 0."""
    both = precision + recall
    return np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)


class CurveAccumulator:
    """Curves of queries that arrive in blocks, in order; how they were cut into blocks does not change a bit.

    Attributes:
        queries: queries that entered the means.
        without_labels: queries that were left out because they have no labels.
    """

    def __init__(self, archive_labels: npt.NDArray[Any], top_k: int) -> None:
        """Prepare for one archive.

        Args:
            archive_labels: (N, L) of 0 and 1, L <= 32.
            top_k: length of the curves, 1 ... N.

        Raises:
            ResultsError: the labels are malformed, or top_k is outside 1 ... N.
        """
        self._archive = ArchiveLabels(archive_labels)
        check_top_k(top_k, len(self._archive))
        self._tables = tables_for(top_k)
        self._standard = np.zeros((CURVES, top_k))
        self._original = np.zeros((CURVES, top_k))
        self.queries = 0
        self.without_labels = 0

    def update(self, query_labels: npt.NDArray[Any], indices: Positions, exclude: Positions | None = None) -> None:
        """Take in a block of queries.

        Args:
            query_labels: (Q, L) of 0 and 1.
            indices: (Q, top_k) archive positions, nearest first.
            exclude: (Q, E) positions that a query could not retrieve (itself, say), -1 as filling: the ideal
                ranking of NDCG leaves them out too.

        Raises:
            ResultsError: shapes do not fit, or a position is outside the archive.
        """
        words = label_words(query_labels)
        places = retrieved_positions(indices, len(words), self._standard.shape[1], len(self._archive))
        tallies, _ = self._archive.shared_label_counts(words, exclude)
        counted = add_rows(words, self._archive.words, places, tallies, self._tables, self._standard, self._original)
        self.queries += counted
        self.without_labels += len(words) - counted

    def standard(self) -> dict[str, DoubleArray]:
        """Return the means so far, (top_k,) each, by the names of STANDARD; all 0 before the first labelled query."""
        curves = {name: self._standard[row] / max(self.queries, 1) for name, row in ROWS.items()}
        return {**curves, HARMONIC: harmonic(curves["precision"], curves["recall"])}

    def original(self) -> dict[str, DoubleArray]:
        """Return the means so far in the original scripts' convention, (top_k,) each, by the names of ROWS."""
        sums = self._original.copy()
        sums[[AP, ACG]] = self._standard[[AP, ACG]]
        return {name: sums[row] / max(self.queries, 1) for name, row in ROWS.items()}


def retrieval_curves(
    query_labels: npt.NDArray[Any],
    archive_labels: npt.NDArray[Any],
    indices: Positions,
    exclude: Positions | None = None,
) -> dict[str, DoubleArray]:
    """Return the standard curves, (K,) float64 each, by the names of STANDARD.

    Args:
        query_labels: (Q, L) of 0 and 1; queries without labels are left out (CurveAccumulator counts them).
        archive_labels: (N, L) of 0 and 1; an item without labels has precision 0 with every query.
        indices: (Q, K) archive positions, nearest first.
        exclude: see CurveAccumulator.update.

    Raises:
        ResultsError: labels are malformed, shapes do not fit, or a position is outside the archive.
    """
    return _accumulated(query_labels, archive_labels, indices, exclude).standard()


def original_convention_curves(
    query_labels: npt.NDArray[Any], archive_labels: npt.NDArray[Any], indices: Positions
) -> dict[str, DoubleArray]:
    """Return the curves as the original scripts computed them; arguments and errors as in `retrieval_curves`."""
    return _accumulated(query_labels, archive_labels, indices, None).original()


def per_query_values(
    query_labels: npt.NDArray[Any],
    archive_labels: npt.NDArray[Any],
    indices: Positions,
    ranks: Sequence[int],
    exclude: Positions | None = None,
) -> dict[str, DoubleArray]:
    """Return every query's own standard values at chosen ranks, (Q, R) each; NaN for a query without labels.

    The harmonic F1 is a function of means and therefore not among them. Other arguments and errors as in
    `retrieval_curves`.
    """
    words, archive = label_words(query_labels), ArchiveLabels(archive_labels)
    places = retrieved_positions(indices, len(words), None, len(archive))
    chosen = np.asarray(ranks, np.int64)
    if chosen.size == 0 or chosen.min() < 1 or chosen.max() > places.shape[1]:
        raise ResultsError(f"ranks are {list(ranks)}; choose some from 1 to the {places.shape[1]:,} retrieved")
    values = np.empty((CURVES, len(words), len(chosen)))
    tallies, _ = archive.shared_label_counts(words, exclude)
    standard_at(words, archive.words, places, tallies, tables_for(places.shape[1]), chosen, values)
    return {name: values[row] for name, row in ROWS.items()}


def check_top_k(top_k: int, size: int) -> None:
    """Raise ResultsError unless 1 <= top_k <= size."""
    if not 1 <= top_k <= size:
        raise ResultsError(f"top_k is {top_k:,}; choose one from 1 to the archive's {size:,} items")


def _accumulated(
    query_labels: npt.NDArray[Any], archive_labels: npt.NDArray[Any], indices: Positions, exclude: Positions | None
) -> CurveAccumulator:
    places = retrieved_positions(indices, len(query_labels), None, len(archive_labels))
    accumulator = CurveAccumulator(archive_labels, places.shape[1])
    accumulator.update(query_labels, places, exclude)
    return accumulator
