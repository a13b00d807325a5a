"""The sections of a report that follow the chosen direction: figures, curves, breakdowns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bigearthnet_cbir.report.charts import ceiling, legend, rank_chart, shown_ranks
from bigearthnet_cbir.report.display_names import CURVE_NAMES, METRIC_DEFINITIONS, direction_words, short_class_name
from bigearthnet_cbir.report.html import Html, element, joined
from bigearthnet_cbir.report.number_format import format_value
from bigearthnet_cbir.report.table_export import scrolling, to_html
from bigearthnet_cbir.report.tables import (
    Table,
    class_table,
    difference_table,
    headline_table,
    label_count_table,
    variant_table,
)
from bigearthnet_cbir.report.view_model import Line, Study, curve_lines, measured_sources

TableOf = Callable[[Study, str, str], "Table | None"]


def radios(group: str, options: list[tuple[str, str]], label: str) -> Html:
    """Return a group of radio buttons, the first chosen; arrow keys move in it as in any such group."""
    buttons = [
        joined(
            element("input", type="radio", name=group, id=f"{group}-{value}", value=value, checked=position == 0),
            element("label", word, for_=f"{group}-{value}"),
        )
        for position, (value, word) in enumerate(options)
    ]
    return element("fieldset", element("legend", label), *buttons, class_="radios")


def panels(study: Study, draw: Callable[[str], Html | None]) -> Html:
    """Return what is drawn of each direction; the page's script shows the chosen one."""
    found = [(name, draw(name)) for name in study.directions]
    return joined(
        *(
            element("div", element("p", direction_words(name).title, class_="panel-title"), content,
                    class_="panel", data_direction=name)
            for name, content in found
            if content is not None
        )
    )  # fmt: skip


def section(identifier: str, title: str, intro: str, *content: Html | None) -> Html:
    """Return a titled section."""
    return element(
        "section", element("h2", title), element("p", intro, class_="intro") if intro else None, *content, id=identifier
    )


def figures_section(study: Study) -> Html:
    """Return the headline table of each direction."""

    def draw(direction: str) -> Html:
        words = direction_words(direction)
        title = (
            f"What each run gains on {study.runs[0].name}: paired bootstrap over the queries, bold where the 95 % "
            "interval excludes zero"
        )
        differences = difference_table(study, direction, title)
        return joined(
            to_html(headline_table(study, direction, f"{words.title}. {words.sentence}")),
            None if differences is None else to_html(differences),
        )

    notes = [joined(element("dt", name), element("dd", note)) for name, note in METRIC_DEFINITIONS.items()]
    explained = element("details", element("summary", "What the figures mean"), element("dl", *notes, class_="notes"))
    missing = study.no_differences if study.is_comparison else _no_baseline(study)
    without = element("p", missing, class_="intro") if missing else None
    return section("figures", "Headline figures", "", panels(study, draw), without, explained)


def _no_baseline(study: Study) -> str:
    if any(not source.is_run for source in study.sources):
        return ""
    return (
        "No baseline was measured beside this run: "
        "project/retrieval.py --baseline band_statistics adds one that needs no learning."
    )


def curves_section(study: Study) -> Html:
    """Return every curve over the ranks, with a slider that reads the values at one of them."""
    known = [name for name in CURVE_NAMES if any(curve_lines(study, direction, name) for direction in study.directions)]
    if not known:
        return joined()
    tops = {name: _top(study, name) for name in known}

    def draw(direction: str) -> Html:
        charts = [_curve_panel(study, direction, name, tops[name]) for name in known]
        return joined(*charts)

    ranks = shown_ranks(_longest(study))
    slider = element(
        "label", "at k = ", element("output", "10", id="rank-out"),
        element("input", type="range", id="rank", min="0", max=str(len(ranks) - 1), step="1",
                value=str(ranks.index(min(10, ranks[-1]))), aria_label="Rank at which the values are read"),
        class_="slider",
    )  # fmt: skip
    every: dict[str, Line] = {}
    for direction in study.directions:
        every |= {line.name: line for name in known for line in curve_lines(study, direction, name)}
    switch = radios("metric", [(name, CURVE_NAMES[name].title) for name in known], "Figure")
    reader = element("div", slider, legend(list(every.values())), class_="reader")
    return section("curves", "Curves", "How each figure develops with the number of results looked at, k = "
                   f"1 to {ranks[-1]:,} (logarithmic axis).", switch, panels(study, draw), reader)  # fmt: skip


