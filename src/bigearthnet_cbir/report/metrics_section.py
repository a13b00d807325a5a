"""Headline metrics of a report: one table per direction, and the differences of compared runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bigearthnet_cbir.report.display_names import METRIC_DEFINITIONS, direction_heading, direction_sentence
from bigearthnet_cbir.report.table_view import TableView, table_view
from bigearthnet_cbir.report.tables import difference_table, headline_table
from bigearthnet_cbir.report.view_model import Study


class MetricsPanel(NamedTuple):
    """The tables of a direction."""

    direction: str
    title: str
    tables: tuple[TableView, ...]


@dataclass(frozen=True)
class MetricsView:
    """The section.

    Attributes:
        panels: one per direction.
        note: reason for missing baselines or paired differences; else empty.
        definitions: (metric, description).
    """

    panels: tuple[MetricsPanel, ...]
    note: str
    definitions: tuple[tuple[str, str], ...]


def metrics_view(study: Study) -> MetricsView:
    """Return the headline table of each direction, and in a comparison the differences from the first run."""
    note = study.no_differences if study.is_comparison else _no_baseline(study)
    panels = tuple(_panel(study, direction) for direction in study.directions)
    return MetricsView(panels, note, tuple(METRIC_DEFINITIONS.items()))


def _panel(study: Study, direction: str) -> MetricsPanel:
    heading = direction_heading(direction)
    title = (
        f"Difference of each run from {study.runs[0].name}: paired bootstrap over the queries, bold where the 95 % "
        "interval excludes zero"
    )
    tables = (
        headline_table(study, direction, f"{heading}. {direction_sentence(direction)}"),
        difference_table(study, direction, title),
    )
    return MetricsPanel(direction, heading, tuple(table_view(table) for table in tables if table is not None))


def _no_baseline(study: Study) -> str:
    if any(not source.is_run for source in study.sources):
        return ""
    return "This run has no baseline; project/retrieval.py --baseline band_statistics adds one that needs no training."
