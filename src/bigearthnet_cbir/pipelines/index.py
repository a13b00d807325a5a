"""Building the index of a run: embeddings of splits or of the whole archive. Features from retrieval are reused."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from bigearthnet_cbir.config import Config, as_config
from bigearthnet_cbir.data.catalogue import build_catalogue
from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.pair_list import PairList
from bigearthnet_cbir.data.positions import positions_of
from bigearthnet_cbir.data.splits import SPLITS
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines.code_settings import code_settings
from bigearthnet_cbir.pipelines.codes import codes_made_from
from bigearthnet_cbir.pipelines.extract import block_spans, embedded_blocks, extraction_session, made_from
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor, configured_extractor
from bigearthnet_cbir.pipelines.index_sources import IndexPart, index_parts, known_pairs, with_told_places
from bigearthnet_cbir.pipelines.index_state import list_digests
from bigearthnet_cbir.pipelines.outside_index import index_outside
from bigearthnet_cbir.pipelines.stored_codes import index_binarizers
from bigearthnet_cbir.provenance import fingerprint
from bigearthnet_cbir.query.index import INDEX_SCHEMA
from bigearthnet_cbir.query.index_writing import IndexWriter, finished_part
from bigearthnet_cbir.storage.features import DATASETS, open_features, reusable_digest
from bigearthnet_cbir.storage.outside import is_outside
from bigearthnet_cbir.storage.run_folder import RunFolder, parameters_file

logger = logging.getLogger(__name__)

_READ_ROWS: Final = 256


def build_index(
    run: Config | Mapping[str, Any] | Path | str,
    *,
    splits: Sequence[str] = SPLITS,
    json_root: Path | None = None,
    recompute: bool = False,
    allow_different: bool = False,
) -> Path:
    """Write the index of a run and return its folder. An existing index of the same inputs is kept.

    An interrupted run is resumed. Embeddings in query.h5 or archive.h5 are reused if retrieval computed them from the
    same checkpoint, pairs and archives.

    Args:
        run: a run folder, its parameters.yaml, or a configuration.
        splits: some of train, val, test; or "all": these, and every other pair of the archive.
        json_root: folder of version 1 patch folders of one sensor. If the JSON file of a patch and its name give
            different locations, the JSON file is used.
        recompute: rebuild the index even if the existing one matches.
        allow_different: continue if the checkpoint was trained with other settings, and record both.

    Raises:
        LockedError: another process is writing to the folder.
        CheckpointError, ConfigError, DataError, ResultsError: an input is missing or invalid; the message has one line.

    Example (`run` is a run folder, here with five pairs in its splits and 8 numbers per sensor):
        >>> import bigearthnet_cbir as cbir
        >>> index = cbir.open_index(cbir.build_index(run))
        >>> len(index), index.vectors("s1").shape
        (5, (5, 8))
    """
    config, folder = _run(run)
    with folder_lock(folder.root, "index"):
        if is_outside(folder):
            return index_outside(config, folder, recompute=recompute)
        checkpoint = Path(config.state_dict) if config.state_dict else folder.best
        source = configured_extractor(config, checkpoint, allow_different=allow_different)
        _build(_IndexJob.of(config, folder, source, splits, json_root), recompute)
    return folder.index


def _run(run: Config | Mapping[str, Any] | Path | str) -> tuple[Config, RunFolder]:
    """Return the configuration of a run and its folder."""
    if not isinstance(run, Path | str):
        config = as_config(run)
        return config, RunFolder(config.run_folder)
    path = Path(run)
    config = as_config(parameters_file(path))
    return config, RunFolder.of(path, config.run_folder)


@dataclass(frozen=True)
class _IndexJob:
    """What an index is built from.

    Attributes:
        config: of the run.
        folder: of the run.
        source: computes the embeddings.
        parts: the pairs, by split.
        origins: split -> everything that determines its embeddings, as plain values.
        lists: split -> digest of its list.
        json_root: folder of version 1 JSON files, or None.
    """

    config: Config
    folder: RunFolder
    source: FeatureExtractor
    parts: list[IndexPart]
    origins: dict[str, dict[str, Any]]
    lists: dict[str, str]
    json_root: Path | None

    @classmethod
    def of(
        cls, config: Config, folder: RunFolder, source: FeatureExtractor, splits: Sequence[str], json_root: Path | None
    ) -> _IndexJob:
        parts = index_parts(config, splits)
        origins = {part.split: made_from(part.dataset, source) for part in parts}
        return cls(config, folder, source, parts, origins, list_digests(config), json_root)

    @property
    def fingerprint(self) -> str:
        """Hash of all inputs."""
        return fingerprint({
            "schema": INDEX_SCHEMA, "parts": self.origins, "distance": self.config.distance,
            "json_root": str(self.json_root), "lists": self.lists, **self._codes,
        })  # fmt: skip

    @property
    def _codes(self) -> dict[str, Any]:
        """Return what determines the codes, except for median codes, which older indexes have."""
        return {} if self.config.code == "median" else {"codes": codes_made_from(self.config, self.folder)}


def _build(job: _IndexJob, recompute: bool) -> None:
    """Build an index, unless the existing one has the same inputs."""
    wanted, final = job.fingerprint, job.folder.index
    if not recompute and finished_part(final, wanted):
        logger.info("%s is up to date (same checkpoint, pairs, archives and settings): kept", final)
        return
    _fill(job, wanted, resume=not recompute)


def _fill(job: _IndexJob, wanted: str, *, resume: bool) -> None:
    """Compute the missing rows and complete the index."""
    config, parts = job.config, job.parts
    pairs = PairList.of(part.dataset.pairs[row] for part in parts for row in part.chosen)
    writer = IndexWriter(job.folder.index, wanted, len(pairs), resume=resume)
    if writer.rows:
        logger.info("continuing an interrupted index of the same inputs after %s pairs", f"{writer.rows:,}")
    start, begun = time.perf_counter(), writer.rows
    with tqdm(total=len(pairs), initial=writer.rows, desc="index", unit="pair", leave=False, disable=None) as bar:
        for vectors, labels in _blocks(job, writer.rows):
            writer.append(vectors, labels)
            bar.update(len(labels))
    seconds = time.perf_counter() - start
    logger.info("embedded %s pairs, %.0f s", f"{len(pairs) - begun:,}", seconds)
    splits = [part.split for part in parts for _ in part.chosen]
    places = positions_of(pairs)
    if job.json_root is not None:
        places = with_told_places(places, pairs, job.json_root)
    catalogue = build_catalogue(pairs, places, known_pairs(config, pairs), splits)
    archive = job.origins.get(config.archive_split)
    codes = index_binarizers(
        config, job.folder, job.source, writer.vectors(), None if archive is None else fingerprint(archive)
    )
    writer.finish(catalogue, CLASSES, _details(job), codes)
    logger.info("wrote %s, %s pairs", job.folder.index, f"{len(pairs):,}")


def _blocks(job: _IndexJob, skip: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield embeddings by modality, and labels, of all pairs after the first `skip`, block by block."""
    for part in job.parts:
        left = part.chosen[skip:]
        skip = max(0, skip - len(part.chosen))
        if not left:
            continue
        reused = _retrieved(job.folder, fingerprint(job.origins[part.split]))
        if reused is None:
            yield from _embedded(job.config, job.source, part.dataset, left)
        else:
            logger.info("%s: the embeddings of %s are reused", reused, part.split)
            yield from _stored(reused, left)


