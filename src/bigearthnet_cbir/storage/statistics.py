"""What retrieval.h5 holds of a direction beside its curves: intervals, breakdowns, ties, neighbours left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.types import DoubleArray

INTERVALS: Final = "intervals"
PER_CLASS: Final = "per_class"
PER_LABEL_COUNT: Final = "per_label_count"
TIE_AWARE: Final = "tie_aware"
EXCLUDE_WITHIN: Final = "exclude_within"


@dataclass(frozen=True)
class Groups:
    """Figures of G groups of queries: classes, or numbers of labels.

    Attributes:
        queries: (G,) int64 queries in each.
        figures: name -> (G, 3) value, lower and upper end; NaN for a group without queries.
        labels: (G,) int64 numbers of labels, or None where the groups are the classes in their order.
        confusion: (G, G) of the classes, or None.
    """

    queries: npt.NDArray[np.int64]
    figures: dict[str, DoubleArray]
    labels: npt.NDArray[np.int64] | None = None
    confusion: DoubleArray | None = None


@dataclass(frozen=True)
class OtherCurves:
    """Curves under another rule, and the numbers that go with them.

    Attributes:
        curves: name -> (k,) float64.
        numbers: the group's attributes: mean_group, largest_group, cut_queries for ties; radius, dropped_mean,
            dropped_queries, queries_left_out for neighbours left out.
    """

    curves: dict[str, DoubleArray]
    numbers: dict[str, float]


@dataclass(frozen=True)
class DirectionStatistics:
    """All of it for one direction; what a file does not hold is empty or None."""

    intervals: dict[str, DoubleArray] = field(default_factory=dict)
    per_class: Groups | None = None
    per_label_count: Groups | None = None
    tie_aware: OtherCurves | None = None
    exclude_within: OtherCurves | None = None


def write_statistics(direction: h5py.Group, statistics: DirectionStatistics) -> None:
    """Write what there is: intervals/<figure> (2,) float64, and one group each of the others."""
    intervals = direction.create_group(INTERVALS)
    for name, ends in statistics.intervals.items():
        intervals[name] = np.asarray(ends, np.float64)
    for name, groups in ((PER_CLASS, statistics.per_class), (PER_LABEL_COUNT, statistics.per_label_count)):
        if groups is not None:
            _write_groups(direction.create_group(name), groups)
    for name, other in ((TIE_AWARE, statistics.tie_aware), (EXCLUDE_WITHIN, statistics.exclude_within)):
        if other is not None:
            group = direction.create_group(name)
            for curve, values in other.curves.items():
                group[curve] = np.asarray(values, np.float64)
            group.attrs.update(other.numbers)


def _write_groups(group: h5py.Group, groups: Groups) -> None:
    """Write queries, the figures, and labels or confusion where there are any."""
    group["queries"] = groups.queries.astype(np.int64)
    if groups.labels is not None:
        group["labels"] = groups.labels.astype(np.int64)
    if groups.confusion is not None:
        group["confusion"] = np.asarray(groups.confusion, np.float64)
    for figure, values in groups.figures.items():
        group[figure] = np.asarray(values, np.float64)


def read_statistics(direction: h5py.Group) -> DirectionStatistics:
    """Read what a direction's group holds."""
    return DirectionStatistics(
        {name: np.asarray(item[:]) for name, item in direction.get(INTERVALS, {}).items()},
        _read_groups(direction.get(PER_CLASS)),
        _read_groups(direction.get(PER_LABEL_COUNT)),
        _read_other(direction.get(TIE_AWARE)),
        _read_other(direction.get(EXCLUDE_WITHIN)),
    )


def _read_groups(group: h5py.Group | None) -> Groups | None:
    if group is None:
        return None
    found: dict[str, Any] = {name: np.asarray(item[:]) for name, item in group.items()}
    queries, labels, confusion = found.pop("queries"), found.pop("labels", None), found.pop("confusion", None)
    return Groups(queries, found, labels, confusion)


def _read_other(group: h5py.Group | None) -> OtherCurves | None:
    if group is None:
        return None
    curves = {name: np.asarray(item[:]) for name, item in group.items()}
    return OtherCurves(curves, {name: value.item() for name, value in group.attrs.items()})
