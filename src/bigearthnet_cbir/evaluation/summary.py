"""Headline metrics of a set of curves, for tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

HEADLINES: Final = (
    ("P@10", "precision", 10),
    ("R@10", "recall", 10),
    ("F1@10", "f1score_harmonic", 10),
    ("F1@5", "f1score", 5),
    ("mAP@10", "average_precision", 10),
    ("NDCG@10", "normalized_discounted_cumulative_gains", 10),
)
"""Name in print, curve, rank. F1@10 is the harmonic F1 (CSMAE), F1@5 the pairwise F1 (CR-JEPA)."""

HEADLINE_RANK: Final = 10
"""The largest rank of the headline metrics."""


def at_rank(curve: npt.NDArray[np.float64], rank: int) -> float:
    """Return a curve's value at a rank (1-based), or at its last rank if it is shorter."""
    return float(curve[min(rank, len(curve)) - 1])


def headline(curves: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """Return the headline metrics that the given curves contain."""
    return {name: at_rank(curves[key], rank) for name, key, rank in HEADLINES if key in curves}
