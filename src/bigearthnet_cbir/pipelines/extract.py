"""Feature extraction of both splits in eval mode to query.h5 and archive.h5."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.data.labels import CLASSES, labels_digest
from bigearthnet_cbir.data.loaders import ordered_loader
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.pipelines.builders import build_dataset, choose_device, pairs_digest
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.provenance import SCHEMA_VERSION, fingerprint
from bigearthnet_cbir.storage.feature_stamps import stamped_digest
from bigearthnet_cbir.storage.features import reusable_digest, write_features

logger = logging.getLogger(__name__)

EXTRACTION_BATCH = 256


def extract(
    config: Config,
    split: str,
    source: FeatureExtractor,
    path: Path,
    *,
    recompute: bool = False,
    require_labels: bool = True,
) -> str:
    """Write the features of a split, unless the existing file has the same inputs.

    Inputs are: extractor, list of pairs, archives (size, time and last transaction), labels and classes.

    Returns:
        The digest of the file's content, which identifies the features in the results.

    Raises:
        DataError: the split is empty, or its patches are missing or unlabelled.
    """
    dataset = build_dataset(config, split, require_labels=require_labels)
    if len(dataset) == 0:
        raise DataError(f"{config.split_csv(split)}: has no pairs; give a list with pairs")
    wanted = fingerprint(made_from(dataset, source))
    kept = None if recompute else reusable_digest(path, wanted)
    if kept is not None:
        logger.info("%s is up to date (same checkpoint, pairs, patches and settings): reused", path.name)
        return kept
    attributes = {
        "fingerprint": wanted,
        "split": split,
        "checkpoint": source.identity["checkpoint"],
        "configuration": json.dumps(asdict(config)),
        **source.provenance,
    }
    _compute(config, dataset, source, path, attributes)
    return str(stamped_digest(path))


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


def _compute(
    config: Config, dataset: BigEarthNetMM, source: FeatureExtractor, path: Path, attributes: dict[str, Any]
) -> None:
    pinned = choose_device(config).type == "cuda"
    loader = ordered_loader(dataset, EXTRACTION_BATCH, config.num_workers, pin_memory=pinned)
    start = time.perf_counter()
    with write_features(path, dataset.pairs, CLASSES, attributes) as writer:
        for batch in tqdm(loader, f"extracting {path.stem}", unit="batch", leave=False, disable=None):
            columns = {name: vectors.numpy() for name, vectors in source.compute(batch).items()}
            writer.append({**columns, "label": batch.label.numpy()})
    seconds = time.perf_counter() - start
    logger.info(
        "extracted %s pairs of %s, %.0f s, %.0f pairs/s",
        f"{len(dataset):,}", attributes["split"], seconds, len(dataset) / seconds,
    )  # fmt: skip
