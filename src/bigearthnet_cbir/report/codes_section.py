"""The codes section of a report: quality against bytes per patch during a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from bigearthnet_cbir.evaluation.summary import at_rank
from bigearthnet_cbir.report.charts import Chart, LegendEntry, size_chart
from bigearthnet_cbir.report.display_names import direction_heading
from bigearthnet_cbir.report.number_format import format_value
from bigearthnet_cbir.report.view_model import Line, Study, measured_sources
from bigearthnet_cbir.results import CodeQuality

_TICKS: Final = 2
_STYLES: Final = ("chance", "run-0", "run-1", "run-2", "run-3", "run-4", "run-5")


class CodesPanel(NamedTuple):
    """A direction: its chart, its lines with their best values, and the recall of re-ranking."""

    direction: str
    title: str
    chart: Chart
    legend: tuple[LegendEntry, ...]
    recall: str


@dataclass(frozen=True)
class CodesView:
    """The section.

    Attributes:
        searched: description of the run's own search.
        panels: one per direction.
    """

    searched: str
    panels: tuple[CodesPanel, ...]


def codes_view(study: Study) -> CodesView | None:
    """Return the comparison of codes of one run; None for several runs, and if the search did not use codes."""
    codes, told = study.runs[0].data.codes, study.runs[0].data.attributes
    if study.is_comparison or not codes:
        return None
    searched = f"{told.get('code')} codes of {told.get('code_bits')} bits"
    if told.get("rerank"):
        searched += f", the nearest {told['rerank']:,} of them ordered by cosine"
    measured = {row.direction for row in codes}
    panels = tuple(_panel(study, codes, name) for name in study.directions if name in measured)
    return CodesView(searched, panels)


def _panel(study: Study, codes: tuple[CodeQuality, ...], direction: str) -> CodesPanel:
    rows = [row for row in codes if row.direction == direction]
    most = max(row.bytes for row in rows)
    lines: list[tuple[Line, list[float]]] = []
    legend = []
    for method, style in zip(dict.fromkeys(row.method for row in rows), _STYLES, strict=False):
        mine = sorted((row.bytes, row.f1) for row in rows if row.method == method)
        if len(mine) == 1:  # one size: a level line from it on; floats, the largest, over the full width
            ((size, value),) = mine
            mine = [(size if size < most else 2, value), (most, value)]
            label = f"{method} ({size:,} bytes)"
        else:
            label = method
        sizes, values = [float(size) for size, _ in mine], [value for _, value in mine]
        lines.append((Line(label, style, np.array(values)), sizes))
        legend.append(LegendEntry(label, style, format_value(max(values))))
    ticks = sorted({row.bytes for row in rows if row.bytes >= _TICKS})
    title = direction_heading(direction)
    ends = ", ".join(f"{line.name} up to {line.values.max():.3f}" for line, _ in lines)
    label = f"F1@10 against bytes a patch, logarithmic, {title}: {ends}."
    return CodesPanel(direction, title, size_chart(lines, ticks, label), tuple(legend), _recall(study, direction))


def _recall(study: Study, direction: str) -> str:
    """Return a sentence on the re-ranked lists, or an empty text without re-ranking."""
    found = measured_sources(study, direction)[0][1].rerank
    if found is None or "recall_of_cosine" not in found.curves:
        return ""
    curve, candidates = found.curves["recall_of_cosine"], int(found.numbers.get("candidates", 0))
    ranks = sorted({min(rank, len(curve)) for rank in (1, 10, 100)})
    told = ", ".join(f"{format_value(at_rank(curve, rank))} at {rank}" for rank in ranks)
    return f"Recall of the exact cosine lists with {candidates:,} candidates, mean over the queries: {told}."
