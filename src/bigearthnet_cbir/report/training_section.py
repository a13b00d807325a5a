"""The training section of a report: the curves that TensorBoard shows."""

from __future__ import annotations

import numpy as np

from bigearthnet_cbir.report.charts import legend, step_chart
from bigearthnet_cbir.report.html import Html, element, joined
from bigearthnet_cbir.report.sections import section
from bigearthnet_cbir.report.view_model import Line, Study, line_styles
from bigearthnet_cbir.storage.training_log import Scalar

_LEFT_OUT = frozenset({"pairs_per_second"})
_COMPARED = ("loss/validation", "loss/training")
_STYLES = ("run-0", "base-0", "base-1", "run-1", "run-2", "run-3")

Chart = tuple[str, list[tuple[Line, tuple[int, ...]]]]


def training_section(study: Study) -> Html:
    """Return the training curves: of one run by kind, of several runs beside each other."""
    charts = _compared_charts(study) if study.is_comparison else _charts(study.runs[0].training)
    if not charts:
        return joined()
    drawn = [
        element("figure", element("figcaption", title), step_chart(found, _words(title, found)),
                legend([line for line, _ in found], [_last(line) for line, _ in found]))
        for title, found in charts
    ]  # fmt: skip
    return section("training", "Training", "Over the epochs; the value beside each line is its last.",
                   element("div", *drawn, class_="charts"))  # fmt: skip


def _charts(training: dict[str, Scalar]) -> list[Chart]:
    groups: dict[str, list[str]] = {}
    for tag in training:
        if tag not in _LEFT_OUT:
            groups.setdefault(tag.split("/")[0], []).append(tag)
    return [
        (kind.replace("_", " ").capitalize(),
         [(_line(tag.split("/")[-1].replace("_", " "), style, training[tag]), training[tag].steps)
          for tag, style in zip(tags[first : first + len(_STYLES)], _STYLES, strict=False)])
        for kind, tags in groups.items()
        for first in range(0, len(tags), len(_STYLES))
    ]  # fmt: skip


def _compared_charts(study: Study) -> list[Chart]:
    drawn = line_styles(study)
    charts: list[Chart] = []
    for tag in _COMPARED:
        found = [
            (_line(run.name, drawn[run.name], run.training[tag]), run.training[tag].steps)
            for run in study.runs
            if tag in run.training
        ]
        if found:
            kind, what = tag.split("/")
            charts.append((f"{what} {kind}".capitalize(), found))
    return charts


def _line(name: str, style: str, scalar: Scalar) -> Line:
    return Line(name, style, np.asarray(scalar.values, np.float64))


def _last(line: Line) -> str:
    return f"{line.values[-1]:.4g}" if len(line.values) else ""


def _words(title: str, found: list[tuple[Line, tuple[int, ...]]]) -> str:
    ends = ", ".join(f"{line.name} from {line.values[0]:.3g} to {line.values[-1]:.3g}"
                     for line, _ in found if len(line.values))  # fmt: skip
    return f"{title} over the epochs: {ends}."