def _retrieved(folder: RunFolder, wanted: str) -> Path | None:
    """Return the feature file that retrieval computed with this fingerprint, or None."""
    return next((path for path in (folder.archive, folder.query) if reusable_digest(path, wanted)), None)


def _embedded(
    config: Config, source: FeatureExtractor, dataset: BigEarthNetMM, rows: list[int]
) -> Iterator[tuple[dict[str, Any], Any]]:
    pairs = PairList.of(dataset.pairs[row] for row in rows)
    wanted = BigEarthNetMM(pairs, dataset.s2_store, dataset.s1_store, require_labels=False)
    with extraction_session(config):
        for found in embedded_blocks(config, source, wanted, block_spans(len(wanted))):
            yield {side: found[name] for side, name in DATASETS.items() if name in found}, found["label"]


def _stored(path: Path, rows: list[int]) -> Iterator[tuple[dict[str, Any], Any]]:
    with open_features(path) as file:
        for first in range(0, len(rows), _READ_ROWS):
            some = np.array(rows[first : first + _READ_ROWS])
            span = slice(int(some[0]), int(some[-1]) + 1)
            vectors = {side: file[name][span][some - some[0]] for side, name in DATASETS.items() if name in file}
            yield vectors, np.asarray(file["label"][span][some - some[0]], np.uint8)


def _details(job: _IndexJob) -> dict[str, Any]:
    first, config = job.parts[0].dataset, job.config
    return {
        "checkpoint": job.source.identity["checkpoint"],
        "identity": job.source.identity,
        "fusion": config.fusion,
        "feature": config.feature,
        "distance": config.distance,
        **code_settings(config),
        "splits": {part.split or "no split": len(part.chosen) for part in job.parts},
        "lists": job.lists,
        "archives": {str(store.path): store.identity() for store in (first.s2_store, first.s1_store)},
        "configuration": asdict(config),
        **{name: json.loads(value) for name, value in job.source.provenance.items()},
    }
