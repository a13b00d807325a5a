"""The index of a run with external vectors, built from its feature files, which are the only source."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.data.catalogue import build_catalogue
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.pair_list import PairList
from bigearthnet_cbir.data.positions import positions_of
from bigearthnet_cbir.pipelines.code_settings import code_settings
from bigearthnet_cbir.pipelines.codes import codes_made_from
from bigearthnet_cbir.pipelines.index_sources import known_pairs
from bigearthnet_cbir.pipelines.index_state import list_digests
from bigearthnet_cbir.pipelines.stored_codes import stored_codes
from bigearthnet_cbir.provenance import fingerprint
from bigearthnet_cbir.query.index import INDEX_SCHEMA
from bigearthnet_cbir.query.index_writing import IndexWriter, finished_part
from bigearthnet_cbir.storage.feature_stamps import read_attribute, stamped_digest
from bigearthnet_cbir.storage.features import DATASETS, open_features, read_names
from bigearthnet_cbir.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

_BLOCK: Final = 4096


def index_outside(config: Config, folder: RunFolder, *, recompute: bool = False) -> Path:
    """Write the index of the archive and of those queries that are not in the archive; return its folder.

    Raises:
        ResultsError: a feature file is missing or damaged.
    """
    files = {folder.archive: config.archive_split, folder.query: config.query_split}
    contents = [stamped_digest(path) for path in files]
    settings: list[Any] = [config.distance, config.fusion]
    if config.code != "median":  # older indexes have median codes
        settings.append(codes_made_from(config, folder))
    wanted = fingerprint({"schema": INDEX_SCHEMA, "contents": contents, "settings": settings})
    if not recompute and finished_part(folder.index, wanted):
        logger.info("%s is up to date (same embeddings and settings): kept", folder.index)
        return folder.index
    chosen, pairs, splits = _rows(files, read_attribute(folder.query, "query_split") == config.query_split)
    # It takes seconds, so an interrupted index is built again from the start.
    writer = IndexWriter(folder.index, wanted, len(pairs), resume=False)
    for path, rows in chosen.items():
        _append(writer, path, rows)
    catalogue = build_catalogue(pairs, positions_of(pairs), known_pairs(config, pairs), splits)
    with open_features(folder.archive) as archive:
        codes = stored_codes(folder, archive).binarizers
    writer.finish(catalogue, CLASSES, _details(config, folder, splits), codes)
    logger.info("wrote %s, %s pairs", folder.index, f"{len(pairs):,}")
    return folder.index


def _rows(files: dict[Path, str], has_splits: bool) -> tuple[dict[Path, list[int]], PairList, list[str]]:
    """Return the rows of each file that no earlier file has, their pairs, and the split of each, "" if unknown."""
    chosen: dict[Path, list[int]] = {}
    pairs, splits, seen = [], [], set[str]()
    for path, split in files.items():
        names = read_names(path)
        chosen[path] = [row for row, pair in enumerate(names) if pair.s2 not in seen]
        pairs += [names[row] for row in chosen[path]]
        splits += [split if has_splits else ""] * len(chosen[path])
        seen.update(pair.s2 for pair in names)
    return chosen, PairList.of(pairs), splits


def _append(writer: IndexWriter, path: Path, rows: list[int]) -> None:
    with open_features(path) as file:
        for start in range(0, len(rows), _BLOCK):
            some = np.array(rows[start : start + _BLOCK])
            vectors = {side: file[name][some] for side, name in DATASETS.items() if name in file}
            writer.append(vectors, np.asarray(file["label"][some], np.uint8))


def _details(config: Config, folder: RunFolder, splits: list[str]) -> dict[str, Any]:
    told = {name: str(read_attribute(folder.query, name)) for name in ("vectors", "model", "checkpoint")}
    return {
        "checkpoint": told["checkpoint"],
        "identity": told,
        "fusion": config.fusion,
        "feature": config.feature,
        "distance": config.distance,
        **code_settings(config),
        "splits": {split or "no split": splits.count(split) for split in dict.fromkeys(splits)},
        "lists": list_digests(config),
        "archives": {},
        "configuration": asdict(config),
    }
