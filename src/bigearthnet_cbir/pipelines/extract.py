"""Feature extraction of splits in eval mode to query.h5 and archive.h5, block by block."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial as bound
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.data.dataset import BigEarthNetMM, PairBatch
from bigearthnet_cbir.data.labels import CLASSES, labels_digest
from bigearthnet_cbir.data.loaders import ordered_loader
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.pipelines.builders import build_dataset, choose_device, pairs_digest
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.provenance import SCHEMA_VERSION, fingerprint
from bigearthnet_cbir.search.parallel_session import ray_session
from bigearthnet_cbir.search.ray_tasks import run_in_order
from bigearthnet_cbir.search.rows import batched_ranges
from bigearthnet_cbir.storage.feature_stamps import stamped_digest
from bigearthnet_cbir.storage.features import read_block, reusable_digest, write_block, write_features
from bigearthnet_cbir.storage.partial_features import PartialFeatures

logger = logging.getLogger(__name__)

EXTRACTION_BATCH = 256
BLOCK_BATCHES = 2
"""Batches in a block: what an interruption costs, and what a Ray worker computes at a time.

The boundaries are fixed, so that a pair is in the same batch whatever was interrupted: a network's last bits depend on
the shape of its input.
"""

_STORE: Final = 1 << 29
"""Bytes of Ray's object store for the network and the names of the pairs; more is written to the disk."""

FeatureColumns = dict[str, npt.NDArray[Any]]
"""Features by the name of their dataset, and label, all with the same number of rows."""


def extract(
    config: Config,
    files: Mapping[Path, str],
    source: FeatureExtractor,
    *,
    recompute: bool = False,
    require_labels: bool = True,
) -> list[str]:
    """Write the features of splits, except to files that have the same inputs.

    Inputs are: extractor, list of pairs, archives (size, time and last transaction), labels and classes. An interrupted
    extraction goes on after its finished blocks.

    Args:
        config: configuration of the run.
        files: feature file -> its split.
        source: computes the features.
        recompute: extract again, also what is up to date, and drop the blocks of an interrupted extraction.
        require_labels: whether a pair without labels is an error.

    Returns:
        The digest of the content of each file, which identifies the features in the results.

    Raises:
        DataError: a split is empty, or its patches are missing or unlabelled.
    """
    jobs = [_Job.of(config, split, source, path, require_labels) for path, split in files.items()]
    missing = [job for job in jobs if recompute or not job.is_done()]
    with extraction_session(config) if missing else nullcontext():
        for job in missing:
            job.compute(resume=not recompute)
    return [str(stamped_digest(path)) for path in files]


def made_from(dataset: BigEarthNetMM, source: FeatureExtractor) -> dict[str, Any]:
    """Return everything that decides the features of a dataset, as plain values; its fingerprint stamps their file."""
    return {
        "schema": SCHEMA_VERSION,
        "source": source.identity,
        "pairs": pairs_digest(dataset.pairs),
        "archives": [[str(store.path), store.identity()] for store in (dataset.s2_store, dataset.s1_store)],
        "labels": labels_digest(dataset.s2_store.labels),
        "classes": CLASSES,
    }


