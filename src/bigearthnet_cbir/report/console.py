"""The metrics of a run as text: the table of headline metrics, and the output of utils/utils.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.report.display_names import HEADLINE_NAMES, direction_title
from bigearthnet_cbir.results import DirectionResult, RunResults
from bigearthnet_cbir.types import DoubleArray

MAP_RANKS: Final = (8, 16, 32, 64, 128, 1000)
DEFAULT_KEYS: Final = ("precision", "recall")
_FIRST, _WIDTH = 19, 9
"""Widths of the first and of the other columns, without the space before each; a line has 79 characters."""


def describe_search(results: RunResults) -> str:
    """Return lines with the protocol: splits, sizes, convention, distance."""
    attributes = results.attributes
    if results.original_only:
        return "written by the original scripts: metrics in their convention (docs/metrics.md), no chance level known"
    left_out = int(attributes.get("queries_without_labels", 0))
    protocol = f"protocol {attributes['protocol']}: " if "protocol" in attributes else ""
    return (
        f"{protocol}{attributes['queries']:,} {attributes['query_split']} queries in {attributes['archive_size']:,} "
        f"{attributes['archive_split']} patches, {attributes.get('convention', 'standard')} convention\n"
        f"{describe_distance(attributes)} on {attributes['feature_kind']} vectors, top {attributes['k']:,}; "
        f"{left_out} queries without labels omitted"
    )


def describe_distance(attributes: Mapping[str, Any]) -> str:
    """Return what a search compared: "cosine", or "hamming on itq codes of 64 bits, 100 candidates by cosine"."""
    told = str(attributes["distance"])
    if "code" in attributes:
        told += f" on {attributes['code']} codes of {attributes['code_bits']} bits"
    if attributes.get("rerank"):
        told += f", {attributes['rerank']:,} candidates ordered by cosine,"
    return told


def run_text(
    results: RunResults,
    baselines: Mapping[str, RunResults],
    directions: Sequence[str] = (),
    keys: Sequence[str] = DEFAULT_KEYS,
    top: int = 10,
) -> str:
    """Return the text that utils/utils.py prints of a run.

    Args:
        results: results of the run.
        baselines: baseline results by name, shown below the run.
        directions: directions to show; if empty, all in the table, and the curves of the first.
        keys: curves to show.
        top: ranks of the curves to show.
    """
    shown = {name: found for name, found in results.directions.items() if not directions or name in directions}
    parts = [describe_search(results)]
    for name in list(shown) if directions else list(shown)[:1]:
        found = shown[name]
        others = {label: other.directions[name] for label, other in baselines.items() if name in other.directions}
        parts.append(_direction_text(direction_title(name), found, others, keys, top))
    parts.append(metrics_table(shown, baselines))
    return "\n\n".join(parts)


def _direction_text(
    title: str, found: DirectionResult, others: Mapping[str, DirectionResult], keys: Sequence[str], top: int
) -> str:
    lines = [title]
    length = min(top, max((len(found.curves[key]) for key in keys if key in found.curves), default=0))
    ranks = list(range(1, length + 1))
    if ranks:
        lines.append(_row("  rank", [f"{rank}" for rank in ranks]))
    for key in keys:
        lines += _curve_rows(key, key, ranks, found, {})
    curve = found.curves.get("average_precision")
    if curve is not None:
        ranks = sorted({min(rank, len(curve)) for rank in MAP_RANKS})
        lines.append(_row("  rank", [f"{rank}" for rank in ranks]))
        lines += _curve_rows("mAP", "average_precision", ranks, found, others)
    return "\n".join(lines)


def _curve_rows(
    label: str, key: str, ranks: list[int], found: DirectionResult, others: Mapping[str, DirectionResult]
) -> list[str]:
    sources = [(label, found.curves), ("  chance", found.chance)]
    sources += [(f"  {name}", other.curves) for name, other in others.items()]
    return [_row(f"  {name}", _at_ranks(curves[key], ranks)) for name, curves in sources if key in curves]


def _at_ranks(curve: DoubleArray, ranks: Iterable[int]) -> list[str]:
    return [f"{curve[rank - 1]:.3f}" if rank <= len(curve) else "-" for rank in ranks]


def _row(label: str, cells: list[str]) -> str:
    return f"{label:<19}" + "".join(f" {cell:>5}" for cell in cells)


def table_line(first: str, cells: Mapping[str, str]) -> str:
    """Return one line of a table of headline metrics; a missing metric is a dash."""
    return f"{first:<{_FIRST}}" + "".join(f" {cells.get(name, '-'):>{_WIDTH}}" for name in HEADLINE_NAMES)


def metrics_table(shown: Mapping[str, DirectionResult], baselines: Mapping[str, RunResults], title: str = "") -> str:
    """Return some lines per direction, then the chance level, which is equal for all directions, and notes.

    Args:
        shown: directions of the run.
        baselines: baseline results for the same pairs, by name; each is a line below the run.
        title: left cell of the header.
    """
    lines = [table_line(title, {name: name for name in HEADLINE_NAMES})]
    for direction, found in shown.items():
        lines.append(table_line(direction_title(direction), _values(found.curves)))
        rows = _rows_below(found)
        rows += [
            (name, _values(other.directions[direction].curves))
            for name, other in baselines.items()
            if direction in other.directions
        ]
        lines += [table_line(f"  {name}", cells) for name, cells in rows]
    chance = next((found.chance for found in shown.values() if found.chance), None)
    if chance is not None:
        lines.append(table_line("chance", _values(chance)))
    return "\n".join([*lines, *_notes(shown)])


def _values(curves: Mapping[str, DoubleArray]) -> dict[str, str]:
    return {name: f"{value:.3f}" for name, value in headline(curves).items()}


def _rows_below(found: DirectionResult) -> list[tuple[str, dict[str, str]]]:
    rows = []
    if found.intervals:
        rows.append(("95 %", {name: _interval(ends) for name, ends in found.intervals.items()}))
    if found.tie_aware is not None:
        rows.append(("tie-aware", _values(found.tie_aware.curves)))
    if found.exclude_within is not None:
        rows.append(("no neighbours", _values(found.exclude_within.curves)))
    return rows


def _interval(ends: tuple[float, float]) -> str:
    """Return both limits with four characters each, .250-.750; "1.000" would fill the space between columns."""
    if np.isnan(ends).any():
        return "-"
    return "-".join(f"{end:.3f}".removeprefix("0")[:4] for end in ends)


def _notes(shown: Mapping[str, DirectionResult]) -> list[str]:
    ties = [found.tie_aware.numbers for found in shown.values() if found.tie_aware is not None]
    within = next((found.exclude_within for found in shown.values()), None)
    return [*(_tie_notes(ties) if ties else []), *(_exclusion_notes(within.numbers) if within is not None else [])]


def _tie_notes(ties: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the number of results at the distance of rank 10, over all directions."""
    means = [numbers["mean_group"] for numbers in ties]
    largest, cut = max(numbers["largest_group"] for numbers in ties), sum(numbers["cut_queries"] for numbers in ties)
    notes = [
        f"tie-aware: {min(means):.1f} to {max(means):.1f} results on average tie with the tenth, {largest:,.0f} at most"
    ]
    if cut:
        notes.append(f"           {cut:,.0f} of these groups continue beyond the list; increase top_k")
    return notes


def _exclusion_notes(numbers: Mapping[str, float]) -> list[str]:
    """Return the numbers of excluded archive patches and of affected queries."""
    radius, dropped, queries, left_out = (
        numbers.get(name, math.nan) for name in ("radius", "dropped_mean", "dropped_queries", "queries_left_out")
    )
    return [
        f"no neighbours: radius {radius:.0f} or same acquisition, {dropped:,.1f} excluded per query;",
        f"               {queries:,.0f} queries affected, {left_out:,.0f} omitted (too few results left)",
    ]
