"""The metrics of a run as text: the table that every command prints, and all that utils/utils.py prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.report.display_names import HEADLINE_NAMES, direction_title
from bigearthnet_cbir.results import DirectionResult, RunResults
from bigearthnet_cbir.types import DoubleArray

MAP_RANKS: Final = (8, 16, 32, 64, 128, 1000)
DEFAULT_KEYS: Final = ("precision", "recall")
_FIRST, _WIDTH = 19, 9
"""Characters of the table's first column and of the others, each with a space before it; a line has 79."""


def describe_search(results: RunResults) -> str:
    """Return lines on how the search was measured: protocol, splits, sizes, convention, distance."""
    attributes = results.attributes
    if results.original_only:
        return "written by the original scripts: metrics in their convention (docs/metrics.md), no chance level known"
    left_out = int(attributes.get("queries_without_labels", 0))
    protocol = f"protocol {attributes['protocol']}: " if "protocol" in attributes else ""
    return (
        f"{protocol}{attributes['queries']:,} {attributes['query_split']} queries in {attributes['archive_size']:,} "
        f"{attributes['archive_split']} patches, {attributes.get('convention', 'standard')} convention\n"
        f"{attributes['distance']} on {attributes['feature_kind']} vectors, top {attributes['k']:,}; "
        f"{left_out} queries without labels left out"
    )


def run_text(
    results: RunResults,
    baselines: Mapping[str, RunResults],
    directions: Sequence[str] = (),
    keys: Sequence[str] = DEFAULT_KEYS,
    top: int = 10,
) -> str:
    """Return everything utils/utils.py prints of one run.

    Args:
        results: of the run.
        baselines: of the same splits, by name; shown beside the run.
        directions: those to show; where empty, all in the table, and the curves of the first.
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
    """Return one line of a table of headline metrics; a metric that is not in `cells` is a dash."""
    return f"{first:<{_FIRST}}" + "".join(f" {cells.get(name, '-'):>{_WIDTH}}" for name in HEADLINE_NAMES)


def metrics_table(shown: Mapping[str, DirectionResult], baselines: Mapping[str, RunResults], title: str = "") -> str:
    """Return a few lines per direction, then the chance level, which is the same for all, and notes.

    Args:
        shown: directions of the run.
        baselines: other results for the same pairs, by name; each gets a line below the run's.
        title: stands at the left of the header.
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
    """Return both ends in four characters each, .250-.750: with "1.000" the columns of a table would touch."""
    if np.isnan(ends).any():
        return "-"
    return "-".join(f"{end:.3f}".removeprefix("0")[:4] for end in ends)


def _notes(shown: Mapping[str, DirectionResult]) -> list[str]:
    ties = [found.tie_aware.numbers for found in shown.values() if found.tie_aware is not None]
    within = next((found.exclude_within for found in shown.values()), None)
    return [*(_tie_notes(ties) if ties else []), *(_exclusion_notes(within.numbers) if within is not None else [])]


def _tie_notes(ties: Sequence[Mapping[str, float]]) -> list[str]:
    """Return how many results share the distance of a query's tenth, over all directions."""
    means = [numbers["mean_group"] for numbers in ties]
    largest, cut = max(numbers["largest_group"] for numbers in ties), sum(numbers["cut_queries"] for numbers in ties)
    notes = [
        f"tie-aware: {min(means):.1f} to {max(means):.1f} results share the tenth's distance, {largest:,.0f} at most"
    ]
    if cut:
        notes.append(f"           {cut:,.0f} of these groups continue beyond the list: raise top_k")
    return notes


def _exclusion_notes(numbers: Mapping[str, float]) -> list[str]:
    """Return how many archive patches the spatial exclusion drops, and how many queries that concerns."""
    radius, dropped, queries, left_out = (
        numbers.get(name, math.nan) for name in ("radius", "dropped_mean", "dropped_queries", "queries_left_out")
    )
    return [
        f"no neighbours: radius {radius:.0f} or of the acquisition, {dropped:,.1f} dropped a query;",
        f"               {queries:,.0f} queries lose some, {left_out:,.0f} keep too few and are left out",
    ]
