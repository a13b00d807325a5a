"""Headline metrics as functions of per-query values, so that queries can be resampled, grouped and paired."""

from __future__ import annotations

from typing import Final

import numpy as np

from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.metrics import HARMONIC, harmonic, per_query_values
from bigearthnet_cbir.evaluation.positions import Positions, first_ranks
from bigearthnet_cbir.evaluation.summary import HEADLINE_RANK, HEADLINES
from bigearthnet_cbir.types import DoubleArray


def _columns_of(curve: str, rank: int) -> tuple[tuple[str, int], ...]:
    return (("precision", rank), ("recall", rank)) if curve == HARMONIC else ((curve, rank),)


COLUMNS: Final = tuple(dict.fromkeys(column for _, curve, rank in HEADLINES for column in _columns_of(curve, rank)))
"""Curves and ranks of the per-query values whose means determine the headline metrics."""


def query_columns(truth: GroundTruth, indices: Positions) -> DoubleArray:
    """Return (Q, len(COLUMNS)) per-query values, NaN for a query without labels.

    Ranks beyond the last one are taken at the last one, as in summary.at_rank. Arguments and errors as in
    metrics.mean_curves; only the first 10 ranks are looked at.
    """
    top = first_ranks(indices, len(truth.queries), HEADLINE_RANK)
    ranks = sorted({min(rank, top.shape[1]) for _, rank in COLUMNS})
    values = per_query_values(truth, top, ranks)
    return np.stack([values[curve][:, ranks.index(min(rank, top.shape[1]))] for curve, rank in COLUMNS], axis=1)


def figures(means: DoubleArray) -> dict[str, DoubleArray]:
    """Return the headline metrics, (...) each, of (..., len(COLUMNS)) means over queries."""
    found = {}
    for name, curve, rank in HEADLINES:
        parts = [means[..., COLUMNS.index(column)] for column in _columns_of(curve, rank)]
        found[name] = harmonic(parts[0], parts[1]) if curve == HARMONIC else parts[0]
    return found
