"""Breakdowns of a report: per class, per number of labels, confusion, tie-aware and spatially excluded metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from bigearthnet_cbir.report.display_names import direction_heading, short_class_name
from bigearthnet_cbir.report.number_format import format_value
from bigearthnet_cbir.report.table_view import TableView, table_view
from bigearthnet_cbir.report.tables import class_table, label_count_table, variant_table
from bigearthnet_cbir.report.view_model import Study, measured_sources
from bigearthnet_cbir.results import CurveVariant


class HeatCell(NamedTuple):
    """A share in percent, and its CSS class; None if unknown."""

    text: str
    style: str | None


class Confusion(NamedTuple):
    """Confusion of classes: short column names, and rows with a class name and its shares."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


class BreakdownPanel(NamedTuple):
    """The breakdowns of a direction, notes on the variants, and the confusion if known."""

    direction: str
    title: str
    tables: tuple[TableView, ...]
    notes: tuple[str, ...]
    confusion: Confusion | None


@dataclass(frozen=True)
class BreakdownView:
    """The section: the directions that have a breakdown."""

    panels: tuple[BreakdownPanel, ...]


def breakdown_view(study: Study) -> BreakdownView | None:
    """Return the breakdowns of every direction, or None if the files have none."""
    panels = tuple(found for direction in study.directions if (found := _panel(study, direction)) is not None)
    return BreakdownView(panels) if panels else None


def _panel(study: Study, direction: str) -> BreakdownPanel | None:
    tables = (
        class_table(study, direction, "By class: a query counts for each class it has"),
        label_count_table(study, direction, "By number of labels of the query"),
        variant_table(study, direction, "Tie-aware metrics and metrics with spatial exclusion"),
    )
    views = tuple(table_view(table) for table in tables if table is not None)
    if not views:
        return None
    title = direction_heading(direction)
    return BreakdownPanel(direction, title, views, _notes(study, direction), _confusion(study, direction))


def _notes(study: Study, direction: str) -> tuple[str, ...]:
    data = measured_sources(study, direction)[0][1]
    notes = []
    if data.tie_aware is not None and "mean_group" in data.tie_aware.numbers:
        notes.append(_tie_note(data.tie_aware))
    if data.exclude_within is not None and "radius" in data.exclude_within.numbers:
        notes.append(_exclusion_note(data.exclude_within))
    return tuple(notes)


def _tie_note(variant: CurveVariant) -> str:
    numbers = variant.numbers
    return (
        f"Equal distances: groups of {numbers['mean_group']:.1f} results on average, "
        f"{numbers.get('largest_group', math.nan):,.0f} at most; tie-aware metrics are means over "
        "all orders within a group."
    )


def _exclusion_note(variant: CurveVariant) -> str:
    numbers = variant.numbers
    return (
        f"Spatial exclusion: archive patches at most {numbers['radius']:.0f} columns and rows from the "
        "query in its tile, and those of its acquisitions, are excluded; "
        f"{numbers.get('dropped_mean', math.nan):,.1f} per query on average. "
        f"{numbers.get('queries_left_out', 0):,.0f} queries with too few remaining results are omitted."
    )


def _confusion(study: Study, direction: str) -> Confusion | None:
    data = measured_sources(study, direction)[0][1]
    if data.confusion is None or data.per_class is None or study.is_comparison:
        return None
    kept = [int(key) for key, queries in zip(data.per_class.keys, data.per_class.queries, strict=True) if queries]
    names = [study.class_names[key] if key < len(study.class_names) else str(key) for key in kept]
    rows = tuple(
        (name, tuple(_heat(float(data.confusion[key, other])) for other in kept))
        for key, name in zip(kept, names, strict=True)
    )
    return Confusion(tuple(map(short_class_name, names)), rows)


def _heat(share: float) -> HeatCell:
    if math.isnan(share):
        return HeatCell(format_value(share), None)
    return HeatCell(f"{100 * share:.0f}", f"h{min(9, int(share * 10))}")
