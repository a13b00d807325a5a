"""Search of the directions of a run in its feature files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.evaluation.spatial_exclusion import SpatialExclusion
from bigearthnet_cbir.pipelines.builders import choose_device
from bigearthnet_cbir.pipelines.codes import Coder, prepare_codes
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.query.missing_modality import kinds_of, vectors_of
from bigearthnet_cbir.results import CurveVariant
from bigearthnet_cbir.search.archive_shards import prepare_if_kept
from bigearthnet_cbir.search.knn import iter_search
from bigearthnet_cbir.search.ray_backend import RayArchive, iter_search_on_ray, ray_session
from bigearthnet_cbir.search.rows import Sliceable
from bigearthnet_cbir.search.torch_backend import iter_search_on_device
from bigearthnet_cbir.search.two_stage import iter_rerank, recall_sums
from bigearthnet_cbir.storage.features import FEATURES, open_features
from bigearthnet_cbir.storage.partial import PartialSearch
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import Neighbours

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DirectionSearch:
    """Searches the archive features of a run, on Ray workers if configured.

    An archive is prepared once for consecutive directions that search it; only the last one is kept, to save memory.

    Attributes:
        config: configuration of the run.
        query: the open query.h5.
        archive: the open archive.h5.
        coder: makes the codes; None where vectors are compared.
    """

    config: Config
    query: h5py.File
    archive: h5py.File
    coder: Coder | None = None
    _prepared: dict[tuple[str, str], Any] = field(default_factory=dict)

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
        start, queries, size = rows.finished(direction), len(self.query["label"]), len(self.archive["label"])
        began = time.perf_counter()
        bar = tqdm(
            total=queries * size, initial=start * size, desc=f"search {title}", unit="pair", unit_scale=True,
            disable=None,
        )  # fmt: skip
        with bar:
            for position, found in self._found(direction, k, exclude, start):
                rows.store(direction, position, found)
                bar.update(len(found.indices) * size)
        seconds = time.perf_counter() - began
        compared = (queries - start) * size
        rate = compared / seconds
        logger.info("searched %s: %s distances, %.1f s, %.3g pairs/s", title, f"{compared:,}", seconds, rate)
        return rows.neighbours(direction)

    def _found(self, direction: str, k: int, exclude: Sliceable | None, start: int) -> Iterator[tuple[int, Neighbours]]:
        """Yield the k nearest of every query from `start` on: of vectors, of codes, or of codes and then vectors."""
        if self.coder is None or not self.config.rerank:
            return self._blocks(direction, k, exclude, start, self.config.distance)
        candidates = max(k, min(self.config.rerank, len(self.archive["label"]) - _most_excluded(exclude)))
        blocks = self._blocks(direction, candidates, exclude, start, "hamming")
        return iter_rerank(blocks, *self._vectors(direction), k)

    @property
    def ties(self) -> bool:
        """Whether distances are small whole numbers, which tie."""
        return self.coder is not None and not self.config.rerank

    def recall(self, direction: str, found: Neighbours, exclude: Sliceable | None) -> CurveVariant | None:
        """Return how much of the exact cosine lists the reranked ones hold; that search is done here, to compare.

        None where nothing was reranked.
        """
        if not self.config.rerank:
            return None
        k = found.indices.shape[1]
        total = np.zeros(k)
        for start, exact in self._blocks(direction, k, exclude, 0, "cosine"):
            total += recall_sums(found.indices[start : start + len(exact.indices)], exact.indices)
        return CurveVariant({"recall_of_cosine": total / len(found.indices)}, {"candidates": self.config.rerank})

    def _vectors(self, direction: str) -> tuple[Any, Any]:
        asked, searched = kinds_of(direction)
        fusion = self.config.fusion
        return vectors_of(asked, self.query, fusion), vectors_of(searched, self.archive, fusion)

    def _blocks(
        self, direction: str, k: int, exclude: Sliceable | None, start: int, distance: str
    ) -> Iterator[tuple[int, Neighbours]]:
        """Search vectors, or codes for hamming; on Ray workers, a GPU or the cores of this process, with equal results.

        The distance is that of the configuration, or cosine to measure the recall of a reranked search.
        """
        if self.coder is not None and distance == "hamming":
            queries, archive = self.coder.sides(direction, self.query, self.archive)
        else:
            queries, archive = self._vectors(direction)
        side, workers = DIRECTIONS[direction].archive, self.config.num_cpu
        if workers:
            kept = self._shared(side, distance, lambda: RayArchive(archive))
            return iter_search_on_ray(queries, kept, k, distance, num_cpu=workers, exclude=exclude, start=start)
        device = choose_device(self.config)
        if device.type == "cuda":
            return iter_search_on_device(
                queries, archive, k, distance, exclude=exclude, start=start, device=str(device)
            )
        kept = self._shared(side, distance, lambda: prepare_if_kept(archive, distance))
        return iter_search(queries, kept, k, distance, exclude=exclude, start=start)

    def _shared(self, side: str, distance: str, prepare: Callable[[], Any]) -> Any:
        """Return the prepared archive of a side for another search of it; release those of the other sides first."""
        for key in [key for key in self._prepared if key[0] != side]:
            del self._prepared[key]
        if (side, distance) not in self._prepared:
            self._prepared[side, distance] = prepare()
        return self._prepared[side, distance]


def _most_excluded(exclude: Any) -> int:
    """Return the most archive positions that any query must not get."""
    if exclude is None:
        return 0
    if isinstance(exclude, SpatialExclusion):
        return int(exclude.counts[~exclude.left_out].max(initial=0))
    return int((np.asarray(exclude) >= 0).sum(axis=1).max(initial=0))


@contextmanager
def open_search(config: Config, folder: RunFolder, source: FeatureExtractor) -> Iterator[DirectionSearch]:
    """Open the feature files of a folder, make codes ready for hamming, and Ray where the configuration asks for it.

    Raises:
        ResultsError: a feature file is missing or damaged.
        CheckpointError, SearchError: there are no such codes, or Ray cannot be started.
    """
    with open_features(folder.query) as query, open_features(folder.archive) as archive, _session(config, archive):
        coder = prepare_codes(config, folder, source, archive) if config.distance == "hamming" else None
        yield DirectionSearch(config, query, archive, coder)


def _session(config: Config, archive: h5py.File) -> Any:
    if config.num_cpu == 0:
        return nullcontext()
    largest = max(archive[name].size * archive[name].dtype.itemsize for name in FEATURES if name in archive)
    return ray_session(config.num_cpu, largest, config.ray_address)
