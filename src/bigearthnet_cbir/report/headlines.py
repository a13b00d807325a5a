"""The table of headline figures: the run with its intervals, what it is compared with, and chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from bigearthnet_cbir.evaluation.summary import HEADLINES, headline
from bigearthnet_cbir.storage.results import DirectionResults, RunResults
from bigearthnet_cbir.types import DoubleArray

DIRECTION_WORDS: Final = {
    "fused": "fused -> fused",
    "s1_s1": "S1 -> S1",
    "s2_s2": "S2 -> S2",
    "s1_s2": "S1 -> S2",
    "s2_s1": "S2 -> S1",
    "s1_fused": "S1 -> fused",
    "s2_fused": "S2 -> fused",
}
NAMES: Final = tuple(name for name, _, _ in HEADLINES)
_WIDTH: Final = 11


def table_line(first: str, second: str, cells: Mapping[str, str]) -> str:
    """Return one line of a table of headline figures; a figure that is not in `cells` is a dash."""
    return f"{first:<16}{second:<18}" + "".join(f"{cells.get(name, '-'):>{_WIDTH}}" for name in NAMES)


def headline_table(
    shown: Mapping[str, DirectionResults], baselines: Mapping[str, RunResults], label: str = "this run"
) -> str:
    """Return a few lines per direction, then the chance level, which is the same for all, and notes.

    Args:
        shown: directions of the run.
        baselines: other results for the same pairs, by name.
        label: what the run is called.
    """
    lines = [table_line("direction", "features", {name: name for name in NAMES})]
    for direction, found in shown.items():
        rows = _rows(found, label)
        rows += [
            (name, _figures(other.directions[direction].curves))
            for name, other in baselines.items()
            if direction in other.directions
        ]
        for position, (name, cells) in enumerate(rows):
            lines.append(table_line(DIRECTION_WORDS[direction] if position == 0 else "", name, cells))
    chance = next((found.chance for found in shown.values() if found.chance), None)
    if chance is not None:
        lines.append(table_line("any", "chance", _figures(chance)))
    return "\n".join([*lines, *_notes(shown)])


def _figures(curves: Mapping[str, DoubleArray]) -> dict[str, str]:
    return {name: f"{value:.3f}" for name, value in headline(curves).items()}


def _rows(found: DirectionResults, label: str) -> list[tuple[str, dict[str, str]]]:
    told = found.statistics
    rows = [(label, _figures(found.curves))]
    if told.intervals:
        rows.append(("  95 %", {name: _interval(ends) for name, ends in told.intervals.items()}))
    if told.tie_aware is not None:
        rows.append(("  tie-aware", _figures(told.tie_aware.curves)))
    if told.exclude_within is not None:
        rows.append(("  no neighbours", _figures(told.exclude_within.curves)))
    return rows


def _interval(ends: DoubleArray) -> str:
    if np.isnan(ends).any():
        return "-"
    return "-".join(f"{end:.3f}".removeprefix("0") for end in ends)


def _notes(shown: Mapping[str, DirectionResults]) -> list[str]:
    notes = []
    ties = [(name, found.statistics.tie_aware) for name, found in shown.items()]
    groups = [f"{name} {item.numbers['mean_group']:.1f}" for name, item in ties if item is not None]
    if groups:
        largest = max(item.numbers["largest_group"] for _, item in ties if item is not None)
        cut = sum(item.numbers["cut_queries"] for _, item in ties if item is not None)
        notes.append(f"tied at rank 10, mean: {', '.join(groups)}; at most {largest:,.0f}")
        if cut:
            notes.append(f"tie-aware: {cut:,.0f} times that group goes on beyond the list, seen in part: raise top_k")
    within = next((found.statistics.exclude_within for found in shown.values()), None)
    if within is not None:
        told = within.numbers
        notes.append(
            f"no neighbours: {told['dropped_mean']:,.1f} patches a query dropped, within {told['radius']:.0f} of it "
            f"or of its acquisition; {told['dropped_queries']:,.0f} queries lose some, "
            f"{told['queries_left_out']:,.0f} left out"
        )
    return notes
