"""Training section of a report: the logged training curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from bigearthnet_cbir.report.charts import Chart, LegendEntry, step_chart
from bigearthnet_cbir.report.view_model import Line, Study, line_styles
from bigearthnet_cbir.storage.training_log import Scalar

_LEFT_OUT: Final = frozenset({"pairs_per_second"})
_COMPARED: Final = ("loss/validation", "loss/training")
_STYLES: Final = ("run-0", "base-0", "base-1", "run-1", "run-2", "run-3")


class TrainingChart(NamedTuple):
    """A chart over the epochs, and its lines with their last values."""

    title: str
    chart: Chart
    legend: tuple[LegendEntry, ...]


@dataclass(frozen=True)
class TrainingView:
    """The section."""

    charts: tuple[TrainingChart, ...]


class _Curve(NamedTuple):
    """A line with the epochs of its values."""

    line: Line
    steps: tuple[int, ...]


def training_view(study: Study) -> TrainingView | None:
    """Return the training curves, grouped by kind for one run, or by run; None if there are none."""
    charts = _compared_charts(study) if study.is_comparison else _charts(study.runs[0].training)
    return TrainingView(tuple(_chart(title, curves) for title, curves in charts)) if charts else None


def _charts(training: dict[str, Scalar]) -> list[tuple[str, list[_Curve]]]:
    groups: dict[str, list[str]] = {}
    for tag in training:
        if tag not in _LEFT_OUT:
            groups.setdefault(tag.split("/")[0], []).append(tag)
    charts = []
    for kind, tags in groups.items():
        title = kind.replace("_", " ").capitalize()
        for first in range(0, len(tags), len(_STYLES)):
            styled = zip(tags[first : first + len(_STYLES)], _STYLES, strict=False)
            curves = [_curve(tag.split("/")[-1].replace("_", " "), style, training[tag]) for tag, style in styled]
            charts.append((title, curves))
    return charts


def _compared_charts(study: Study) -> list[tuple[str, list[_Curve]]]:
    styles = line_styles(study)
    charts = []
    for tag in _COMPARED:
        runs = [run for run in study.runs if tag in run.training]
        if runs:
            kind, what = tag.split("/")
            curves = [_curve(run.name, styles[run.name], run.training[tag]) for run in runs]
            charts.append((f"{what} {kind}".capitalize(), curves))
    return charts


def _curve(name: str, style: str, scalar: Scalar) -> _Curve:
    return _Curve(Line(name, style, np.asarray(scalar.values, np.float64)), scalar.steps)


def _chart(title: str, curves: list[_Curve]) -> TrainingChart:
    ends = ", ".join(
        f"{line.name} from {line.values[0]:.3g} to {line.values[-1]:.3g}" for line, _ in curves if len(line.values)
    )
    legend = tuple(LegendEntry(line.name, line.style, _last(line)) for line, _ in curves)
    return TrainingChart(title, step_chart(curves, f"{title} over the epochs: {ends}."), legend)


def _last(line: Line) -> str:
    return f"{line.values[-1]:.4g}" if len(line.values) else ""
