"""Gallery of a report: sampled queries with their first results and labels; shared labels are ticked."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final, NamedTuple

from bigearthnet_cbir.report.display_names import SENSOR_NAMES, direction_heading, short_class_name
from bigearthnet_cbir.report.view_model import Example, Gallery, Item, Study

REASON_TITLES: Final = {
    "best": "among the best",
    "median": "around the median",
    "worst": "among the worst",
    "random": "random",
}


class ImageView(NamedTuple):
    """An image: its key, its sensor, and its text alternative."""

    key: str
    sensor: str
    alt: str


class LabelView(NamedTuple):
    """A class: its name, its short name, and whether a result shares it with the query."""

    name: str
    short: str
    is_shared: bool


@dataclass(frozen=True)
class PatchView:
    """A patch of the gallery; rank and distance are empty for the query.

    Attributes:
        name: name of the patch.
        images: one per shown sensor.
        labels: its classes.
        rank: rank of a result, from 1.
        distance: distance to the query.
    """

    name: str
    images: tuple[ImageView, ...]
    labels: tuple[LabelView, ...]
    rank: str = ""
    distance: str = ""


@dataclass(frozen=True)
class ExampleView:
    """A query with its results: why it was sampled, its score, the patches."""

    reason: str
    reason_title: str
    score: str
    query: PatchView
    results: tuple[PatchView, ...]


class GalleryPanel(NamedTuple):
    """The examples of a direction."""

    direction: str
    title: str
    examples: tuple[ExampleView, ...]


@dataclass(frozen=True)
class GalleryView:
    """The section.

    Attributes:
        missing: reason for a missing gallery; else empty.
        metric: metric by which the queries were sampled.
        panels: the directions with examples.
    """

    missing: str
    metric: str = ""
    panels: tuple[GalleryPanel, ...] = ()


def gallery_view(study: Study) -> GalleryView | None:
    """Return the gallery or the reason why it is missing, or None without both."""
    if study.gallery is None:
        return GalleryView(study.no_gallery) if study.no_gallery else None
    examples = study.gallery.examples
    panels = tuple(
        GalleryPanel(direction, direction_heading(direction), tuple(map(_example, examples[direction])))
        for direction in study.directions
        if examples.get(direction)
    )
    return GalleryView("", study.gallery.metric, panels)


def _example(example: Example) -> ExampleView:
    title = REASON_TITLES.get(example.reason, example.reason)
    results = tuple(_result(item, rank) for rank, item in enumerate(example.results, start=1))
    return ExampleView(example.reason, title, f"{example.score:.2f}", _query(example.query), results)


def _query(item: Item) -> PatchView:
    return PatchView(item.name, _images(item, "query"), _labels(item, frozenset()))


def _result(item: Item, rank: int) -> PatchView:
    distance = "" if item.distance is None else f"{item.distance:.3g}"
    return PatchView(item.name, _images(item, f"result {rank}"), _labels(item, item.shared), f"{rank}", distance)


def _images(item: Item, role: str) -> tuple[ImageView, ...]:
    labels = ", ".join(item.labels) or "no labels"
    return tuple(
        ImageView(key, sensor, f"{SENSOR_NAMES[sensor]} image of {role}: {labels}")
        for sensor, key in item.images.items()
    )


def _labels(item: Item, shared: frozenset[str]) -> tuple[LabelView, ...]:
    return tuple(LabelView(name, short_class_name(name), name in shared) for name in item.labels)


def image_data(gallery: Gallery | None) -> dict[str, str]:
    """Return every image once as a data URI; the page's script assigns them to the img elements."""
    if gallery is None:
        return {}
    return {
        key: "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
        for key, content in gallery.images.items()
    }
