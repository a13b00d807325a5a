"""Summary section of a report: protocol and overview of the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.report.charts import DotTrack, dot_track
from bigearthnet_cbir.report.display_names import direction_heading, direction_sentence, source_name
from bigearthnet_cbir.report.number_format import format_interval, format_value
from bigearthnet_cbir.report.view_model import Source, Study, line_styles, measured_sources
from bigearthnet_cbir.results import DirectionResult

OVERVIEW_METRIC: Final = "F1@10"
_SAME = ("query_split", "archive_split", "queries", "archive_size", "protocol", "convention")


class Verdict(NamedTuple):
    """F1@10 of the first direction, and chance."""

    direction: str
    value: str
    chance: str


@dataclass(frozen=True)
class Lead:
    """The sentence below the title.

    Attributes:
        is_comparison: whether there are several runs.
        queries, query_split, archive_size, archive_split: protocol; None for files of the original scripts.
        verdict: None in a comparison, and if F1@10 or chance is unknown.
    """

    is_comparison: bool
    queries: str | None = None
    query_split: str = ""
    archive_size: str = ""
    archive_split: str = ""
    verdict: Verdict | None = None


class OverviewValue(NamedTuple):
    """A value at the end of an overview row; in a comparison with the CSS class of its run."""

    text: str
    style: str | None = None


@dataclass(frozen=True)
class OverviewRow:
    """The values of a direction on an axis from 0 to 1; for a single run with the interval below the value."""

    title: str
    sentence: str
    track: DotTrack
    values: tuple[OverviewValue, ...]
    interval: str | None


class KeyEntry(NamedTuple):
    """An entry of the overview's legend."""

    style: str
    name: str


@dataclass(frozen=True)
class Overview:
    """One row per direction, and the legend."""

    metric: str
    rows: tuple[OverviewRow, ...]
    entries: tuple[KeyEntry, ...]
    has_chance: bool
    has_intervals: bool


@dataclass(frozen=True)
class Summary:
    """The summary section.

    Attributes:
        title: title of the page.
        is_comparison: whether several runs are compared.
        lead: the sentence below the title.
        protocol: (name, value) pairs of the protocol.
        differing: protocol attributes that differ between compared runs.
        overview: None if no direction has the metric of the overview.
    """

    title: str
    is_comparison: bool
    lead: Lead
    protocol: tuple[tuple[str, str], ...]
    differing: tuple[str, ...]
    overview: Overview | None


def summary_view(study: Study) -> Summary:
    """Return title, lead sentence, protocol and overview."""
    first = study.runs[0].data
    protocol = _protocol(first.attributes, original=first.original_only)
    return Summary(study.title, study.is_comparison, _lead(study), protocol, _differing(study), _overview(study))


def _lead(study: Study) -> Lead:
    attributes = study.runs[0].data.attributes
    if not {"queries", "query_split", "archive_size", "archive_split"} <= attributes.keys():
        return Lead(study.is_comparison)
    return Lead(
        study.is_comparison,
        queries=f"{attributes['queries']:,}",
        query_split=str(attributes["query_split"]),
        archive_size=f"{attributes['archive_size']:,}",
        archive_split=str(attributes["archive_split"]),
        verdict=_verdict(study),
    )


def _verdict(study: Study) -> Verdict | None:
    direction = study.directions[0]
    data = measured_sources(study, direction)[0][1]
    own, chance = headline(data.curves).get(OVERVIEW_METRIC), headline(data.chance).get(OVERVIEW_METRIC)
    if own is None or chance is None or study.is_comparison:
        return None
    return Verdict(direction_heading(direction), format_value(own), format_value(chance))


def _protocol(attributes: dict[str, Any], *, original: bool) -> tuple[tuple[str, str], ...]:
    known = {
        "Protocol": attributes.get("protocol"),
        "Queries": _size(attributes, "query_split", "queries"),
        "Archive": _size(attributes, "archive_split", "archive_size"),
        "Distance": attributes.get("distance"),
        "Codes": _codes(attributes),
        "Vectors": attributes.get("feature_kind"),
        "Ranks kept": attributes.get("k"),
        "Convention": "original scripts" if original else attributes.get("convention", "standard"),
    }
    return tuple(
        (name, f"{value:,}" if isinstance(value, int) else str(value))
        for name, value in known.items()
        if value is not None
    )


def _codes(attributes: dict[str, Any]) -> str | None:
    if "code" not in attributes:
        return None
    told = f"{attributes['code']}, {attributes['code_bits']} bits"
    return f"{told}, {attributes['rerank']:,} candidates by cosine" if attributes.get("rerank") else told


def _size(attributes: dict[str, Any], split: str, size: str) -> str | None:
    return f"{attributes[split]}, {attributes[size]:,}" if split in attributes and size in attributes else None


def _differing(study: Study) -> tuple[str, ...]:
    """Return the protocol attributes that differ between the compared runs."""
    first = study.runs[0].data.attributes
    found = {key for run in study.runs for key in _SAME if run.data.attributes.get(key) != first.get(key)}
    return tuple(key.replace("_", " ") for key in sorted(found))


def _overview(study: Study) -> Overview | None:
    rows = tuple(row for direction in study.directions if (row := _overview_row(study, direction)) is not None)
    if not rows:
        return None
    styles = line_styles(study)
    entries = [KeyEntry("dot", study.sources[0].name)]
    entries += [KeyEntry(f"mark {styles[source.name]}", source_name(source.name)) for source in study.sources[1:]]
    has_chance = any(data.chance for source in study.runs for data in source.data.directions.values())
    has_intervals = any(data.intervals for data in study.runs[0].data.directions.values())
    return Overview(OVERVIEW_METRIC, rows, tuple(entries), has_chance, has_intervals)


def _overview_row(study: Study, direction: str) -> OverviewRow | None:
    measured = measured_sources(study, direction)
    found = [(source, data) for source, data in measured if OVERVIEW_METRIC in headline(data.curves)]
    if not found:
        return None
    heading, sentence = direction_heading(direction), direction_sentence(direction)
    values = [(source, headline(data.curves)[OVERVIEW_METRIC]) for source, data in found]
    interval = found[0][1].intervals.get(OVERVIEW_METRIC)
    track = dot_track(values[0][1], interval, _marks(study, values, [data for _, data in found]))
    if study.is_comparison:
        styles = line_styles(study)
        runs = [(source.name, value) for source, value in values if source.is_run]
        own = tuple(OverviewValue(format_value(value), styles[name]) for name, value in runs)
        return OverviewRow(heading, sentence, track, own, None)
    ends = None if interval is None else format_interval(*interval)
    return OverviewRow(heading, sentence, track, (OverviewValue(format_value(values[0][1])),), ends)


def _marks(study: Study, values: list[tuple[Source, float]], results: list[DirectionResult]) -> list[tuple[str, float]]:
    """Return CSS class and value of the reference values of the first source, chance last."""
    styles = line_styles(study)
    marks = [(styles[source.name], value) for source, value in values[1:]]
    chance = next((headline(data.chance).get(OVERVIEW_METRIC) for data in results if data.chance), None)
    return marks if chance is None else [*marks, ("chance", chance)]