@dataclass(frozen=True)
class _Job:
    """The extraction of a split to a file."""

    config: Config
    split: str
    source: FeatureExtractor
    dataset: BigEarthNetMM
    path: Path
    fingerprint: str

    @classmethod
    def of(cls, config: Config, split: str, source: FeatureExtractor, path: Path, require_labels: bool) -> _Job:
        dataset = build_dataset(config, split, require_labels=require_labels)
        if len(dataset) == 0:
            raise DataError(f"{config.split_csv(split)}: has no pairs; give a list with pairs")
        return cls(config, split, source, dataset, path, fingerprint(made_from(dataset, source)))

    def is_done(self) -> bool:
        """Return whether the file has these features; blocks beside it are then removed."""
        if reusable_digest(self.path, self.fingerprint) is None:
            return False
        PartialFeatures(self.path).remove()
        logger.info("%s is up to date (same checkpoint, pairs, patches and settings): reused", self.path.name)
        return True

    def compute(self, *, resume: bool) -> None:
        """Write the file from finished and new blocks."""
        spans = block_spans(len(self.dataset))
        partial = PartialFeatures(self.path)
        if not resume:
            partial.remove()
        if kept := partial.open(self.fingerprint, len(self.dataset), spans[0][1]):
            logger.info("%s: %d of %d blocks are there from an interrupted run", self.path.name, kept, len(spans))
        start, new = time.perf_counter(), 0
        bar = tqdm(total=len(self.dataset), desc=f"extracting {self.path.stem}", unit="pair", leave=False, disable=None)
        with write_features(self.path, self.dataset.pairs, CLASSES, self._attributes()) as writer, bar:
            for file, columns, is_new in self._blocks(spans, partial):
                writer.append(columns)  # which refuses what must not be kept
                rows = len(columns["label"])
                if is_new:
                    write_block(file, columns)
                    new += rows
                bar.update(rows)
        partial.remove()
        seconds = time.perf_counter() - start
        logger.info("extracted %s pairs of %s, %.0f s, %.0f pairs/s", f"{new:,}", self.split, seconds, new / seconds)

    def _blocks(
        self, spans: list[tuple[int, int]], partial: PartialFeatures
    ) -> Iterator[tuple[Path, FeatureColumns, bool]]:
        """Yield the file and the columns of all blocks in order, and whether they were computed now."""
        embedded = bound(embedded_blocks, self.config, self.source, self.dataset)
        files = {span: partial.file(number) for number, span in enumerate(spans)}
        kept = {span for span, file in files.items() if file.exists()}
        computed = embedded([span for span in spans if span not in kept])
        for span, file in files.items():
            found = read_block(file, span[1] - span[0]) if span in kept else None
            if found is None:
                # A damaged block is computed alone.
                yield file, next(embedded([span]) if span in kept else computed), True
            else:
                yield file, found, False

    def _attributes(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "split": self.split,
            "checkpoint": self.source.identity["checkpoint"],
            "configuration": json.dumps(asdict(self.config)),
            **self.source.provenance,
        }


def block_spans(rows: int) -> list[tuple[int, int]]:
    """Return (first, stop) of the blocks of a dataset of so many rows."""
    return list(batched_ranges(rows, EXTRACTION_BATCH * BLOCK_BATCHES))


def extraction_session(config: Config) -> AbstractContextManager[None]:
    """Return a context in which Ray is up, if extraction is configured to use it."""
    if config.extract_workers == 0:
        return nullcontext()
    return ray_session(config.extract_workers, _STORE, config.ray_address, key="extract_workers")


def embedded_blocks(
    config: Config, source: FeatureExtractor, dataset: BigEarthNetMM, spans: Sequence[tuple[int, int]]
) -> Iterator[FeatureColumns]:
    """Yield the features and labels of blocks of a dataset, in order; on Ray workers inside an extraction_session.

    Args:
        config: configuration of the run.
        source: computes the features.
        dataset: the pairs.
        spans: some of its block_spans.
    """
    device = choose_device(config)
    if config.extract_workers:
        tasks = [(first, stop, EXTRACTION_BATCH) for first, stop in spans]
        shared = source.compute, dataset
        return run_in_order(_embed, shared, tasks, config.extract_workers, on_gpu=device.type == "cuda")
    rows = list(chain.from_iterable(range(first, stop) for first, stop in spans))
    pinned = device.type == "cuda"
    loader = ordered_loader(dataset, EXTRACTION_BATCH, config.num_workers, pin_memory=pinned, rows=rows)
    batches = (_columns(source.compute, batch) for batch in loader)
    return (_joined([next(batches) for _ in batched_ranges(stop, EXTRACTION_BATCH, first)]) for first, stop in spans)


def _embed(
    shared: tuple[Callable[[PairBatch], dict[str, Tensor]], BigEarthNetMM], first: int, stop: int, size: int
) -> FeatureColumns:
    """Return the columns of a block on a Ray worker, which has one core; a thread reads the next batch meanwhile."""
    compute, dataset = shared
    torch.set_num_threads(1)
    with ThreadPoolExecutor(1) as reader:
        spans = batched_ranges(stop, size, first)
        coming = [reader.submit(dataset.__getitems__, range(*span)) for span in spans]
        return _joined([_columns(compute, batch.result()) for batch in coming])


def _columns(compute: Callable[[PairBatch], dict[str, Tensor]], batch: PairBatch) -> FeatureColumns:
    return {**{name: vectors.numpy() for name, vectors in compute(batch).items()}, "label": batch.label.numpy()}


def _joined(parts: list[FeatureColumns]) -> FeatureColumns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
