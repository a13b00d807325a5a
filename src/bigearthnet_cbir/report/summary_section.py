"""The first screen of a report: what was searched in what, and how well it went."""

from __future__ import annotations

from typing import Any

from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.report.charts import dot_track
from bigearthnet_cbir.report.display_names import direction_words, source_name
from bigearthnet_cbir.report.html import Html, element, joined, svg_element
from bigearthnet_cbir.report.number_format import format_interval, format_value
from bigearthnet_cbir.report.view_model import Source, Study, line_styles, measured_sources
from bigearthnet_cbir.results import DirectionResult

OVERVIEW_METRIC = "F1@10"
_SAME = ("query_split", "archive_split", "queries", "archive_size", "protocol", "convention")


def opening(study: Study) -> Html:
    """Return the heading, one sentence on the search, the protocol, and the overview."""
    kicker = "Comparison of runs" if study.is_comparison else "Retrieval report"
    return element(
        "header",
        element("p", f"BigEarthNet-MM · {kicker}", class_="kicker"),
        element("h1", study.title),
        element("p", _lead(study), class_="lead"),
        _protocol(study.runs[0].data.attributes, original=study.runs[0].data.original_only),
        _warning(study),
        overview(study),
        class_="opening",
    )


def _lead(study: Study) -> Html:
    told = study.runs[0].data.attributes
    subject = "Each of these runs" if study.is_comparison else "This run"
    if not {"queries", "query_split", "archive_size", "archive_split"} <= told.keys():
        return joined(f"{subject}: retrieval figures written by the original scripts, in their own convention.")
    archive = element("strong", f"{told['archive_size']:,} patches")
    queries = element("strong", f"{told['queries']:,} query patches")
    return joined(
        f"{subject} took ", queries, f" ({told['query_split']}) and looked in an archive of ", archive,
        f" ({told['archive_split']}) for the places most like each. A result is good when it has the query's "
        "land-cover labels.", _verdict(study),
    )  # fmt: skip


def _verdict(study: Study) -> Html | None:
    """Return what the first direction reached, beside chance, in one sentence."""
    direction = study.directions[0]
    data = measured_sources(study, direction)[0][1]
    own, chance = headline(data.curves).get(OVERVIEW_METRIC), headline(data.chance).get(OVERVIEW_METRIC)
    if own is None or chance is None or study.is_comparison:
        return None
    return joined(
        " Over its first ten results, ", direction_words(direction).title, " reaches an F1 of ",
        element("strong", format_value(own)), f"; a random order reaches {format_value(chance)}.",
    )  # fmt: skip


def _protocol(told: dict[str, Any], *, original: bool) -> Html:
    words = {
        "Protocol": told.get("protocol"),
        "Queries": _size(told, "query_split", "queries"),
        "Archive": _size(told, "archive_split", "archive_size"),
        "Distance": told.get("distance"),
        "Vectors": told.get("feature_kind"),
        "Ranks kept": told.get("k"),
        "Convention": "original scripts" if original else told.get("convention", "standard"),
    }
    entries = [
        element("div", element("dt", name), element("dd", f"{value:,}" if isinstance(value, int) else str(value)))
        for name, value in words.items()
        if value is not None
    ]
    return element("dl", *entries, class_="protocol")


def _size(told: dict[str, Any], split: str, size: str) -> str | None:
    return f"{told[split]}, {told[size]:,}" if split in told and size in told else None


def _warning(study: Study) -> Html | None:
    """Say which of the compared runs did not search the same patches."""
    first = study.runs[0].data.attributes
    differ = sorted({key for run in study.runs for key in _SAME if run.data.attributes.get(key) != first.get(key)})
    if not differ:
        return None
    words = ", ".join(key.replace("_", " ") for key in differ)
    return element("p", f"Not measured alike: the runs differ in {words}. Compare with care.", class_="warning")


def overview(study: Study) -> Html:
    """Return one row per direction: the figure of every source on a line from 0 to 1."""
    rows = [_overview_row(study, direction) for direction in study.directions]
    scale = element("div", *(element("span", mark) for mark in ("0", "0.25", "0.5", "0.75", "1")), class_="scale")
    shown = [row for row in rows if row is not None]
    if not shown:
        return joined()
    return element(
        "section",
        element("h2", f"{OVERVIEW_METRIC} in every direction"),
        element("div", *shown, element("div", scale, class_="row axis", aria_hidden="true"), class_="overview"),
        _key(study),
        class_="card",
        aria_label="Overview",
    )


def _overview_row(study: Study, direction: str) -> Html | None:
    measured = measured_sources(study, direction)
    found = [(source, data) for source, data in measured if OVERVIEW_METRIC in headline(data.curves)]
    if not found:
        return None
    words = direction_words(direction)
    values = [(source, headline(data.curves)[OVERVIEW_METRIC]) for source, data in found]
    drawn = line_styles(study)
    others = [(drawn[source.name], value) for source, value in values[1:]]
    chance = next((headline(data.chance).get(OVERVIEW_METRIC) for _, data in found if data.chance), None)
    if chance is not None:
        others.append(("chance", chance))
    track = dot_track(values[0][1], found[0][1].intervals.get(OVERVIEW_METRIC), others)
    return element(
        "div", element("div", element("b", words.title), element("small", words.sentence), class_="what"),
        track, _values(study, values, found[0][1]), class_="row",
    )  # fmt: skip


def _values(study: Study, values: list[tuple[Source, float]], first: DirectionResult) -> Html:
    if study.is_comparison:
        drawn = line_styles(study)
        runs = [(source.name, value) for source, value in values if source.is_run]
        own = [element("b", format_value(value), class_=drawn[name]) for name, value in runs]
        return element("div", *own, class_="values several")
    interval = first.intervals.get(OVERVIEW_METRIC)
    ends = None if interval is None else element("small", format_interval(*interval))
    return element("div", element("b", format_value(values[0][1])), ends, class_="values")


def _key(study: Study) -> Html:
    drawn = line_styles(study)
    has_chance = any(data.chance for source in study.runs for data in source.data.directions.values())
    entries = [("dot", study.sources[0].name)]
    entries += [(f"mark {drawn[source.name]}", source_name(source.name)) for source in study.sources[1:]]
    items = [
        element("li", svg_element("svg", svg_element("circle", cx="8", cy="8", r="5", class_=style), class_="swatch",
                                  viewBox="0 0 16 16", aria_hidden="true"), element("span", name))
        for style, name in entries
    ]  # fmt: skip
    if has_chance:
        line = svg_element("line", x1="8", x2="8", y1="1", y2="15", class_="mark chance")
        swatch = svg_element("svg", line, class_="swatch", viewBox="0 0 16 16", aria_hidden="true")
        items.append(element("li", swatch, element("span", "chance: a random order")))
    if any(data.intervals for data in study.runs[0].data.directions.values()):
        items.append(element("li", element("span", "bar: 95 % interval over queries", class_="muted")))
    return element("ul", *items, class_="legend")
