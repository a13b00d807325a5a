"""The page of one query: the query and its results as one self-contained HTML file."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from bigearthnet_cbir.report.display_names import SENSOR_NAMES, short_class_name
from bigearthnet_cbir.report.gallery_section import ImageView, LabelView
from bigearthnet_cbir.report.render import asset, environment

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class PagePatch:
    """A patch on the page.

    Attributes:
        name: of the patch.
        rank: from 1; 0 for the query patch.
        distance: to the query.
        labels: class names.
        shared: the class names that the query has too.
        facts: date, country and coordinates, if known.
        images: keys of its images by sensor; empty if the archive is missing.
    """

    name: str
    rank: int
    distance: float
    labels: tuple[str, ...]
    shared: frozenset[str]
    facts: tuple[str, ...]
    images: dict[str, str]

    @property
    def image_views(self) -> tuple[ImageView, ...]:
        """Its images with their text alternatives."""
        role = f"result {self.rank}" if self.rank else "the query"
        told = ", ".join(self.labels) or "no labels"
        return tuple(
            ImageView(key, sensor, f"{SENSOR_NAMES[sensor]} image of {role}: {told}")
            for sensor, key in self.images.items()
        )

    @property
    def label_views(self) -> tuple[LabelView, ...]:
        """Its labels in short forms that fit below an image."""
        return tuple(LabelView(label, short_class_name(label), label in self.shared) for label in self.labels)


@dataclass(frozen=True)
class QueryPage:
    """The content of the page.

    Attributes:
        question: description of the query in words.
        facts: name and value of each search setting.
        asked: the query patch, if it is in the index.
        hits: nearest first.
        images: key -> JPEG.
    """

    question: str
    facts: tuple[tuple[str, str], ...]
    asked: tuple[PagePatch, ...]
    hits: tuple[PagePatch, ...]
    images: dict[str, bytes] = field(default_factory=dict)


def render_query_page(page: QueryPage) -> str:
    """Return the whole page. All text is escaped, and its content security policy forbids all scripts and requests."""
    images = {key: "data:image/jpeg;base64," + base64.b64encode(jpeg).decode() for key, jpeg in page.images.items()}
    return (
        environment()
        .get_template("query.html.j2")
        .render(page=page, images=images, style=asset("report.css"), policy=_POLICY)
    )
