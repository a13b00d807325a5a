"""Geometry of the line charts and dot plots that the templates draw as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from bigearthnet_cbir.report.axes import RANK_TICKS, axis_bounds, shown_ranks, tick_labels
from bigearthnet_cbir.report.view_model import Line

SIZE: Final = 1000
"""Units along each side of a drawing; CSS scales it."""


class Segment(NamedTuple):
    """A straight line of the grid, in units of the drawing."""

    x1: str
    y1: str
    x2: str
    y2: str


class Polyline(NamedTuple):
    """One curve: its CSS class, and its points in SVG syntax."""

    style: str
    points: str


class Tick(NamedTuple):
    """A tick label, and its position (% of the axis)."""

    position: str
    text: str


@dataclass(frozen=True)
class Chart:
    """A line chart.

    Attributes:
        label: text alternative.
        grid: lines of the grid.
        curves: curves in drawing order; the first line of the legend is on top.
        x_ticks, y_ticks: tick labels of the axes.
        size: units along each side.
    """

    label: str
    grid: tuple[Segment, ...]
    curves: tuple[Polyline, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    size: int = SIZE


class LegendEntry(NamedTuple):
    """Name and CSS class of a line, and its value; None if the page's script fills it in."""

    name: str
    style: str
    value: str | None = None


class Mark(NamedTuple):
    """A reference value in a dot plot: its CSS class and position (%)."""

    style: str
    x: str


@dataclass(frozen=True)
class DotTrack:
    """One row of a dot plot from 0 to 1.

    Attributes:
        x: position of the run (%).
        interval: limits of its interval (%), or None.
        marks: reference values.
    """

    x: str
    interval: tuple[str, str] | None
    marks: tuple[Mark, ...]


def rank_chart(lines: Sequence[Line], top: float, label: str) -> Chart:
    """Return curves over k = 1, 2, ... on a logarithmic axis."""
    length = max((len(line.values) for line in lines), default=1)
    ranks = shown_ranks(length)
    scale = math.log(max(length, 2))
    across = [(math.log(rank) / scale, f"{rank:,}") for rank in ranks if rank in RANK_TICKS]
    drawn = [
        (line, [(math.log(rank) / scale, float(line.values[rank - 1])) for rank in ranks if rank <= len(line.values)])
        for line in lines
    ]
    return _chart(drawn, across, (0.0, top), label)


def step_chart(lines: Sequence[tuple[Line, Sequence[int]]], label: str) -> Chart:
    """Return values over epochs on linear axes.

    Args:
        lines: lines, each with the epochs of its values.
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
    return _chart(drawn, across, axis_bounds(low, high), label)


def size_chart(lines: Sequence[tuple[Line, Sequence[float]]], ticks: Sequence[int], label: str) -> Chart:
    """Return values over sizes on a logarithmic axis.

    Args:
        lines: each with the sizes of its values, all above 0.
        ticks: sizes that are written below the axis.
        label: text alternative.
    """
    sizes = [size for _, places in lines for size in places]
    first, last = math.log(min(sizes, default=1)), math.log(max(sizes, default=2))
    span = (last - first) or 1.0
    values = [value for line, _ in lines for value in line.values.tolist() if math.isfinite(value)]
    across = [((math.log(size) - first) / span, f"{size:,}") for size in ticks]
    drawn = [
        (
            line,
            [((math.log(size) - first) / span, float(value)) for size, value in zip(places, line.values, strict=True)],
        )
        for line, places in lines
    ]
    return _chart(drawn, across, axis_bounds(min(values, default=0.0), max(values, default=1.0)), label)


def _chart(
    drawn: Sequence[tuple[Line, list[tuple[float, float]]]],
    across: Sequence[tuple[float, str]],
    bounds: tuple[float, float],
    label: str,
) -> Chart:
    low, high = bounds
    marks = [low + (high - low) * part / 4 for part in range(5)]
    heights = [SIZE - part * SIZE / 4 for part in range(5)]
    grid = [_segment(0, height, SIZE, height) for height in heights]
    grid += [_segment(place * SIZE, 0, place * SIZE, SIZE) for place, _ in across]
    curves = [Polyline(line.style, _points(points, bounds)) for line, points in reversed(drawn)]
    up = [Tick(f"{part * 25}", text) for part, text in enumerate(tick_labels(marks))]
    along = [Tick(f"{100 * place:.2f}", text) for place, text in across]
    return Chart(label, tuple(grid), tuple(curves), tuple(along), tuple(up))


def _segment(x1: float, y1: float, x2: float, y2: float) -> Segment:
    return Segment(f"{x1:.1f}", f"{y1:.1f}", f"{x2:.1f}", f"{y2:.1f}")


def _points(points: Sequence[tuple[float, float]], bounds: tuple[float, float]) -> str:
    low, high = bounds
    span = (high - low) or 1.0
    return " ".join(
        f"{x * SIZE:.1f},{SIZE * (1 - (value - low) / span):.1f}" for x, value in points if math.isfinite(value)
    )


def dot_track(own: float, interval: tuple[float, float] | None, others: Sequence[tuple[str, float]]) -> DotTrack:
    """Return the positions of a value, its interval and the reference values on an axis from 0 to 1."""
    ends = None if interval is None else (f"{interval[0]:.2%}", f"{interval[1]:.2%}")
    return DotTrack(f"{own:.2%}", ends, tuple(Mark(style, f"{value:.2%}") for style, value in others))
