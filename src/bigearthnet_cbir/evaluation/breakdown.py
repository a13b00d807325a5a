"""Metrics per class and per number of labels, and the confusion matrix of classes."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.evaluation.bootstrap import interval, resampled_means
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.headline_metrics import figures
from bigearthnet_cbir.evaluation.positions import Positions, first_ranks, retrieved_positions
from bigearthnet_cbir.evaluation.summary import HEADLINE_RANK
from bigearthnet_cbir.types import DoubleArray

SHOWN: Final = ("F1@10", "mAP@10", "NDCG@10")
_BLOCK: Final = 1 << 16


class Breakdown(NamedTuple):
    """Metrics of G groups of queries.

    Attributes:
        queries: (G,) int64 number of queries per group.
        figures: by the names of SHOWN, (G, 3) float64 value, lower and upper limit; NaN for empty groups.
    """

    queries: npt.NDArray[np.int64]
    figures: dict[str, DoubleArray]


def by_group(columns: DoubleArray, members: npt.NDArray[np.bool_]) -> Breakdown:
    """Return the metrics of groups of queries, each with its 95 % interval over the queries of the group.

    Args:
        columns: (Q, C) from headline_metrics.query_columns; rows with NaN belong to no group.
        members: (Q, G) whether a query belongs to a group; it may belong to several.
    """
    counted = np.isfinite(columns).all(axis=1).reshape(-1, 1)
    members = np.logical_and(members, counted)
    values = {name: np.full((members.shape[1], 3), np.nan) for name in SHOWN}
    for group, belongs in enumerate(members.T):
        if not belongs.any():
            continue
        own = columns[belongs]
        plain, samples = figures(own.mean(axis=0)), figures(resampled_means(own))
        for name in SHOWN:
            values[name][group] = plain[name], *interval(samples[name])
    return Breakdown(members.sum(axis=0, dtype=np.int64), values)


def by_class(columns: DoubleArray, query_labels: npt.NDArray[Any]) -> Breakdown:
    """Return the metrics per class; a query counts for each of its classes."""
    return by_group(columns, query_labels.astype(bool))


def by_label_count(columns: DoubleArray, query_labels: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], Breakdown]:
    """Return the occurring numbers of labels, ascending from 1, and the metrics for each."""
    counts = query_labels.sum(axis=1, dtype=np.int64)
    present = np.unique(counts[counts > 0])
    return present, by_group(columns, counts[:, None] == present)


def confusion(truth: GroundTruth, indices: Positions) -> DoubleArray:
    """Return (L, L): among the 10 nearest items of the queries with class i, the share with class j.

    Items have several labels, so rows may sum to more than 1, and perfect retrieval does not give the identity. A row
    without queries is NaN.

    Args:
        truth: of Q queries and their archive.
        indices: (Q, K) archive positions, nearest first; the first 10 are looked at, or all K where there are fewer.

    Raises:
        ResultsError: the number of rows differs from the number of queries, or a position is outside the archive.
    """
    top = first_ranks(indices, len(truth.queries), HEADLINE_RANK)
    places = retrieved_positions(top, len(truth.queries), len(truth.archive))
    classes = truth.query_labels.shape[1]
    met = np.zeros((classes, classes))
    for start in range(0, len(places), _BLOCK):
        held = truth.archive_labels[places[start : start + _BLOCK]].mean(axis=1, dtype=np.float64)
        met += truth.query_labels[start : start + _BLOCK].astype(np.float64).T @ held
    queries = truth.query_labels.sum(axis=0, dtype=np.float64)[:, None]
    shares: DoubleArray = np.divide(met, queries, out=np.full_like(met, np.nan), where=queries > 0)
    return shares
