"""The metrics of a run as text: what utils/utils.py prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.report.console_tables import metrics_table
from bigearthnet_cbir.report.display_names import direction_title
from bigearthnet_cbir.results import DirectionResult, RunResults

MAP_RANKS: Final = (8, 16, 32, 64, 128, 1000)
DEFAULT_KEYS: Final = ("precision", "recall")


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
    return [_row(f"  {name}", _values(curves[key], ranks)) for name, curves in sources if key in curves]


def _values(curve: npt.NDArray[np.float64], ranks: Iterable[int]) -> list[str]:
    return [f"{curve[rank - 1]:.3f}" if rank <= len(curve) else "-" for rank in ranks]


def _row(label: str, cells: list[str]) -> str:
    return f"{label:<19}" + "".join(f" {cell:>5}" for cell in cells)
