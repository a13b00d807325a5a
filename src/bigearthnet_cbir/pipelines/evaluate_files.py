"""Evaluation of embeddings from files, computed by any method: reads the files and writes a run folder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.config import Config, write_config
from bigearthnet_cbir.config.keys import MEASUREMENT, settings_affecting
from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.pair_list import Names, PairList
from bigearthnet_cbir.data.split_writing import write_split
from bigearthnet_cbir.errors import CheckpointError, DataError
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines.builders import pairs_digest
from bigearthnet_cbir.pipelines.embedding_files import EmbeddingTable, read_embeddings
from bigearthnet_cbir.pipelines.embedding_labels import labels_from, pairs_of
from bigearthnet_cbir.pipelines.embedding_rows import Vectors, check_widths, chosen_rows, directions_of, with_fused
from bigearthnet_cbir.pipelines.embedding_splits import ProtocolLists, protocol_lists, rows_of
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.pipelines.outside_runs import record, run_config, told_fusion
from bigearthnet_cbir.pipelines.pair_discovery import OFFICIAL
from bigearthnet_cbir.pipelines.retrieve import search_and_score
from bigearthnet_cbir.provenance import SCHEMA_VERSION, file_digest, fingerprint
from bigearthnet_cbir.storage.feature_stamps import read_fingerprint, stamped_digest
from bigearthnet_cbir.storage.features import DATASETS, OUTSIDE, reusable_digest, write_features
from bigearthnet_cbir.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

GROUP: Final = "embeddings"
"""Group of experiments of these runs."""

_BLOCK: Final = 1 << 14

Files = Path | str | Sequence[Path | str]


@dataclass(frozen=True)
class _Request:
    """The arguments of evaluate_files, as paths."""

    files: tuple[list[Path], list[Path]]
    model: str
    root: Path
    sensor: str | None
    labels: Path | None
    lists: ProtocolLists | None
    settings: Mapping[str, Any]


def evaluate_files(
    queries: Files,
    archive: Files,
    *,
    name: str | None = None,
    output: Path | str | None = None,
    sensor: str | None = None,
    labels: Path | str | None = None,
    protocol: str | None = None,
    splits: Path | str | None = None,
    **settings: Any,
) -> Path:
    """Evaluate embeddings that were computed by any method (docs/embeddings.md), and return their retrieval.h5.

    Args:
        queries: .h5, .npz, .npy (names in a .csv next to it), .parquet; several files if each has one sensor.
        archive: as queries; with a protocol, both may be the same file.
        name: of the model; by default the name of the file of the queries.
        output: the run folder; by default logs/embeddings/<name>.
        sensor: modality of a matrix whose name does not give it: s1, s2 or fused.
        labels: metadata.parquet or LMDB folder, for files without labels, or to replace theirs.
        protocol: original, csmae or ben14k: rows are restricted to its lists, in their order; None: all rows.
        splits: lists of the protocol: "official" (BigEarthNet v1), a metadata.parquet, or a folder of CSV lists; by
            default the metadata.parquet given as `labels`, or else official.
        settings: keys of a YAML file: fusion, distance, top_k, exclude_within, num_cpu.

    Raises:
        ConfigError, DataError, ResultsError, SearchError: an input is missing or invalid; the message has one line.
    """
    asked, searched = _paths(queries), _paths(archive)
    model = name or asked[0].stem
    root = Path(output).resolve() if output else repository_root() / "logs" / GROUP / model
    source = Path(labels) if labels else None
    lists = protocol_lists(protocol, _place_of_lists(splits, source)) if protocol else None
    return _evaluate(_Request((asked, searched), model, root, sensor, source, lists, settings))


def _evaluate(request: _Request) -> Path:
    lists, settings = request.lists, request.settings
    config = run_config(request.root, lists, request.labels, settings)
    asked, searched = request.files
    tables = [read_embeddings(asked, request.sensor)]
    tables.append(tables[0] if asked == searched else read_embeddings(searched, request.sensor))
    config = replace(config, fusion=settings.get("fusion") or told_fusion(tables[1].told) or config.fusion)
    wanted = (lists.query, lists.archive) if lists else (None, None)
    query, found = (
        _select(table, rows, request.labels, config.fusion) for table, rows in zip(tables, wanted, strict=True)
    )
    check_widths(query, found)
    digests = [[file_digest(file) for file in files] for files in request.files]
    told = record(request.model, config, lists, (query, found), digests)
    with folder_lock(request.root, "evaluate"):
        return _measure(config, RunFolder(request.root), (query, found), told)


def _paths(files: Files) -> list[Path]:
    return [Path(files)] if isinstance(files, Path | str) else [Path(file) for file in files]


def _place_of_lists(splits: Path | str | None, labels: Path | None) -> str:
    if splits is not None:
        return str(splits)
    return str(labels) if labels is not None and labels.suffix == ".parquet" else OFFICIAL


def _select(table: EmbeddingTable, wanted: PairList | Names | None, labels: Path | None, fusion: str) -> Vectors:
    """Return the wanted rows of a table in the given order, or all rows if None, with labels and names."""
    rows = None if wanted is None else rows_of(wanted, table.names, table.source)
    names = table.names if rows is None else table.names.rows(rows)
    pairs = wanted if isinstance(wanted, PairList) else pairs_of(names, labels)
    vectors, known = chosen_rows(table.vectors, table.labels, rows)
    if labels is not None:
        known = labels_from(labels, pairs)
    if known is None:
        raise DataError(
            f"{table.source}: has no labels; give a metadata.parquet or LMDB folder that has them with --labels"
        )
    beyond = len(table) - len(pairs)
    if beyond:
        logger.info("%s: excluded %s rows that are not in the list", table.source, f"{beyond:,}")
    return Vectors(table.source, pairs, with_fused(vectors, fusion, table.source), known, beyond)


def _measure(config: Config, folder: RunFolder, sides: tuple[Vectors, Vectors], told: dict[str, str]) -> Path:
    if folder.best.exists() or folder.last.exists():
        raise CheckpointError(f"{folder.root}: is the folder of a trained run; choose another --name or --output")
    directions = directions_of(*sides, config.fusion, config.distance)
    contents = [
        _write(path, side, config.fusion, told)
        for path, side in zip((folder.query, folder.archive), sides, strict=True)
    ]
    wanted = fingerprint({
        "schema": SCHEMA_VERSION, "contents": contents, "directions": directions, "provenance": told,
        **settings_affecting(config, MEASUREMENT),
    })  # fmt: skip
    for split, side in ((config.query_split, sides[0]), (config.archive_split, sides[1])):
        write_split(Path(config.split_csv(split)), side.pairs)
    write_config(config, folder.parameters)
    if read_fingerprint(folder.retrieval) == wanted:
        logger.info("%s is up to date: reused", folder.retrieval)
        return folder.retrieval
    source = FeatureExtractor(
        {"checkpoint": f"none here, {OUTSIDE}", "feature": told["model"]}, _no_network, directions, told
    )
    search_and_score(config, folder, source, wanted)
    return folder.retrieval


def _no_network(batch: PairBatch) -> dict[str, Tensor]:
    raise NotImplementedError("the vectors of these runs are in files")


def _write(path: Path, side: Vectors, fusion: str, told: dict[str, str]) -> str:
    """Write a feature file unless it exists, and return the digest of its content."""
    made_from = {
        "schema": SCHEMA_VERSION,
        "pairs": pairs_digest(side.pairs),
        "labels": hashlib.sha256(side.labels.tobytes()).hexdigest(),
        "fusion": fusion,
        "told": {name: value for name, value in told.items() if name != "configuration"},
        "classes": CLASSES,
    }
    wanted = fingerprint(made_from)
    kept = reusable_digest(path, wanted)
    if kept is not None:
        return kept
    attributes = {"fingerprint": wanted, "checkpoint": f"none here, {OUTSIDE}", **told}
    with write_features(path, side.pairs, CLASSES, attributes) as writer:
        for start in range(0, len(side.pairs), _BLOCK):
            rows = slice(start, start + _BLOCK)
            columns = {DATASETS[name]: values[rows] for name, values in side.vectors.items()}
            writer.append({**columns, "label": side.labels[rows]})
    return str(stamped_digest(path))
