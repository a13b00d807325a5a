"""Tables of a report, computed once for the page, CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.report.display_names import HEADLINE_NAMES, source_name
from bigearthnet_cbir.report.view_model import Study, measured_sources
from bigearthnet_cbir.results import DirectionResult, GroupMetrics


@dataclass(frozen=True)
class Estimate:
    """A metric or a difference, with its 95 % interval if there is one; NaN is shown as a dash.

    Attributes:
        value: value of the metric.
        lower, upper: limits of the interval, or NaN.
        signed: whether it is a difference, shown with its sign.
    """

    value: float
    lower: float = math.nan
    upper: float = math.nan
    signed: bool = False

    @property
    def has_interval(self) -> bool:
        """Whether both limits are known."""
        return not (math.isnan(self.lower) or math.isnan(self.upper))

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.lower > 0 or self.upper < 0


Cell: TypeAlias = "Estimate | int | str"


@dataclass(frozen=True)
class Table:
    """Rows below a header; the first cell of a row names it.

    Attributes:
        name: stem of its file names.
        caption: caption.
        header: one word per column.
        rows: rows with one cell per column.
        best: columns among which the highest value of each row is marked; empty for none.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    best: tuple[int, ...] = ()


def headline_table(study: Study, direction: str, title: str) -> Table:
    """Return the headline metrics of a direction: a row per metric, a column per source, then chance."""
    found = measured_sources(study, direction)
    columns = [(source_name(source.name), _estimates(data)) for source, data in found]
    chance = next((data.chance for _, data in found if data.chance), None)
    if chance is not None:
        columns.append(("chance", {name: Estimate(value) for name, value in headline(chance).items()}))
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(metrics.get(name, Estimate(math.nan)) for _, metrics in columns))
        for name in HEADLINE_NAMES
        if any(name in metrics for _, metrics in columns)
    )
    best = tuple(range(1, 1 + len(study.runs))) if study.is_comparison else ()
    return Table(f"headline_{direction}", title, ("", *(name for name, _ in columns)), rows, best)


def _estimates(data: DirectionResult) -> dict[str, Estimate]:
    nothing = (math.nan, math.nan)
    values = headline(data.curves)
    return {name: Estimate(value, *data.intervals.get(name, nothing)) for name, value in values.items()}


def difference_table(study: Study, direction: str, title: str) -> Table | None:
    """Return the differences from the first run: a row per metric, a column per other run."""
    found = {run: known[direction] for run, known in study.differences.items() if direction in known}
    if not found:
        return None
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(Estimate(*differences[name], signed=True) for differences in found.values()))
        for name in HEADLINE_NAMES
        if all(name in differences for differences in found.values())
    )
    first = study.runs[0].name
    return Table(f"difference_{direction}", title, ("", *(f"{run} minus {first}" for run in found)), rows)


def class_table(study: Study, direction: str, title: str) -> Table | None:
    """Return the metrics per class of the query; in a comparison one column per run, else one per metric."""
    found = {source.name: data.per_class for source, data in measured_sources(study, direction) if source.is_run}
    kept = {name: part for name, part in found.items() if part is not None}
    return _breakdown_table(f"per_class_{direction}", title, "class", kept, study.class_names)


def label_count_table(study: Study, direction: str, title: str) -> Table | None:
    """Return the metrics of queries with 1, 2, 3 ... labels."""
    found = {source.name: data.per_label_count for source, data in measured_sources(study, direction) if source.is_run}
    kept = {name: part for name, part in found.items() if part is not None}
    return _breakdown_table(f"per_label_count_{direction}", title, "labels", kept, None)


def _breakdown_table(
    name: str, title: str, group: str, parts: Mapping[str, GroupMetrics], class_names: tuple[str, ...] | None
) -> Table | None:
    if not parts:
        return None
    first = next(iter(parts.values()))
    # A comparison shows one metric: the first headline metric that all runs have.
    metrics = [key for key in HEADLINE_NAMES if all(key in part.values for part in parts.values())]
    metrics = metrics[:1] if len(parts) > 1 else metrics
    header = (group, "queries", *(f"{run}: {key}" if len(parts) > 1 else key for run in parts for key in metrics))
    rows: list[tuple[Cell, ...]] = []
    for index, key in enumerate(first.keys):
        label = class_names[key] if class_names is not None and key < len(class_names) else str(key)
        cells = [_estimate(part, metric, int(key)) for part in parts.values() for metric in metrics]
        rows.append((label, int(first.queries[index]), *cells))
    return Table(name, title, header, tuple(rows))


def _estimate(part: GroupMetrics, metric: str, key: int) -> Estimate:
    for index in (part.keys == key).nonzero()[0]:
        value, lower, upper = part.values[metric][index]
        return Estimate(float(value), float(lower), float(upper))
    return Estimate(math.nan)


def variant_table(study: Study, direction: str, title: str) -> Table | None:
    """Return the headline metrics: standard, tie-aware, and with spatial exclusion."""
    found = [data for source, data in measured_sources(study, direction) if source.is_run]
    if len(found) != 1:
        return None
    columns = [("as searched", found[0].curves)]
    if found[0].tie_aware is not None:
        columns.append(("tie-aware", found[0].tie_aware.curves))
    if found[0].exclude_within is not None:
        columns.append(("neighbours dropped", found[0].exclude_within.curves))
    if len(columns) == 1:
        return None
    values = [headline(curves) for _, curves in columns]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(Estimate(column.get(name, math.nan)) for column in values))
        for name in HEADLINE_NAMES
        if any(name in column for column in values[1:])
    )
    return Table(f"variants_{direction}", title, ("", *(name for name, _ in columns)), rows) if rows else None
