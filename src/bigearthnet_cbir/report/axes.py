"""Axes of charts: drawn ranks, limits, and tick labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

_POINTS: Final = 90
RANK_TICKS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def shown_ranks(length: int) -> list[int]:
    """Return ranks from 1 to length, evenly spaced on a logarithmic axis, including the first ten and all ticks."""
    if length < 1:
        return []
    spread = np.unique(np.rint(np.geomspace(1, length, _POINTS)).astype(int))
    wanted = {*spread.tolist(), *range(1, 11), *RANK_TICKS}
    return sorted(rank for rank in wanted if rank <= length)


def ceiling(highest: float) -> float:
    """Return a round number >= the highest value, for the upper limit of an axis."""
    if not highest > 0 or not math.isfinite(highest):
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= highest - 1e-12)


def axis_bounds(low: float, high: float) -> tuple[float, float]:
    """Return the limits of an axis with four round steps; it starts at 0 unless the values are far from 0."""
    if 0 <= low < 0.6 * high:
        return 0.0, ceiling(high)
    step = ceiling(max(high - low, 1e-3 * abs(high), 1e-9) / 4)
    bottom = math.floor(low / step) * step
    while bottom + 4 * step < high:
        step = ceiling(step * 1.01)
        bottom = math.floor(low / step) * step
    return bottom, bottom + 4 * step


def tick_labels(marks: Sequence[float]) -> list[str]:
    """Return tick labels with as many digits as needed, small numbers as 7.5e-4."""
    span = max(marks) - min(marks)
    if max(abs(mark) for mark in marks) < 0.01:
        return [f"{mark:.1e}".replace("e-0", "e-") if mark else "0" for mark in marks]
    digits = next((d for d in range(1, 6) if all(abs(round(mark, d) - mark) < 1e-3 * span for mark in marks)), 6)
    return [f"{mark:.{digits}f}" for mark in marks]
