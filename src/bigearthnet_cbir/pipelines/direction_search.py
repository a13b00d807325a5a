"""Search of the directions of a run in its feature files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.pipelines.builders import choose_device
from bigearthnet_cbir.query.missing_modality import MissingModality
from bigearthnet_cbir.search.binary_codes import codes_of, median_thresholds
from bigearthnet_cbir.search.knn import iter_search
from bigearthnet_cbir.search.ray_backend import iter_search_on_ray, ray_session
from bigearthnet_cbir.search.rows import Sliceable
from bigearthnet_cbir.search.torch_backend import iter_search_on_device
from bigearthnet_cbir.storage.features import DATASETS, FEATURES, open_features
from bigearthnet_cbir.storage.partial import PartialSearch
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import Neighbours

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DirectionSearch:
    """Searches the archive features of a run, on Ray workers if configured.

    Attributes:
        config: configuration of the run.
        query: the open query.h5.
        archive: the open archive.h5.
    """

    config: Config
    query: h5py.File
    archive: h5py.File

    def search(
        self, direction: str, k: int, exclude: Sliceable | None, rows: PartialSearch, rule: str = ""
    ) -> Neighbours:
        """Search the unfinished rows of a direction, and return all rows as views of their files.

        Args:
            direction: name of the direction.
            k: neighbours per query.
            exclude: (Q, E) excluded archive positions per query, padded with -1; or None.
            rows: files of the rows, opened for Q queries and k.
            rule: description of `exclude` for the log.
        """
        title = f"{direction} {rule}".strip()
        queries, vectors = self._sides(direction)
        start, size = rows.finished(direction), len(vectors)
        began = time.perf_counter()
        bar = tqdm(
            total=len(queries) * size, initial=start * size, desc=f"search {title}", unit="pair", unit_scale=True,
            disable=None,
        )  # fmt: skip
        with bar:
            for position, found in self._blocks(queries, vectors, k, exclude, start):
                rows.store(direction, position, found)
                bar.update(len(found.indices) * size)
        seconds = time.perf_counter() - began
        compared = (len(queries) - start) * size
        rate = compared / seconds
        logger.info("searched %s: %s distances, %.1f s, %.3g pairs/s", title, f"{compared:,}", seconds, rate)
        return rows.neighbours(direction)

    def _sides(self, direction: str) -> tuple[Any, Any]:
        """Return the vectors of queries and archive, or for Hamming their codes.

        Queries are thresholded at the medians of the archive's features of the same sensor.
        """
        queries, vectors = (
            self._query_side(direction, self.query),
            self.archive[DATASETS[DIRECTIONS[direction].archive]],
        )
        if self.config.distance != "hamming":
            return queries, vectors
        same_sensor = self._query_side(direction, self.archive)
        return codes_of(queries, median_thresholds(same_sensor)), codes_of(vectors, median_thresholds(vectors))

    def _query_side(self, direction: str, file: h5py.File) -> Any:
        """Return the query vectors of a direction from a file."""
        vectors = file[DATASETS[DIRECTIONS[direction].query]]
        return MissingModality(vectors, self.config.fusion) if DIRECTIONS[direction].lacks_a_sensor else vectors

    def _blocks(
        self, queries: Any, vectors: Any, k: int, exclude: Sliceable | None, start: int
    ) -> Iterator[tuple[int, Neighbours]]:
        """Search on Ray workers, or in this process on a GPU, or on its cores; the results are identical."""
        distance, workers = self.config.distance, self.config.num_cpu
        if workers:
            return iter_search_on_ray(queries, vectors, k, distance, num_cpu=workers, exclude=exclude, start=start)
        device = choose_device(self.config)
        if device.type == "cuda":
            return iter_search_on_device(
                queries, vectors, k, distance, exclude=exclude, start=start, device=str(device)
            )
        return iter_search(queries, vectors, k, distance, exclude=exclude, start=start)


@contextmanager
def open_search(config: Config, folder: RunFolder) -> Iterator[DirectionSearch]:
    """Open the feature files of a folder, and start Ray if configured.

    Raises:
        ResultsError: a feature file is missing or damaged.
        SearchError: Ray cannot be started.
    """
    with open_features(folder.query) as query, open_features(folder.archive) as archive, _session(config, archive):
        yield DirectionSearch(config, query, archive)


def _session(config: Config, archive: h5py.File) -> Any:
    if config.num_cpu == 0:
        return nullcontext()
    largest = max(archive[name].size * archive[name].dtype.itemsize for name in FEATURES)
    return ray_session(config.num_cpu, largest, config.ray_address)
