"""Data model of a report: runs, baselines and gallery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bigearthnet_cbir.evaluation.bootstrap import Difference
from bigearthnet_cbir.report.display_names import source_name
from bigearthnet_cbir.results import DirectionResult, RunResults
from bigearthnet_cbir.storage.training_log import Scalar
from bigearthnet_cbir.types import DoubleArray

LINE_STYLES = 8
"""Number of line styles of runs; further runs repeat them."""


@dataclass(frozen=True)
class Source:
    """A source of results: the run, a baseline, or another run.

    Attributes:
        name: display name.
        data: its results.
        training: its training curves.
        is_run: whether it is a run and not a baseline.
    """

    name: str
    data: RunResults
    training: dict[str, Scalar] = field(default_factory=dict)
    is_run: bool = True


@dataclass(frozen=True)
class Item:
    """One patch in the gallery.

    Attributes:
        images: sensor -> key of the image in the gallery, in display order.
        labels: class names.
        shared: class names that the query also has.
        name: name of the patch.
        distance: distance to the query; None for the query itself.
    """

    images: dict[str, str]
    labels: tuple[str, ...]
    shared: frozenset[str]
    name: str
    distance: float | None = None


@dataclass(frozen=True)
class Example:
    """A query with its results: why it was sampled, its score, its results nearest first."""

    reason: str
    score: float
    query: Item
    results: tuple[Item, ...]


@dataclass(frozen=True)
class Gallery:
    """Examples by direction, and their images.

    Attributes:
        examples: direction -> sampled queries.
        images: key -> JPEG bytes.
        metric: metric by which the queries were sampled.
    """

    examples: dict[str, tuple[Example, ...]]
    images: dict[str, bytes]
    metric: str


@dataclass(frozen=True)
class Study:
    """A whole report.

    Attributes:
        title: title of the page.
        sources: the run and its baselines, or several runs.
        class_names: names of the label columns.
        gallery: None if there is none.
        no_gallery: reason for a missing gallery.
        folders: path of each run, for the provenance.
        differences: in a comparison, run -> direction -> headline metric -> difference from the first run.
        no_differences: reason for missing differences.
    """

    title: str
    sources: tuple[Source, ...]
    class_names: tuple[str, ...]
    gallery: Gallery | None = None
    no_gallery: str = ""
    folders: tuple[str, ...] = ()
    differences: Mapping[str, Mapping[str, Mapping[str, Difference]]] = field(default_factory=dict)
    no_differences: str = ""

    @property
    def runs(self) -> tuple[Source, ...]:
        """The sources that are runs."""
        return tuple(source for source in self.sources if source.is_run)

    @property
    def is_comparison(self) -> bool:
        """Whether several runs are compared."""
        return len(self.runs) > 1

    @property
    def directions(self) -> tuple[str, ...]:
        """Directions of any run, in the order of the first run that has them."""
        return tuple(dict.fromkeys(name for source in self.runs for name in source.data.directions))


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name, its CSS class, its curve."""

    name: str
    style: str
    values: DoubleArray


def measured_sources(study: Study, direction: str) -> list[tuple[Source, DirectionResult]]:
    """Return the sources with results of a direction, and these results."""
    return [
        (source, source.data.directions[direction]) for source in study.sources if direction in source.data.directions
    ]


def line_styles(study: Study) -> dict[str, str]:
    """Return the CSS class of each source: run-0, run-1 ... and base-0, base-1 ..."""
    counts = {"run": 0, "base": 0}
    found = {}
    for source in study.sources:
        kind = "run" if source.is_run else "base"
        found[source.name] = f"{kind}-{counts[kind] % LINE_STYLES}"
        counts[kind] += 1
    return found


def curve_lines(study: Study, direction: str, curve: str) -> list[Line]:
    """Return one curve of a direction: every source, then chance."""
    drawn = line_styles(study)
    found = [
        Line(source_name(source.name), drawn[source.name], data.curves[curve])
        for source, data in measured_sources(study, direction)
        if curve in data.curves
    ]
    for _, data in measured_sources(study, direction):
        if curve in data.chance:
            return [*found, Line("chance", "chance", data.chance[curve])]
    return found
