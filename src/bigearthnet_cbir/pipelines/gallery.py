"""Chooses the queries of a report's gallery and reads their patches and those of what they found."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.errors import CbirError
from bigearthnet_cbir.evaluation.metrics import per_query_values
from bigearthnet_cbir.report.display_names import direction_words
from bigearthnet_cbir.report.query_sampling import sample_queries
from bigearthnet_cbir.report.rgb import QUALITIES, RGB_BANDS, downsample, encode_jpeg, stretch, stretch_limits, to_rgb
from bigearthnet_cbir.report.view_model import Example, Gallery, Item
from bigearthnet_cbir.results import RunResults
from bigearthnet_cbir.storage.features import check_measured_with, read_labels, read_names
from bigearthnet_cbir.storage.results import read_neighbours
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import ByteArray, DoubleArray, FloatArray, Neighbours, PatchPair

logger = logging.getLogger(__name__)

TOP = 10
METRIC = "F1@5"
BUDGET = 6_500_000
"""Bytes of all pictures together; as text in the page they take a third more, so that it stays below 10 MB."""


class Side(NamedTuple):
    """The queries or the archive: names and labels of their patches."""

    names: list[PatchPair]
    labels: ByteArray


class PatchImages:
    """Reads the patches that a gallery shows, each once.

    Args:
        s1: LMDB folder with the Sentinel-1 patches.
        s2: the same of Sentinel-2.
        shrink: pixels along each side that are averaged into one.
    """

    def __init__(self, s1: Path, s2: Path, shrink: int = 1) -> None:
        self._shrink = shrink
        self._stores = {"s1": PatchStore(s1), "s2": PatchStore(s2)}
        self._keys: dict[tuple[str, str], str] = {}
        self._values: dict[str, FloatArray] = {}

    def key(self, sensor: str, pair: PatchPair) -> str:
        """Return the key of a pair's picture, having read its patch.

        Raises:
            DataError: the store or the patch cannot be read.
        """
        store = self._stores[sensor]
        name = store.s1_name(pair) if sensor == "s1" else pair.s2
        if (sensor, name) not in self._keys:
            bands = RGB_BANDS[sensor]
            values = to_rgb(sensor, dict(zip(bands, store.read_bands(name, bands), strict=True)))
            key = self._keys[sensor, name] = f"{sensor}-{len(self._keys)}"
            self._values[key] = downsample(values, self._shrink) if self._shrink > 1 else values
        return self._keys[sensor, name]

    def pixels(self) -> dict[str, ByteArray]:
        """Return every picture, stretched alike with the others of its sensor."""
        found: dict[str, ByteArray] = {}
        for sensor in self._stores:
            values = {key: value for key, value in self._values.items() if key.startswith(sensor)}
            if values:
                bounds = stretch_limits(list(values.values()))
                found |= {key: stretch(value, bounds) for key, value in values.items()}
        return found

    def encoded(self) -> dict[str, bytes]:
        """Return every picture as JPEG, of the highest quality with which all fit into BUDGET, else of the lowest."""
        pictures = self.pixels()
        found: dict[str, bytes] = {}
        for quality in QUALITIES:
            found = {key: encode_jpeg(pixels, quality) for key, pixels in pictures.items()}
            if sum(map(len, found.values())) <= BUDGET:
                break
        return found


def collect_gallery(
    folder: RunFolder, data: RunResults, class_names: tuple[str, ...], *, queries: int, seed: int
) -> Gallery | str:
    """Return the gallery of a run, or one sentence that says why there is none.

    Args:
        folder: of the run.
        data: its results.
        class_names: of the label columns.
        queries: how many in each direction.
        seed: of the random ones.
    """
    places = [data.configuration.get(f"bigEarthPthLMDB_{sensor}") for sensor in ("S1", "S2")]
    if queries < 1:
        return "No gallery: it was asked for with 0 queries."
    if not all(isinstance(place, str) and place for place in places):
        return "No gallery: the results do not say where the patch stores are."
    try:
        for side, features in (("query", folder.query), ("archive", folder.archive)):
            check_measured_with(features, side, data.attributes, folder.retrieval)
        asked = Side(read_names(folder.query), read_labels(folder.query))
        archive = Side(read_names(folder.archive), read_labels(folder.archive))
        pictures = PatchImages(Path(str(places[0])), Path(str(places[1])))
        examples = {}
        for direction, found in data.directions.items():
            if found.depth:
                near = read_neighbours(folder.retrieval, direction, TOP)
                examples[direction] = _examples(direction, near, asked, archive, class_names, pictures, queries, seed)
        return Gallery(examples, pictures.encoded(), METRIC)
    except CbirError as error:
        logger.warning("the report gets no gallery: %s", error)
        return f"No gallery: the patches cannot be read. {error}"


def _examples(
    direction: str,
    near: Neighbours,
    asked: Side,
    archive: Side,
    class_names: tuple[str, ...],
    pictures: PatchImages,
    queries: int,
    seed: int,
) -> tuple[Example, ...]:
    words = direction_words(direction)
    scores, finer = _scores(near, asked.labels, archive.labels)
    found = []
    for reason, query in sample_queries(scores, finer, queries, seed):
        own = _labels(asked.labels[query], class_names)
        results = []
        for position, distance in zip(near.indices[query], near.distances[query], strict=True):
            labels = _labels(archive.labels[position], class_names)
            pair = archive.names[position]
            images = {sensor: pictures.key(sensor, pair) for sensor in words.result_sensors}
            results.append(Item(images, labels, frozenset(labels) & frozenset(own), pair.s2, float(distance)))
        pair = asked.names[query]
        images = {sensor: pictures.key(sensor, pair) for sensor in words.query_sensors}
        item = Item(images, own, frozenset(), pair.s2)
        found.append(Example(reason, float(scores[query]), item, tuple(results)))
    return tuple(found)


def _scores(near: Neighbours, asked: ByteArray, archive: ByteArray) -> tuple[DoubleArray, DoubleArray]:
    """Return every query's F1@5 (mean of the pairs' F1) and, finer, its NDCG@10, at fewer where fewer are kept."""
    length = near.indices.shape[1]
    ranks = (min(5, length), length)
    values = per_query_values(asked, archive, np.ascontiguousarray(near.indices), ranks)
    return values["f1score"][:, 0], values["normalized_discounted_cumulative_gains"][:, 1]


def _labels(row: ByteArray, class_names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(class_names[column] for column in np.flatnonzero(row))
