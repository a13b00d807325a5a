"""Numbers and intervals of a report as text."""

from __future__ import annotations

import math
from typing import Final

NO_VALUE: Final = "\u2013"
"""Display of a missing value: an en dash."""
MINUS: Final = "\u2212"


def format_value(value: float, *, signed: bool = False) -> str:
    """Return a value with three digits, a dash for NaN, with a sign for differences."""
    if math.isnan(value):
        return NO_VALUE
    return f"{value:+.3f}".replace("-", MINUS) if signed else f"{value:.3f}"


def format_interval(lower: float, upper: float, *, signed: bool = False) -> str:
    """Return the two limits of an interval."""
    return f"{format_value(lower, signed=signed)} {'to' if signed else NO_VALUE} {format_value(upper, signed=signed)}"