def _longest(study: Study) -> int:
    return max(
        (len(curve) for run in study.runs for data in run.data.directions.values()
         for curve in data.curves.values()), default=1,
    )  # fmt: skip


def _top(study: Study, curve: str) -> float:
    values = [line.values for direction in study.directions for line in curve_lines(study, direction, curve)]
    return ceiling(max((float(np.nanmax(found)) for found in values if len(found)), default=1.0))


def _curve_panel(study: Study, direction: str, curve: str, top: float) -> Html:
    drawn = curve_lines(study, direction, curve)
    at_ten = ", ".join(f"{line.name} {line.values[min(10, len(line.values)) - 1]:.3f}" for line in drawn)
    words = CURVE_NAMES[curve]
    label = f"{words.title} over k, {direction_words(direction).title}. At k = 10: {at_ten}."
    return element(
        "div", element("p", f"{words.title}@k. {words.sentence}", class_="intro"),
        rank_chart(drawn, top, label), class_="metric", data_metric=curve,
    )  # fmt: skip


def curve_values(study: Study) -> dict[str, Any]:
    """Return what the slider reads: the shown ranks, and every line's values there."""
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


def breakdown_section(study: Study) -> Html:
    """Return tables by class and by number of labels, the confusion, and the figures under other rules."""
    parts: list[tuple[str, TableOf]] = [
        ("By class: a query counts for each class it has", class_table),
        ("By number of labels of the query", label_count_table),
        ("The same search under other rules", variant_table),
    ]

    def draw(direction: str) -> Html | None:
        tables = [make(study, direction, title) for title, make in parts]
        found = [to_html(table) for table in tables if table is not None]
        return joined(*found, _variant_notes(study, direction), _confusion(study, direction)) if found else None

    content = panels(study, draw)
    return section("classes", "Where it does well, and where not", "", content) if content else joined()


def _variant_notes(study: Study, direction: str) -> Html | None:
    data = measured_sources(study, direction)[0][1]
    notes = []
    if data.tie_aware is not None and "mean_group" in data.tie_aware.numbers:
        sizes = data.tie_aware.numbers
        notes.append(f"Equal distances: groups of {sizes['mean_group']:.1f} results on average, "
                     f"{sizes.get('largest_group', math.nan):,.0f} at most; tie-aware figures are the mean over "
                     "all orders within them.")  # fmt: skip
    if data.exclude_within is not None and "radius" in data.exclude_within.numbers:
        told = data.exclude_within.numbers
        notes.append(f"Neighbours dropped: archive patches at most {told['radius']:.0f} columns and rows from the "
                     "query in its tile, and those of its acquisitions; "
                     f"{told.get('dropped_mean', math.nan):,.1f} a query on average. "
                     f"{told.get('queries_left_out', 0):,.0f} queries keep too few and are left out.")  # fmt: skip
    return joined(*(element("p", note, class_="intro") for note in notes)) if notes else None


def _confusion(study: Study, direction: str) -> Html | None:
    data = measured_sources(study, direction)[0][1]
    if data.confusion is None or data.per_class is None or study.is_comparison:
        return None
    kept = [int(key) for key, queries in zip(data.per_class.keys, data.per_class.queries, strict=True) if queries]
    names = [study.class_names[key] if key < len(study.class_names) else str(key) for key in kept]
    columns = [element("th", element("span", short_class_name(name)), scope="col") for name in names]
    head = element("tr", element("td"), *columns)
    rows = []
    for key, name in zip(kept, names, strict=True):
        shares = [_heat(float(data.confusion[key, other])) for other in kept]
        rows.append(element("tr", element("th", name, scope="row", class_="name"), *shares))
    title = "Row: class of the query. Column: share (%) of its first ten results that hold the class."
    table = element("table", element("thead", head), element("tbody", *rows), class_="heat")
    return element("details", element("summary", "Which classes come back for which"), scrolling(title, table))


def _heat(share: float) -> Html:
    if math.isnan(share):
        return element("td", format_value(share))
    return element("td", f"{100 * share:.0f}", class_=f"h{min(9, int(share * 10))}")
