"""Line charts as inline SVG whose lines stretch with the page while their words keep their size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bigearthnet_cbir.report.html import Html, element, joined, svg_element
from bigearthnet_cbir.report.view_model import Line

_POINTS = 90
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
SIZE = 1000
"""Units along each side of the drawing, which CSS stretches to any size."""


def shown_ranks(length: int) -> list[int]:
    """Return ranks from 1 to length, evenly spread on a logarithmic axis, the first ten and all ticks among them."""
    if length < 1:
        return []
    spread = np.unique(np.rint(np.geomspace(1, length, _POINTS)).astype(int))
    wanted = {*spread.tolist(), *range(1, 11), *_TICKS}
    return sorted(rank for rank in wanted if rank <= length)


def ceiling(highest: float) -> float:
    """Return a round number that is not below the highest value: the top of an axis."""
    if not highest > 0 or not math.isfinite(highest):
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= highest - 1e-12)


def rank_chart(lines: Sequence[Line], top: float, label: str) -> Html:
    """Return curves over k = 1, 2, ... on a logarithmic axis."""
    length = max((len(line.values) for line in lines), default=1)
    ranks = shown_ranks(length)
    scale = math.log(max(length, 2))
    across = [(math.log(rank) / scale, f"{rank:,}") for rank in ranks if rank in _TICKS]
    drawn = [
        (line, [(math.log(rank) / scale, float(line.values[rank - 1])) for rank in ranks if rank <= len(line.values)])
        for line in lines
    ]
    return _chart(drawn, across, (0.0, top), label)


def step_chart(lines: Sequence[tuple[Line, Sequence[int]]], label: str) -> Html:
    """Return figures over epochs on straight axes.

    Args:
        lines: each with the epochs of its values.
        label: text alternative.
    """
    last = max((step for _, steps in lines for step in steps), default=1)
    first = min((step for _, steps in lines for step in steps), default=1)
    span = max(last - first, 1)
    values = [value for line, _ in lines for value in line.values.tolist() if math.isfinite(value)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    marks = sorted({round(first + span * part / 4) for part in range(5)})
    across = [((step - first) / span, f"{step:,}") for step in marks]
    drawn = [
        (line, [((step - first) / span, float(value)) for step, value in zip(steps, line.values, strict=True)])
        for line, steps in lines
    ]
    return _chart(drawn, across, _bounds(low, high), label)


def _bounds(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis whose four steps are round; it starts at 0 unless the values are far from it."""
    if 0 <= low < 0.6 * high:
        return 0.0, ceiling(high)
    step = ceiling(max(high - low, 1e-3 * abs(high), 1e-9) / 4)
    bottom = math.floor(low / step) * step
    while bottom + 4 * step < high:
        step = ceiling(step * 1.01)
        bottom = math.floor(low / step) * step
    return bottom, bottom + 4 * step


def _chart(
    drawn: Sequence[tuple[Line, list[tuple[float, float]]]],
    across: Sequence[tuple[float, str]],
    bounds: tuple[float, float],
    label: str,
) -> Html:
    low, high = bounds
    marks = [low + (high - low) * part / 4 for part in range(5)]
    grid = [_grid_line(0, SIZE - part * SIZE / 4, SIZE, SIZE - part * SIZE / 4) for part in range(5)]
    grid += [_grid_line(place * SIZE, 0, place * SIZE, SIZE) for place, _ in across]
    lines = [_polyline(line, points, bounds) for line, points in drawn]
    picture = svg_element(
        "svg", svg_element("title", label), *grid, *reversed(lines), role="img", viewBox=f"0 0 {SIZE} {SIZE}",
        preserveAspectRatio="none", aria_label=label,
    )  # fmt: skip
    up = [
        element("span", word, style=f"bottom:{part * 25}%", class_="y") for part, word in enumerate(tick_words(marks))
    ]
    along = [element("span", word, style=f"left:{100 * place:.2f}%", class_="x") for place, word in across]
    return element("div", picture, element("div", *up, *along, class_="ticks", aria_hidden="true"), class_="plot")


def tick_words(marks: Sequence[float]) -> list[str]:
    """Return the numbers along an axis with as many digits as they need, small ones as 7.5e-4."""
    span = max(marks) - min(marks)
    if max(abs(mark) for mark in marks) < 0.01:
        return [f"{mark:.1e}".replace("e-0", "e-") if mark else "0" for mark in marks]
    digits = next((d for d in range(1, 6) if all(abs(round(mark, d) - mark) < 1e-3 * span for mark in marks)), 6)
    return [f"{mark:.{digits}f}" for mark in marks]


def _grid_line(x1: float, y1: float, x2: float, y2: float) -> Html:
    places = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return svg_element("line", class_="grid", vector_effect="non-scaling-stroke", **places)


def _polyline(line: Line, points: list[tuple[float, float]], bounds: tuple[float, float]) -> Html:
    low, high = bounds
    span = (high - low) or 1.0
    places = " ".join(
        f"{x * SIZE:.1f},{SIZE * (1 - (value - low) / span):.1f}" for x, value in points if math.isfinite(value)
    )
    return svg_element("polyline", points=places, class_=f"line {line.style}", vector_effect="non-scaling-stroke")


def legend(lines: Sequence[Line], values: Sequence[str] | None = None) -> Html:
    """Return what each line is with the given value beside it; without values the page's script fills them in."""
    entries = []
    for position, line in enumerate(lines):
        swatch = svg_element("svg", _swatch(line.style), viewBox="0 0 28 8", class_="swatch wide", aria_hidden="true")
        value = element("b", data_line=line.name) if values is None else element("b", values[position])
        entries.append(element("li", swatch, element("span", line.name), value))
    return element("ul", *entries, class_="legend")


def _swatch(style: str) -> Html:
    return svg_element("line", x1="0", y1="4", x2="28", y2="4", class_=f"line {style}")


def dot_track(own: float, interval: tuple[float, float] | None, others: Sequence[tuple[str, float]]) -> Html:
    """Return one row of a dot plot from 0 to 1: a dot, its interval, and marks of what it is compared with."""
    parts = [svg_element("line", x1="0", x2="100%", y1="14", y2="14", class_="rail")]
    for style, value in others:
        shape = {"x1": f"{value:.2%}", "x2": f"{value:.2%}", "y1": "6", "y2": "22"}
        if style == "chance":
            parts.append(svg_element("line", class_="mark chance", **shape))
        else:
            parts.append(svg_element("circle", cx=f"{value:.2%}", cy="14", r="4", class_=f"mark {style}"))
    if interval is not None:
        ends = {"x1": f"{interval[0]:.2%}", "x2": f"{interval[1]:.2%}", "y1": "14", "y2": "14"}
        parts.append(svg_element("line", class_="interval", **ends))
    parts.append(svg_element("circle", cx=f"{own:.2%}", cy="14", r="6", class_="dot"))
    return svg_element("svg", joined(*parts), class_="track", aria_hidden="true")
