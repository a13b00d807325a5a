"""Headline figures as functions of per-query values, so that queries can be resampled, grouped and paired."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.evaluation.metrics import HARMONIC, harmonic, per_query_values
from bigearthnet_cbir.evaluation.positions import Positions, retrieved_positions
from bigearthnet_cbir.evaluation.summary import HEADLINE_RANK, HEADLINES
from bigearthnet_cbir.types import DoubleArray


def _columns_of(curve: str, rank: int) -> tuple[tuple[str, int], ...]:
    return (("precision", rank), ("recall", rank)) if curve == HARMONIC else ((curve, rank),)


COLUMNS: Final = tuple(dict.fromkeys(column for _, curve, rank in HEADLINES for column in _columns_of(curve, rank)))
"""Curve and rank of the per-query values whose means give every headline figure."""


def query_columns(
    query_labels: npt.NDArray[Any],
    archive_labels: npt.NDArray[Any],
    indices: Positions,
    exclude: Positions | None = None,
) -> DoubleArray:
    """Return (Q, len(COLUMNS)) per-query values, NaN for a query without labels.

    Ranks beyond the last one are taken at the last one, as in summary.at_rank. Arguments and errors as in
    metrics.retrieval_curves; only the first 10 ranks are looked at.
    """
    top = retrieved_positions(indices, len(query_labels), None, len(archive_labels))[:, :HEADLINE_RANK]
    ranks = sorted({min(rank, top.shape[1]) for _, rank in COLUMNS})
    values = per_query_values(query_labels, archive_labels, top, ranks, exclude)
    return np.stack([values[curve][:, ranks.index(min(rank, top.shape[1]))] for curve, rank in COLUMNS], axis=1)


def figures(means: DoubleArray) -> dict[str, DoubleArray]:
    """Return the headline figures, (...) each, of (..., len(COLUMNS)) means over queries."""
    found = {}
    for name, curve, rank in HEADLINES:
        parts = [means[..., COLUMNS.index(column)] for column in _columns_of(curve, rank)]
        found[name] = harmonic(parts[0], parts[1]) if curve == HARMONIC else parts[0]
    return found
