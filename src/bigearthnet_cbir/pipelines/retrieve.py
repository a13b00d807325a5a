"""Retrieval: features of both splits, nearest neighbours in every direction, metrics, retrieval.h5."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bigearthnet_cbir.config import Config, as_config
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.random_ranking import chance_curves
from bigearthnet_cbir.evaluation.spatial_exclusion import self_match_positions
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines.builders import choose_device
from bigearthnet_cbir.pipelines.evaluate import GroundTruth, Search, build_spatial_exclusion, evaluate_direction
from bigearthnet_cbir.pipelines.extract import extract
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor, baseline_extractor, checkpoint_extractor
from bigearthnet_cbir.provenance import SCHEMA_VERSION, fingerprint
from bigearthnet_cbir.query.missing_modality import MissingModality
from bigearthnet_cbir.search.binary_codes import codes_of, median_thresholds
from bigearthnet_cbir.search.knn import iter_search
from bigearthnet_cbir.search.ray_backend import iter_search_on_ray, ray_session
from bigearthnet_cbir.search.rows import Sliceable
from bigearthnet_cbir.search.torch_backend import iter_search_on_device
from bigearthnet_cbir.storage.features import (
    DATASETS,
    FEATURES,
    open_features,
    read_fingerprint,
    read_labels,
    read_names,
    stamped_digest,
)
from bigearthnet_cbir.storage.partial import PartialSearch
from bigearthnet_cbir.storage.results import write_results
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import IntArray, Neighbours

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)

TIE_RULE = "equal distances are ordered by archive index"
CONVENTION = "standard"


def retrieve(
    config: Config | Mapping[str, Any] | Path | str,
    folder: RunFolder | None = None,
    *,
    baseline: str | None = None,
    recompute: bool = False,
    allow_different: bool = False,
) -> Path:
    """Write retrieval.h5 of a run, or of a baseline beside it, and return its path.

    Args:
        config: the run's configuration: a Config, a mapping of keys, or a YAML file.
        folder: the run's folder, by default the configured one; no other command may write there meanwhile.
        baseline: one of feature_extractors.BASELINES instead of the trained encoder.
        recompute: compute features and results anew even where those on disk match.
        allow_different: go on where the checkpoint was trained with other settings, and record both.

    Raises:
        LockedError: another process is writing to the folder.
        CheckpointError, DataError, SearchError, ResultsError: what is wrong, in one line.
    """
    config = as_config(config)
    folder = folder or RunFolder(config.run_folder)
    with folder_lock(folder.root, "retrieval"):
        checkpoint = Path(config.state_dict) if config.state_dict else folder.best
        if baseline is None:
            source = checkpoint_extractor(config, checkpoint, allow_different=allow_different)
            return _retrieve(config, folder, source, recompute)
        source = baseline_extractor(config, baseline, checkpoint, allow_different=allow_different)
        return _retrieve(config, folder.baseline(baseline), source, recompute)


def _retrieve(config: Config, folder: RunFolder, source: FeatureExtractor, recompute: bool) -> Path:
    made_from = {
        "schema": SCHEMA_VERSION,
        "query": extract(config, config.query_split, source, folder.query, recompute=recompute),
        "archive": extract(config, config.archive_split, source, folder.archive, recompute=recompute),
        "distance": config.distance,
        "top_k": config.top_k,
        "protocol": config.protocol,
        "exclude_within": config.exclude_within,
        "directions": source.directions,
        "classes": CLASSES,
        "provenance": source.provenance,
    }
    wanted = fingerprint(made_from)
    partial = PartialSearch(folder.retrieval)
    if recompute:
        partial.remove()
    elif read_fingerprint(folder.retrieval) == wanted:
        partial.remove()
        logger.info("%s is up to date: reused", folder.retrieval)
        return folder.retrieval
    search_and_score(config, folder, source, wanted)
    return folder.retrieval


def search_and_score(config: Config, folder: RunFolder, source: FeatureExtractor, wanted: str) -> None:
    """Search every direction of a source between query.h5 and archive.h5 of a folder, score it, write retrieval.h5.

    Args:
        config: the run's configuration.
        folder: where the files are.
        source: names the directions.
        wanted: fingerprint that the results get; an interrupted search of the same goes on.
    """
    query_labels, archive_labels = read_labels(folder.query), read_labels(folder.archive)
    exclude = self_match_positions(read_names(folder.query), read_names(folder.archive))
    largest = len(archive_labels) - (0 if exclude is None else 1)
    if largest < 1:
        raise ResultsError(f"{folder.archive}: holds no patch besides the query itself; use a larger archive_split")
    k = min(config.top_k, largest)
    near = build_spatial_exclusion(folder, config.exclude_within, k)
    attributes = {
        **_attributes(config, source, query_labels, archive_labels, k),
        "fingerprint": wanted,
        "query_content": str(stamped_digest(folder.query)),
        "archive_content": str(stamped_digest(folder.archive)),
    }
    partial = PartialSearch(folder.retrieval)
    if partial.open(wanted, len(query_labels), k, len(archive_labels)):
        logger.info("an interrupted search of the same features was found: going on where it stopped")
    chance = chance_curves(query_labels, archive_labels, k, exclude)
    truth = GroundTruth(query_labels, archive_labels, exclude, chance, near, config.exclude_within or 0)
    scored = {}
    with open_features(folder.query) as query, open_features(folder.archive) as archive, _session(config, archive):
        for direction in source.directions:
            _search_direction(config, direction, query, archive, exclude, k, partial)
            again = _search_again(config, direction, query, archive)
            found = partial.neighbours(direction)
            scored[direction] = evaluate_direction(
                found, truth, hamming=config.distance == "hamming", search_again=again
            )
    write_results(folder.retrieval, attributes, scored)
    partial.remove()


def _attributes(
    config: Config, source: FeatureExtractor, query_labels: Any, archive_labels: Any, k: int
) -> dict[str, Any]:
    return {
        "protocol": config.protocol,
        "convention": CONVENTION,
        "query_split": config.query_split,
        "archive_split": config.archive_split,
        "queries": len(query_labels),
        "queries_without_labels": int((query_labels.sum(axis=1) == 0).sum()),
        "archive_size": len(archive_labels),
        "archive_without_labels": int((archive_labels.sum(axis=1) == 0).sum()),
        "k": k,
        "distance": config.distance,
        "feature_kind": config.feature,
        "tie_rule": TIE_RULE,
        "checkpoint": source.identity["checkpoint"],
        "class_names": list(CLASSES),
        "configuration": json.dumps(asdict(config)),
        **source.provenance,
    }


def _session(config: Config, archive: h5py.File) -> Any:
    if config.num_cpu == 0:
        return nullcontext()
    largest = max(archive[name].size * archive[name].dtype.itemsize for name in FEATURES)
    return ray_session(config.num_cpu, largest, config.ray_address)


def _sides(config: Config, direction: str, query: h5py.File, archive: h5py.File) -> tuple[Any, Any]:
    """Return what is compared: the stored vectors, or for Hamming their codes.

    A query's bits are cut at the medians of its own sensor's features over the archive.
    """
    queries, vectors = _query_side(config, direction, query), archive[DATASETS[DIRECTIONS[direction].archive]]
    if config.distance != "hamming":
        return queries, vectors
    same_sensor = _query_side(config, direction, archive)
    return codes_of(queries, median_thresholds(same_sensor)), codes_of(vectors, median_thresholds(vectors))


def _query_side(config: Config, direction: str, file: h5py.File) -> Any:
    """Return the vectors of a file as a direction's queries have them."""
    vectors = file[DATASETS[DIRECTIONS[direction].query]]
    return MissingModality(vectors, config.fusion) if DIRECTIONS[direction].lacks_a_sensor else vectors


