"""The gallery of a report: chosen queries with their first results, labels below, shared ones ticked."""

from __future__ import annotations

import base64

from bigearthnet_cbir.report.display_names import SENSOR_NAMES, short_class_name
from bigearthnet_cbir.report.html import Html, element, joined
from bigearthnet_cbir.report.sections import panels, section
from bigearthnet_cbir.report.view_model import Example, Gallery, Item, Study

REASON_TITLES = {
    "best": "among the best",
    "median": "in the middle",
    "worst": "among the worst",
    "random": "picked at random",
}


def gallery_section(study: Study) -> Html:
    """Return the gallery, or the sentence that says why there is none."""
    title = "Queries and what came back"
    gallery = study.gallery
    if gallery is None:
        return section("gallery", title, study.no_gallery) if study.no_gallery else joined()
    intro = (
        f"Queries chosen by their own {gallery.metric} in this direction, with their nearest patches. ✓ marks a label "
        "that the query has too; the number on the right is the distance. Optical images are in true colour; radar "
        "shows VV, VH and their difference (dB) as red, green and blue. All images of a sensor share one "
        "stretch (2 to 98 % of a typical patch), so that colours can be compared."
    )
    return section("gallery", title, intro, panels(study, lambda name: _direction(gallery, name)))


def _direction(gallery: Gallery, direction: str) -> Html | None:
    examples = gallery.examples.get(direction)
    return joined(*(_card(example, gallery.metric) for example in examples)) if examples else None


def _card(example: Example, metric: str) -> Html:
    heading = element(
        "header", element("h3", REASON_TITLES.get(example.reason, example.reason), class_=f"tag {example.reason}"),
        element("span", f"{metric} ", element("b", f"{example.score:.2f}"), class_="score"),
    )  # fmt: skip
    query = element("div", element("p", "Query", class_="rank"), *_pictures(example.query, "query"),
                    _labels(example.query, is_query=True), class_="query")  # fmt: skip
    results = [
        element("li", *_pictures(item, f"result {rank}"), _facts(rank, item), _labels(item, is_query=False))
        for rank, item in enumerate(example.results, start=1)
    ]
    return element("article", heading, element("div", query, element("ol", *results, class_="results"), class_="pair"),
                   class_="example card")  # fmt: skip


def _pictures(item: Item, role: str) -> list[Html]:
    return [
        element("img", data_image=key, alt=alternative(item, sensor, role), width="120", height="120",
                title=item.name, class_=sensor)
        for sensor, key in item.images.items()
    ]  # fmt: skip


def alternative(item: Item, sensor: str, role: str) -> str:
    """Return what an image shows, in words."""
    labels = ", ".join(item.labels) or "no labels"
    return f"{SENSOR_NAMES[sensor]} image of {role}: {labels}"


def _facts(rank: int, item: Item) -> Html:
    distance = "" if item.distance is None else f"{item.distance:.3g}"
    near = element("span", distance, class_="distance", title="distance to the query")
    return element("p", element("span", f"{rank}", class_="number"), near, class_="rank")


def _labels(item: Item, *, is_query: bool) -> Html:
    if not item.labels:
        return element("p", "no labels", class_="muted")
    entries = [_label(name, is_shared=not is_query and name in item.shared) for name in item.labels]
    return element("ul", *entries, class_="labels")


def _label(name: str, *, is_shared: bool) -> Html:
    mark = joined(element("span", "✓ ", aria_hidden="true"), element("span", "shared: ", class_="hidden"))
    return element("li", mark if is_shared else None, short_class_name(name), title=name,
                   class_="shared" if is_shared else None)  # fmt: skip


def image_data(gallery: Gallery | None) -> dict[str, str]:
    """Return every image once, as a data URI; the page's script hands them to the pictures."""
    if gallery is None:
        return {}
    return {
        key: "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
        for key, content in gallery.images.items()
    }
