"""Retrieval: features of both splits, nearest neighbours in every direction, metrics, retrieval.h5."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from bigearthnet_cbir.config import Config, as_config, write_config
from bigearthnet_cbir.config.keys import MEASUREMENT, settings_affecting
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.errors import ConfigError, ResultsError
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.random_ranking import chance_curves
from bigearthnet_cbir.evaluation.spatial_exclusion import self_match_positions
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines.code_comparison import CodeComparison, compare_codes
from bigearthnet_cbir.pipelines.codes import code_identity
from bigearthnet_cbir.pipelines.direction_search import open_search
from bigearthnet_cbir.pipelines.evaluate import SpatialTruth, evaluate_direction
from bigearthnet_cbir.pipelines.extract import extract
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor, baseline_extractor, configured_extractor
from bigearthnet_cbir.provenance import SCHEMA_VERSION, fingerprint
from bigearthnet_cbir.results import Curves, CurveVariant, DirectionResult
from bigearthnet_cbir.storage.feature_stamps import stamped_digest
from bigearthnet_cbir.storage.features import read_labels, read_names
from bigearthnet_cbir.storage.outside import refuse_outside
from bigearthnet_cbir.storage.partial import PartialSearch
from bigearthnet_cbir.storage.results import is_current, write_results
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import Neighbours

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
            refuse_outside(folder)
            source = configured_extractor(config, checkpoint, allow_different=allow_different)
            if config.encoder is not None:
                _keep_parameters(config, folder)
            return _retrieve(config, folder, source, recompute)
        source = baseline_extractor(config, baseline, checkpoint, allow_different=allow_different)
        return _retrieve(config, folder.baseline(baseline), source, recompute)


def _keep_parameters(config: Config, folder: RunFolder) -> None:
    """Write parameters.yaml, which no training here has written; raise ConfigError where one has."""
    if folder.best.exists() or folder.last.exists():
        raise ConfigError(
            f"{config.source}: encoder is {config.encoder}, but {folder.root} holds a trained run; give another "
            "logging_params.name"
        )
    write_config(config, folder.parameters)


def _retrieve(config: Config, folder: RunFolder, source: FeatureExtractor, recompute: bool) -> Path:
    codes = code_identity(config, folder)  # refuses missing heads before hours of extraction
    measured_with = settings_affecting(config, MEASUREMENT)
    files = {folder.query: config.query_split, folder.archive: config.archive_split}
    query, archive = extract(config, files, source, recompute=recompute)
    made_from = {
        "schema": SCHEMA_VERSION,
        "query": query,
        "archive": archive,
        **{name: value for name, value in measured_with.items() if name not in _IN_FEATURES},
        "codes": codes,
        "directions": source.directions,
        "classes": CLASSES,
        "provenance": source.provenance,
    }
    wanted = fingerprint(made_from)
    unfinished = PartialSearch(folder.retrieval)
    if recompute:
        unfinished.remove()
    elif is_current(folder.retrieval, wanted):
        unfinished.remove()
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
    contents = _contents(folder)
    queries, archive = read_names(folder.query), read_names(folder.archive)
    exclude = self_match_positions(queries, archive)
    truth = GroundTruth.of(read_labels(folder.query), read_labels(folder.archive), exclude)
    k = _depth(config, folder, truth)
    radius = config.exclude_within
    spatial = None if radius is None else SpatialTruth.of(truth, queries, archive, radius, k)
    chance = chance_curves(truth, k)
    rows, further = _unfinished(folder, wanted, k, truth, spatial)
    evaluated: dict[str, Future[DirectionResult]] = {}
    codes, told = [], {}
    # A direction is evaluated while the next one is searched.
    with open_search(config, folder, source) as search, ThreadPoolExecutor(1) as evaluator:
        if search.coder is not None:
            told = search.coder.describe(search.archive)
            codes = compare_codes(CodeComparison(config, source, search.query, search.archive, exclude), folder)
        # Directions that search the same archive follow each other: it is prepared once for all of them.
        for direction in sorted(source.directions, key=lambda name: DIRECTIONS[name].archive):
            found = search.search(direction, k, exclude, rows)
            apart = None
            if spatial is not None:
                others = search.search(direction, spatial.depth, spatial.near, further, "without neighbours")
                apart = others, spatial
            recall = search.recall(direction, found, exclude)
            evaluated[direction] = evaluator.submit(_evaluate, found, truth, chance, search.ties, apart, recall)
    scored = {direction: evaluated[direction].result() for direction in source.directions}
    attributes = {**_attributes(config, source, truth, k, wanted), **contents, **told}
    write_results(folder.retrieval, attributes, scored, codes)
    rows.remove()


def _unfinished(
    folder: RunFolder, wanted: str, k: int, truth: GroundTruth, spatial: SpatialTruth | None
) -> tuple[PartialSearch, PartialSearch]:
    """Open the rows of an interrupted search, without and with spatial exclusion; they are empty if it was another."""
    sizes = len(truth.queries), len(truth.archive)
    rows = PartialSearch(folder.retrieval)
    if rows.open(wanted, sizes[0], k, sizes[1]):
        logger.info("continuing an interrupted search of the same features")
    further = PartialSearch(rows.folder / "exclude_within")
    if spatial is not None:
        further.open(wanted, sizes[0], spatial.depth, sizes[1])
    return rows, further


def _evaluate(
    found: Neighbours,
    truth: GroundTruth,
    chance: Curves,
    ties: bool,
    apart: tuple[Neighbours, SpatialTruth] | None,
    rerank: CurveVariant | None,
) -> DirectionResult:
    """Return the result of a direction; the arguments are those of evaluate_direction, and its recall of the cosine."""
    return replace(evaluate_direction(found, truth, chance, ties=ties, apart=apart), rerank=rerank)


def _contents(folder: RunFolder) -> dict[str, str]:
    """Return the digests of the features, read before the search: another program may remove the files meanwhile."""
    return {
        "query_content": str(stamped_digest(folder.query)),
        "archive_content": str(stamped_digest(folder.archive)),
    }


def _depth(config: Config, folder: RunFolder, truth: GroundTruth) -> int:
    """Return the length of the lists: top_k, as far as the archive and the candidates of a reranked search reach."""
    k = min(config.top_k, int(truth.sizes.min()))
    if k < 1:
        raise ResultsError(f"{folder.archive}: has no patch besides the query itself; use a larger archive_split")
    if config.rerank and config.rerank < k:
        logger.info("rerank is %d: the lists are that long, not top_k, which is %s", config.rerank, f"{config.top_k:,}")
        return config.rerank
    return k


def _attributes(config: Config, source: FeatureExtractor, truth: GroundTruth, k: int, wanted: str) -> dict[str, Any]:
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
        **({"rerank": config.rerank} if config.rerank else {}),
        "feature_kind": source.identity.get("feature", config.feature),
        "tie_rule": TIE_RULE,
        "checkpoint": source.identity["checkpoint"],
        "class_names": list(CLASSES),
        "configuration": json.dumps(asdict(config)),
        **source.provenance,
        "fingerprint": wanted,
    }
