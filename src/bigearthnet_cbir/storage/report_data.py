"""Everything a report reads from a retrieval.h5: curves, statistics where there are any, and first neighbours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.storage.results import (
    CHANCE,
    DIRECTIONS,
    ORIGINAL,
    DirectionResults,
    open_results,
    read_curves,
)
from bigearthnet_cbir.types import DoubleArray, Neighbours

_KEYS = ("labels", "queries", "confusion")


@dataclass(frozen=True)
class Breakdown:
    """Figures of groups of queries.

    Attributes:
        keys: (M,) what a group is: a class's column, or a number of labels.
        queries: (M,) how many queries the group has.
        figures: headline name -> (M, 3) value, lower and upper end; NaN where the group is empty.
    """

    keys: npt.NDArray[np.int64]
    queries: npt.NDArray[np.int64]
    figures: dict[str, DoubleArray]


@dataclass(frozen=True)
class Variant:
    """Curves of the same search under another rule, with the numbers that describe the rule."""

    curves: dict[str, DoubleArray]
    notes: dict[str, float]


@dataclass(frozen=True)
class DirectionData:
    """What a file says of one direction; parts that it lacks are empty or None.

    Attributes:
        results: curves, chance, and the original scripts' convention.
        intervals: headline name -> lower and upper end of its 95 % interval.
        per_class, per_label_count: breakdowns.
        confusion: (C, C) row: class of the query, column: share of its top 10 that holds the class.
        tie_aware: expected curves over the orders of equal distances (Hamming).
        exclude_within: curves without the query's neighbourhood.
        has_neighbours: whether the neighbours themselves are stored.
    """

    results: DirectionResults
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    per_class: Breakdown | None = None
    per_label_count: Breakdown | None = None
    confusion: DoubleArray | None = None
    tie_aware: Variant | None = None
    exclude_within: Variant | None = None
    has_neighbours: bool = False


@dataclass(frozen=True)
class ReportData:
    """A retrieval.h5 as a report shows it.

    Attributes:
        attributes: of the file, as plain Python values.
        configuration: of the run, empty where the file has none.
        directions: by name.
        original_only: whether the original scripts wrote it, in their convention.
    """

    attributes: dict[str, Any]
    configuration: dict[str, Any]
    directions: dict[str, DirectionData]
    original_only: bool = False


def read_report_data(path: Path) -> ReportData:
    """Read what a report shows of a retrieval.h5, ours or the original scripts'.

    Raises:
        ResultsError: it is missing, broken, or no results file.
    """
    with open_results(path) as file:
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
        configuration = _configuration(attributes.pop("configuration", None))
        if "fused" not in file:
            curves = read_curves(file)
            only = DirectionData(DirectionResults(curves, {}, curves), has_neighbours="retrieval_result" in file)
            return ReportData(attributes, configuration, {"fused": only}, original_only=True)
        names = [name for name, item in file.items() if isinstance(item, h5py.Group) and "precision" in item]
        ordered = sorted(names, key=lambda name: (DIRECTIONS.index(name) if name in DIRECTIONS else 99, name))
        return ReportData(attributes, configuration, {name: _direction(file[name]) for name in ordered})


def read_neighbours(path: Path, direction: str, top: int) -> Neighbours:
    """Return the first `top` neighbours of every query of a direction.

    Raises:
        ResultsError: the file is missing or broken.
    """
    with open_results(path) as file:
        group = file.get(direction, file)
        return Neighbours(group["retrieval_result"][:, :top], group["distance"][:, :top])


def _direction(group: h5py.Group) -> DirectionData:
    results = DirectionResults(read_curves(group), _curves(group, CHANCE), _curves(group, ORIGINAL))
    per_class = group.get("per_class")
    confusion = per_class.get("confusion") if per_class is not None else None
    return DirectionData(
        results=results,
        intervals={name: (float(item[0]), float(item[1])) for name, item in group.get("intervals", {}).items()},
        per_class=_breakdown(per_class),
        per_label_count=_breakdown(group.get("per_label_count")),
        confusion=None if confusion is None else np.asarray(confusion[:], np.float64),
        tie_aware=_variant(group.get("tie_aware")),
        exclude_within=_variant(group.get("exclude_within")),
        has_neighbours="retrieval_result" in group and "distance" in group,
    )


def _curves(group: h5py.Group, name: str) -> dict[str, DoubleArray]:
    return read_curves(group[name]) if name in group else {}


def _breakdown(group: h5py.Group | None) -> Breakdown | None:
    if group is None or "queries" not in group:
        return None
    queries = np.asarray(group["queries"][:], np.int64)
    keys = np.asarray(group["labels"][:], np.int64) if "labels" in group else np.arange(len(queries))
    figures = {
        name: np.asarray(item[:], np.float64)
        for name, item in group.items()
        if name not in _KEYS and isinstance(item, h5py.Dataset) and item.shape == (len(queries), 3)
    }
    return Breakdown(keys, queries, figures)


def _variant(group: h5py.Group | None) -> Variant | None:
    if group is None:
        return None
    notes = {name: float(value) for name, value in group.attrs.items() if isinstance(value, np.number | int | float)}
    return Variant(read_curves(group), notes)


def _plain(value: Any) -> Any:
    """Return an attribute as what Python prints simply: numbers, text, lists."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _configuration(text: Any) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def class_names(data: ReportData, fallback: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the label columns that the file was written with."""
    names = data.attributes.get("class_names")
    return tuple(str(name) for name in names) if isinstance(names, list) and names else tuple(fallback)
