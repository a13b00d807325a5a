"""Gallery of a report: samples queries of a run, and reads the images of queries and results."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import CbirError
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.metrics import per_query_values
from bigearthnet_cbir.pipelines.patch_images import PatchImages
from bigearthnet_cbir.report.display_names import query_sensors, result_sensor
from bigearthnet_cbir.report.query_sampling import sample_queries
from bigearthnet_cbir.report.view_model import Example, Gallery, Item
from bigearthnet_cbir.results import RunResults
from bigearthnet_cbir.storage.feature_stamps import check_measured_with
from bigearthnet_cbir.storage.features import read_labels, read_names
from bigearthnet_cbir.storage.results import read_neighbours
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import DoubleArray, Neighbours, PatchPair

logger = logging.getLogger(__name__)

SHOWN_RESULTS: Final = 10
SAMPLING_METRIC: Final = "F1@5"


@dataclass(frozen=True)
class GalleryPatches:
    """Data for the examples of all directions.

    Attributes:
        queries, archive: names of the pairs.
        truth: labels of the pairs.
        class_names: names of the label columns.
        images: images of the patches.
    """

    queries: list[PatchPair]
    archive: list[PatchPair]
    truth: GroundTruth
    class_names: tuple[str, ...]
    images: PatchImages

    def examples(self, direction: str, neighbours: Neighbours, count: int, seed: int) -> tuple[Example, ...]:
        """Return `count` sampled queries of a direction with their results."""
        scores, tie_breaker = self._scores(neighbours)
        return tuple(
            self._example(direction, neighbours, query, reason, float(scores[query]))
            for reason, query in sample_queries(scores, tie_breaker, count, seed)
        )

    def _scores(self, neighbours: Neighbours) -> tuple[DoubleArray, DoubleArray]:
        """Return the pairwise F1@5 and the NDCG@10 of each query, or the values at the last rank."""
        length = neighbours.indices.shape[1]
        ranks = (min(5, length), length)
        values = per_query_values(self.truth, neighbours.indices, ranks)
        return values["f1score"][:, 0], values["normalized_discounted_cumulative_gains"][:, 1]

    def _example(self, direction: str, neighbours: Neighbours, query: int, reason: str, score: float) -> Example:
        labels = self._names(self.truth.query_labels[query])
        results = tuple(
            self._result(direction, int(index), float(distance), frozenset(labels))
            for index, distance in zip(neighbours.indices[query], neighbours.distances[query], strict=True)
        )
        pair = self.queries[query]
        images = {sensor: self.images.key(sensor, pair) for sensor in query_sensors(direction)}
        return Example(reason, score, Item(images, labels, frozenset(), pair.s2), results)

    def _result(self, direction: str, index: int, distance: float, wanted: frozenset[str]) -> Item:
        labels, pair = self._names(self.truth.archive_labels[index]), self.archive[index]
        sensor = result_sensor(direction)
        return Item({sensor: self.images.key(sensor, pair)}, labels, wanted & frozenset(labels), pair.s2, distance)

    def _names(self, row: npt.NDArray[np.integer]) -> tuple[str, ...]:
        return tuple(self.class_names[column] for column in np.flatnonzero(row))


def collect_gallery(
    folder: RunFolder, data: RunResults, class_names: tuple[str, ...], *, queries: int, seed: int
) -> Gallery | str:
    """Return the gallery of a run, or the reason why there is none.

    Args:
        folder: run folder.
        data: results of the run.
        class_names: names of the label columns.
        queries: number of queries per direction.
        seed: seed of the random queries.
    """
    stores = [data.configuration.get(f"bigEarthPthLMDB_{sensor}") for sensor in ("S1", "S2")]
    if queries < 1:
        return "No gallery: the number of queries is 0."
    if not all(isinstance(store, str) and store for store in stores):
        return "No gallery: the results have no paths of the patch stores."
    try:
        patches = _read_patches(folder, data, class_names, PatchImages(Path(str(stores[0])), Path(str(stores[1]))))
        examples = {
            direction: patches.examples(
                direction, read_neighbours(folder.retrieval, direction, SHOWN_RESULTS), queries, seed
            )
            for direction, found in data.directions.items()
            if found.depth
        }
        return Gallery(examples, patches.images.encoded(), SAMPLING_METRIC)
    except CbirError as error:
        logger.warning("the report has no gallery: %s", error)
        return f"No gallery: the patches cannot be read. {error}"


def _read_patches(
    folder: RunFolder, data: RunResults, class_names: tuple[str, ...], images: PatchImages
) -> GalleryPatches:
    for side, features in (("query", folder.query), ("archive", folder.archive)):
        check_measured_with(features, side, data.attributes, folder.retrieval)
    truth = GroundTruth.of(read_labels(folder.query), read_labels(folder.archive))
    return GalleryPatches(read_names(folder.query), read_names(folder.archive), truth, class_names, images)