def _search_again(config: Config, direction: str, query: h5py.File, archive: h5py.File) -> Search:
    def blocks(exclude: Sliceable, k: int) -> Iterator[tuple[int, Neighbours]]:
        queries, vectors = _sides(config, direction, query, archive)
        return _blocks(config, queries, vectors, k, exclude, 0)

    return blocks


def _search_direction(
    config: Config,
    direction: str,
    query: h5py.File,
    archive: h5py.File,
    exclude: IntArray | None,
    k: int,
    partial: PartialSearch,
) -> None:
    queries, vectors = _sides(config, direction, query, archive)
    start = partial.finished(direction)
    began = time.perf_counter()
    blocks = _blocks(config, queries, vectors, k, exclude, start)
    size = len(vectors)
    bar = tqdm(
        total=len(queries) * size, initial=start * size, desc=f"search {direction}", unit="pair", unit_scale=True,
        disable=None,
    )  # fmt: skip
    with bar:
        for position, found in blocks:
            partial.store(direction, position, found)
            bar.update(len(found.indices) * size)
    seconds = time.perf_counter() - began
    compared = (len(queries) - start) * size
    rate = compared / seconds
    logger.info("searched %s: %s distances, %.1f s, %.3g pairs/s", direction, f"{compared:,}", seconds, rate)


def _blocks(
    config: Config, queries: Any, vectors: Any, k: int, exclude: Sliceable | None, start: int
) -> Iterator[tuple[int, Neighbours]]:
    """Search on Ray workers, or in this process on its GPU, or else on its cores: the results are the same."""
    if config.num_cpu:
        return iter_search_on_ray(
            queries, vectors, k, config.distance, num_cpu=config.num_cpu, exclude=exclude, start=start
        )
    device = choose_device(config)
    if device.type == "cuda":
        return iter_search_on_device(
            queries, vectors, k, config.distance, exclude=exclude, start=start, device=str(device)
        )
    return iter_search(queries, vectors, k, config.distance, exclude=exclude, start=start)
