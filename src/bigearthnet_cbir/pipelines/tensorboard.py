"""Retrieval results for TensorBoard: headline metrics as scalars, and archive vectors in the projector."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.errors import CbirError
from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.pipelines.patch_images import PatchImages
from bigearthnet_cbir.results import RunResults
from bigearthnet_cbir.storage.features import FUSED_FEATURE, open_features, read_labels, read_names
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import PatchPair

logger = logging.getLogger(__name__)

MAX_PATCHES = 2000
DOWNSAMPLING = 4
"""The projector stores all thumbnails (30 x 30 pixels) in one image of at most 8,192 x 8,192."""


def write_tensorboard(folder: RunFolder, *, seed: int = 0) -> Path:
    """Write the headline metrics and a projector into training/retrieval/, and return that folder.

    Existing content of the folder is replaced. The projector shows up to MAX_PATCHES archive patches, sampled with the
    seed, with names and labels, and with thumbnails if the patch store can be read.

    Raises:
        ResultsError: the run has no readable results or features.
    """
    data = read_results(folder.retrieval)
    target = folder.curves / "retrieval"
    shutil.rmtree(target, ignore_errors=True)
    with SummaryWriter(str(target)) as writer:
        for direction, found in data.directions.items():
            for name, value in headline(found.curves).items():
                writer.add_scalar(f"{name.replace('@', '_at_')}/{direction}", value)
        if folder.archive.exists():
            _add_projector(writer, folder, data, seed)
    logger.info("wrote the headline metrics and the projector into %s", target)
    return target


def _add_projector(writer: SummaryWriter, folder: RunFolder, data: RunResults, seed: int) -> None:
    names, labels = read_names(folder.archive), read_labels(folder.archive)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(names))[:MAX_PATCHES])
    with open_features(folder.archive) as file:
        vectors = file[FUSED_FEATURE][chosen]
    classes = data.class_names(CLASSES)
    header = ["patch", "labels", "labels_count"]
    rows = []
    for index in chosen:
        present = [classes[column] for column in np.flatnonzero(labels[index])]
        rows.append([names[index].s2, "; ".join(present) or "none", str(len(present))])
    images = _thumbnails(data, [names[index] for index in chosen])
    writer.add_embedding(
        torch.from_numpy(np.ascontiguousarray(vectors)), metadata=rows, label_img=images, metadata_header=header,
        tag="archive",
    )  # fmt: skip


def _thumbnails(data: RunResults, pairs: list[PatchPair]) -> torch.Tensor | None:
    """Return (N, 3, 30, 30) images in 0..1, or None if the Sentinel-2 patches cannot be read."""
    stores = [str(data.configuration.get(f"bigEarthPthLMDB_{sensor}", "")) for sensor in ("S1", "S2")]
    try:
        reader = PatchImages(Path(stores[0]), Path(stores[1]), DOWNSAMPLING)
        keys = [reader.key("s2", pair) for pair in pairs]
    except CbirError as error:
        logger.warning("the projector has no thumbnails: %s", error)
        return None
    images = reader.pixels()
    stack = np.stack([images[key] for key in keys])
    return torch.from_numpy(stack.transpose(0, 3, 1, 2).astype(np.float32) / 255)
