"""The sections of a report behind the figures: how the training went, and where every number comes from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bigearthnet_cbir.report.charts import legend, step_chart
from bigearthnet_cbir.report.html import Html, element, joined
from bigearthnet_cbir.report.sections import section
from bigearthnet_cbir.report.table_export import NOTHING, scrolling
from bigearthnet_cbir.report.view_model import Line, Study, styles
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
    drawn = styles(study)
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


def provenance_section(study: Study) -> Html:
    """Return every attribute of the results files and the runs' configurations."""
    parts: list[Html | None] = [_differences(study)] if study.is_comparison else []
    for position, run in enumerate(study.runs):
        suffix = f" of {run.name}" if study.is_comparison else ""
        place = {"folder": study.folders[position]} if position < len(study.folders) else {}
        told = {**place, **{name: value for name, value in run.data.attributes.items() if name != "class_names"}}
        parts.append(_facts(f"Provenance{suffix}", told))
        if run.data.configuration:
            parts.append(_facts(f"Configuration{suffix}", flat(run.data.configuration)))
    return section("provenance", "Where the numbers come from", "", *parts)


def _facts(title: str, values: dict[str, Any]) -> Html:
    rows = [element("tr", element("th", name, scope="row"),
                    element("td", spelled(value))) for name, value in values.items()]  # fmt: skip
    return element("details", element("summary", title), element("table", element("tbody", *rows), class_="facts"))


def _differences(study: Study) -> Html | None:
    flats = [flat(run.data.configuration) for run in study.runs]
    keys = [key for key in dict.fromkeys(key for found in flats for key in found if key != "source")
            if len({spelled(found.get(key)) for found in flats}) > 1]  # fmt: skip
    if not keys:
        return None
    head = element("tr", element("th", "key", scope="col", class_="name"),
                   *(element("th", run.name, scope="col") for run in study.runs))  # fmt: skip
    rows = [element("tr", element("th", key, scope="row", class_="name"),
                    *(element("td", spelled(found.get(key))) for found in flats)) for key in keys]  # fmt: skip
    caption = "Keys of the configuration in which the runs differ"
    return scrolling(caption, element("table", element("thead", head), element("tbody", *rows), class_="wraps"))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def spelled(value: Any) -> str:
    """Return a configured or stored value as a YAML file would show it."""
    if isinstance(value, str):
        return value
    return NOTHING if value is None else json.dumps(value, default=str)
