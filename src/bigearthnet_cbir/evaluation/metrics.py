"""Retrieval curves at k = 1 ... K: the standard definitions, and those of the original scripts.

Average precision: Manning, Raghavan & Schuetze 2008, https://nlp.stanford.edu/IR-book/, chapter 8. Cumulative gains:
Jarvelin & Kekalainen 2002, https://doi.org/10.1145/582415.582418, with the exponential gain of Burges et al. 2005,
https://doi.org/10.1145/1102351.1102363. docs/metrics.md has all formulas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
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
from bigearthnet_cbir.evaluation.positions import Positions, check_rows, retrieved_positions
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


class MeanCurves(NamedTuple):
    """Means over the queries with labels, (K,) float64 each; all 0 if no query has labels.

    Attributes:
        standard: curves by the names of STANDARD.
        original: curves in the convention of the original scripts, by the names of ROWS.
    """

    standard: dict[str, DoubleArray]
    original: dict[str, DoubleArray]


def mean_curves(truth: GroundTruth, indices: Positions) -> MeanCurves:
    """Return the curves of both conventions.

    Args:
        truth: ground truth of Q queries and their archive of N items.
        indices: (Q, K) archive positions, nearest first, K <= N; read in blocks, so that memory maps stay on the disk.

    Raises:
        ResultsError: the shape does not fit, K is outside 1 ... N, or a position is outside the archive.
    """
    top_k = ranks_of(truth, indices)
    tables = tables_for(top_k)
    standard, original = np.zeros((CURVES, top_k)), np.zeros((CURVES, top_k))
    counted = 0
    for rows, places in truth.ranked_blocks(indices):
        words, tallies = truth.queries[rows], truth.tallies[rows]
        counted += add_rows(words, truth.archive, places, tallies, tables, standard, original)
    original[[AP, ACG]] = standard[[AP, ACG]]
    means = [{name: sums[row] / max(counted, 1) for name, row in ROWS.items()} for sums in (standard, original)]
    means[0][HARMONIC] = harmonic(means[0]["precision"], means[0]["recall"])
    return MeanCurves(*means)


def ranks_of(truth: GroundTruth, indices: Positions) -> int:
    """Return K of (Q, K) positions.

    Raises:
        ResultsError: the shape does not fit, or K is outside 1 ... N.
    """
    check_rows(indices, len(truth.queries))
    top_k = int(np.shape(indices)[1])
    check_top_k(top_k, len(truth.archive))
    return top_k


def retrieval_curves(
    query_labels: npt.NDArray[Any],
    archive_labels: npt.NDArray[Any],
    indices: Positions,
    exclude: Positions | None = None,
) -> dict[str, DoubleArray]:
    """Return the standard curves, (K,) float64 each, by the names of STANDARD.

    Args:
        query_labels: (Q, L) multi-hot labels; queries without labels are excluded.
        archive_labels: (N, L) multi-hot labels; an item without labels has precision 0 with every query.
        indices: (Q, K) archive positions, nearest first.
        exclude: see GroundTruth.of.

    Raises:
        ResultsError: labels are malformed, shapes do not fit, or a position is outside the archive.
    """
    return mean_curves(GroundTruth.of(query_labels, archive_labels, exclude), np.asarray(indices)).standard


def original_convention_curves(
    query_labels: npt.NDArray[Any], archive_labels: npt.NDArray[Any], indices: Positions
) -> dict[str, DoubleArray]:
    """Return the curves in the convention of the original scripts; arguments and errors as in `retrieval_curves`."""
    return mean_curves(GroundTruth.of(query_labels, archive_labels), np.asarray(indices)).original


def per_query_values(truth: GroundTruth, indices: Positions, ranks: Sequence[int]) -> dict[str, DoubleArray]:
    """Return the standard values of each query at the given ranks, (Q, R) each; NaN for a query without labels.

    The harmonic F1 is a function of means and therefore not included.

    Raises:
        ResultsError: the shape does not fit, a rank is not among the K, or a position is outside the archive.
    """
    places = retrieved_positions(indices, len(truth.queries), len(truth.archive))
    chosen = np.asarray(ranks, np.int64)
    if chosen.size == 0 or chosen.min() < 1 or chosen.max() > places.shape[1]:
        raise ResultsError(f"ranks are {list(ranks)}; choose ranks from 1 to {places.shape[1]:,}")
    values = np.empty((CURVES, len(places), len(chosen)))
    standard_at(truth.queries, truth.archive, places, truth.tallies, tables_for(places.shape[1]), chosen, values)
    return {name: values[row] for name, row in ROWS.items()}


def check_top_k(top_k: int, size: int) -> None:
    """Raise ResultsError unless 1 <= top_k <= size."""
    if not 1 <= top_k <= size:
        raise ResultsError(f"top_k is {top_k:,}; choose a value from 1 to the archive size {size:,}")
