"""Curves of a report: every metric over the ranks, with a slider to show the values at a rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bigearthnet_cbir.report.axes import ceiling, shown_ranks
from bigearthnet_cbir.report.charts import Chart, LegendEntry, rank_chart
from bigearthnet_cbir.report.display_names import CURVE_NAMES, direction_heading
from bigearthnet_cbir.report.number_format import format_value
from bigearthnet_cbir.report.view_model import Line, Study, curve_lines


class MetricChart(NamedTuple):
    """The chart of a metric: name in the file, description, lines."""

    metric: str
    caption: str
    chart: Chart


class CurvesPanel(NamedTuple):
    """The charts of a direction."""

    direction: str
    title: str
    charts: tuple[MetricChart, ...]


@dataclass(frozen=True)
class CurvesView:
    """The section.

    Attributes:
        metrics: (name in the file, title) of the buttons.
        panels: one per direction.
        last_rank: the largest rank shown.
        slider_end, slider_start: positions on the slider, which counts the shown ranks from 0.
        legend: all lines of all panels; the page's script fills in the values.
    """

    metrics: tuple[tuple[str, str], ...]
    panels: tuple[CurvesPanel, ...]
    last_rank: str
    slider_end: int
    slider_start: int
    legend: tuple[LegendEntry, ...]


def curves_view(study: Study) -> CurvesView | None:
    """Return every metric over the ranks, or None if the files have no curves."""
    tops = {name: _top(study, name) for name in CURVE_NAMES if _has_curve(study, name)}
    if not tops:
        return None
    ranks = shown_ranks(_longest(study))
    lines: dict[str, Line] = {}
    for direction in study.directions:
        lines |= {line.name: line for name in tops for line in curve_lines(study, direction, name)}
    return CurvesView(
        tuple((name, CURVE_NAMES[name].title) for name in tops),
        tuple(_panel(study, direction, tops) for direction in study.directions),
        f"{ranks[-1]:,}",
        len(ranks) - 1,
        ranks.index(min(10, ranks[-1])),
        tuple(LegendEntry(line.name, line.style) for line in lines.values()),
    )


def _has_curve(study: Study, curve: str) -> bool:
    return any(curve_lines(study, direction, curve) for direction in study.directions)


def _top(study: Study, curve: str) -> float:
    values = [line.values for direction in study.directions for line in curve_lines(study, direction, curve)]
    return ceiling(max((float(np.nanmax(found)) for found in values if len(found)), default=1.0))


def _longest(study: Study) -> int:
    results = [data for run in study.runs for data in run.data.directions.values()]
    return max((len(curve) for data in results for curve in data.curves.values()), default=1)


def _panel(study: Study, direction: str, tops: dict[str, float]) -> CurvesPanel:
    title = direction_heading(direction)
    charts = tuple(_metric_chart(study, direction, name, top) for name, top in tops.items())
    return CurvesPanel(direction, title, charts)


def _metric_chart(study: Study, direction: str, curve: str, top: float) -> MetricChart:
    lines = curve_lines(study, direction, curve)
    at_ten = ", ".join(f"{line.name} {line.values[min(10, len(line.values)) - 1]:.3f}" for line in lines)
    names = CURVE_NAMES[curve]
    label = f"{names.title} over k, {direction_heading(direction)}. At k = 10: {at_ten}."
    return MetricChart(curve, f"{names.title}@k. {names.sentence}", rank_chart(lines, top, label))


def curve_values(study: Study) -> dict[str, Any]:
    """Return the data of the slider: the shown ranks, and the values of each line at these ranks."""
    ranks = shown_ranks(_longest(study))
    values = {
        direction: {
            curve: {line.name: _at(line, ranks) for line in curve_lines(study, direction, curve)}
            for curve in CURVE_NAMES
        }
        for direction in study.directions
    }
    return {"ranks": ranks, "values": values}


def _at(line: Line, ranks: list[int]) -> list[float | None]:
    picked = [float(line.values[rank - 1]) if rank <= len(line.values) else math.nan for rank in ranks]
    return [None if math.isnan(value) else float(format_value(value)) for value in picked]
