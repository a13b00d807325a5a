"""Retrieval: features of both splits, nearest neighbours in every direction, metrics, retrieval.h5."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bigearthnet_cbir.config import Config, as_config
from bigearthnet_cbir.config.keys import MEASUREMENT, settings_affecting
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.random_ranking import chance_curves
from bigearthnet_cbir.evaluation.spatial_exclusion import self_match_positions
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines.direction_search import open_search
from bigearthnet_cbir.pipelines.evaluate import SpatialTruth, evaluate_direction
from bigearthnet_cbir.pipelines.extract import extract
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor, baseline_extractor, checkpoint_extractor
from bigearthnet_cbir.provenance import SCHEMA_VERSION, fingerprint
from bigearthnet_cbir.storage.features import read_labels, read_names, stamped_digest
from bigearthnet_cbir.storage.partial import PartialSearch
from bigearthnet_cbir.storage.results import is_current, write_results
from bigearthnet_cbir.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

TIE_RULE = "equal distances are ordered by archive index"
CONVENTION = "standard"

_IN_FEATURES: Final = frozenset({"query_split", "archive_split", "feature", "fusion"})
"""Measurement keys that the digests of the feature files already include."""


def retrieve(
    config: Config | Mapping[str, Any] | Path | str,
    folder: RunFolder | None = None,
    *,
    baseline: str | None = None,
    recompute: bool = False,
    allow_different: bool = False,
) -> Path:
    """Write retrieval.h5 of a run or of a baseline, and return its path.

    Args:
        config: the run's configuration: a Config, a mapping of keys, or a YAML file.
        folder: run folder, by default the configured one; no other command may write to it meanwhile.
        baseline: one of feature_extractors.BASELINES instead of the trained encoder.
        recompute: compute features and results again even if existing ones match.
        allow_different: continue if the checkpoint was trained with other settings, and record both values.

    Raises:
        LockedError: another process is writing to the folder.
        CheckpointError, DataError, SearchError, ResultsError: an input is invalid.
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
    measured_with = settings_affecting(config, MEASUREMENT)
    made_from = {
        "schema": SCHEMA_VERSION,
        "query": extract(config, config.query_split, source, folder.query, recompute=recompute),
        "archive": extract(config, config.archive_split, source, folder.archive, recompute=recompute),
        **{name: value for name, value in measured_with.items() if name not in _IN_FEATURES},
        "directions": source.directions,
        "classes": CLASSES,
        "provenance": source.provenance,
    }
    wanted = fingerprint(made_from)
    partial = PartialSearch(folder.retrieval)
    if recompute:
        partial.remove()
    elif is_current(folder.retrieval, wanted):
        partial.remove()
        logger.info("%s is up to date: reused", folder.retrieval)
        return folder.retrieval
    search_and_score(config, folder, source, wanted)
    return folder.retrieval


def search_and_score(config: Config, folder: RunFolder, source: FeatureExtractor, wanted: str) -> None:
    """Search and evaluate all directions of query.h5 and archive.h5 in a folder, and write retrieval.h5.

    Args:
        config: configuration of the run.
        folder: run folder.
        source: feature extractor, which has the directions.
        wanted: fingerprint of the results; an interrupted search with the same one is continued.
    """
    queries, archive = read_names(folder.query), read_names(folder.archive)
    exclude = self_match_positions(queries, archive)
    truth = GroundTruth.of(read_labels(folder.query), read_labels(folder.archive), exclude)
    k = min(config.top_k, int(truth.sizes.min()))
    if k < 1:
        raise ResultsError(f"{folder.archive}: has no patch besides the query itself; use a larger archive_split")
    radius = config.exclude_within
    spatial = None if radius is None else SpatialTruth.of(truth, queries, archive, radius, k)
    chance = chance_curves(truth, k)
    rows = PartialSearch(folder.retrieval)
    if rows.open(wanted, len(queries), k, len(archive)):
        logger.info("continuing an interrupted search of the same features")
    further = PartialSearch(rows.folder / "exclude_within")
    if spatial is not None:
        further.open(wanted, len(queries), spatial.depth, len(archive))
    scored = {}
    with open_search(config, folder) as search:
        for direction in source.directions:
            found = search.search(direction, k, exclude, rows)
            apart = None
            if spatial is not None:
                others = search.search(direction, spatial.depth, spatial.near, further, "without neighbours")
                apart = others, spatial
            scored[direction] = evaluate_direction(found, truth, chance, ties=config.distance == "hamming", apart=apart)
    write_results(folder.retrieval, _attributes(config, folder, source, truth, k, wanted), scored)
    rows.remove()


def _attributes(
    config: Config, folder: RunFolder, source: FeatureExtractor, truth: GroundTruth, k: int, wanted: str
) -> dict[str, Any]:
    return {
        "protocol": config.protocol,
        "convention": CONVENTION,
        "query_split": config.query_split,
        "archive_split": config.archive_split,
        "queries": len(truth.queries),
        "queries_without_labels": int((truth.queries == 0).sum()),
        "archive_size": len(truth.archive),
        "archive_without_labels": int((truth.archive == 0).sum()),
        "k": k,
        "distance": config.distance,
        "feature_kind": config.feature,
        "tie_rule": TIE_RULE,
        "checkpoint": source.identity["checkpoint"],
        "class_names": list(CLASSES),
        "configuration": json.dumps(asdict(config)),
        **source.provenance,
        "fingerprint": wanted,
        "query_content": str(stamped_digest(folder.query)),
        "archive_content": str(stamped_digest(folder.archive)),
    }
