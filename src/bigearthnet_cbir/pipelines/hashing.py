"""Hash heads of a run: the embeddings of its training split are computed once, and heads are trained on them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from bigearthnet_cbir.config import Config, as_config
from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.models.hash_heads import HashHeads
from bigearthnet_cbir.pipelines.builders import build_hash_loss
from bigearthnet_cbir.pipelines.code_settings import DEFAULT_BITS
from bigearthnet_cbir.pipelines.extract import extract
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor, checkpoint_extractor
from bigearthnet_cbir.search.binarizers import fit_binarizers
from bigearthnet_cbir.search.projections import mean_unit_row, unit_blocks
from bigearthnet_cbir.storage.features import DATASETS, open_features
from bigearthnet_cbir.storage.hdf5_reading import read
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import load_checkpoint, load_weights, save_checkpoint
from bigearthnet_cbir.training.hashing import HashSettings, HashTrainer, check_heads, fit_heads

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)

READS_LABELS: Final = ("orthohash",)


def train_hash_heads(
    config: Config | Mapping[str, Any] | Path | str,
    folder: RunFolder | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    settings: HashSettings | None = None,
) -> Path:
    """Train hash heads on the frozen encoder of a run and return their checkpoint.

    Args:
        config: the run's configuration; its code_bits, hash_loss, feature and seed determine the heads.
        folder: the run's folder, by default the configured one.
        resume: continue from heads of the same settings; start from scratch if there are none.
        overwrite: replace earlier heads.
        settings: training settings; None for the defaults.

    Raises:
        CheckpointError: there is no encoder, or there are heads already and neither option was given.
        DataError: the training split cannot be read, or lacks the labels that the loss needs.
        LockedError: another command is writing to the run folder.
    """
    config = as_config(config)
    folder = folder or RunFolder(config.run_folder)
    with folder_lock(folder.root, "train hash heads"):
        path = folder.hash_heads(config.hash_loss, config.code_bits or DEFAULT_BITS)
        if path.exists() and not (resume or overwrite):
            raise CheckpointError(
                f"{path}: hash heads exist already; use --resume to continue, --overwrite to replace them, or another "
                "code_bits or hash_loss"
            )
        _train(config, folder, path, settings or HashSettings(), resume=resume)
    return path


def _train(config: Config, folder: RunFolder, path: Path, settings: HashSettings, *, resume: bool) -> None:
    source = checkpoint_extractor(config, Path(config.state_dict) if config.state_dict else folder.best)
    labelled = config.hash_loss in READS_LABELS
    [content] = extract(config, {folder.train_features: "train"}, source, require_labels=labelled)
    with open_features(folder.train_features) as file:
        trainer = _build_trainer(config, source, file, content, settings)
        if resume and path.exists():
            trainer.restore(path)
            logger.info("%s is at epoch %d of %d", path, trainer.epoch, trainer.settings.epochs)
        _fit(trainer, file, path)


def _fit(trainer: HashTrainer, file: h5py.File, path: Path) -> None:
    began = time.perf_counter()
    s1, s2 = (read(file[DATASETS[sensor]]) for sensor in ("s1", "s2"))
    fit_heads(trainer, s1, s2, read(file["label"]), partial(save_checkpoint, path))
    logger.info("trained hash heads on %s pairs: %s, %.0f s", f"{len(s1):,}", path, time.perf_counter() - began)


def _build_trainer(
    config: Config, source: FeatureExtractor, file: h5py.File, content: str, settings: HashSettings
) -> HashTrainer:
    bits, width = config.code_bits or DEFAULT_BITS, file[DATASETS["s1"]].shape[1]
    torch.manual_seed(config.seed)
    heads = HashHeads(width, bits)
    _start_from_itq(heads, file, bits, config.seed)
    identity = {
        **_encoder_identity(source), "width": width, "code_bits": bits, "hash_loss": config.hash_loss,
        "seed": config.seed, "training_features": content, **vars(settings),
    }  # fmt: skip
    return HashTrainer(heads, build_hash_loss(config, bits), settings, config.seed, identity)


def _encoder_identity(source: FeatureExtractor) -> dict[str, Any]:
    """Return what determines the embeddings. Heads are valid for this encoder only."""
    return {"encoder": source.identity["checkpoint"], "feature": source.identity["feature"]}


def _start_from_itq(heads: HashHeads, file: h5py.File, bits: int, seed: int) -> None:
    """Initialise the heads with iterative quantisation (ITQ), fitted on the training split."""
    sensors = {sensor: file[DATASETS[sensor]] for sensor in ("s1", "s2")}
    projection = fit_binarizers("itq", sensors, bits, seed)["s1"].projection
    means = {sensor: mean_unit_row(vectors) for sensor, vectors in sensors.items()}
    total = 0.0
    for sensor, vectors in sensors.items():
        total += sum(float(((rows - means[sensor]) ** 2).sum()) for _, rows in unit_blocks(vectors))
    scale = (total / (2 * file[DATASETS["s1"]].size)) ** 0.5
    one, two = (torch.from_numpy(means[sensor]).float() for sensor in sensors)
    heads.start_from(one, two, scale or 1.0, torch.from_numpy(projection))


def load_heads(path: Path, source: FeatureExtractor) -> HashHeads:
    """Return trained hash heads.

    Args:
        path: their checkpoint.
        source: the encoder whose embeddings the heads will convert to codes.

    Raises:
        CheckpointError: the heads are missing, damaged, unfinished, or belong to another encoder.
    """
    content = load_checkpoint(path)
    if "feature" not in source.identity:
        raise CheckpointError(f"{path}: a baseline has no hash heads, which need a trained encoder; use code: itq")
    check_heads(content, path, _encoder_identity(source))
    told = content["identity"]
    if content.get("epoch") != told.get("epochs"):
        raise CheckpointError(
            f"{path}: hash heads at epoch {content.get('epoch')} of {told.get('epochs')}; complete the training "
            f"with project/train.py --hash {path.parent} --resume"
        )
    try:
        heads = HashHeads(told["width"], told["code_bits"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the settings of the heads are damaged ({error}); train them again") from error
    load_weights(heads, content["state_dict"], path)
    return heads.eval()
