"""Training: from a configuration to a run folder with its best and last checkpoint."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from bigearthnet_cbir.config import Config, write_config
from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.loaders import ordered_loader, training_loader
from bigearthnet_cbir.errors import CheckpointError, DataError
from bigearthnet_cbir.pipelines.assembly import build_dataset, build_trainer, choose_device
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import load_checkpoint
from bigearthnet_cbir.training.curves import TensorBoardCurves
from bigearthnet_cbir.training.distributed import process_group, rank, world_size
from bigearthnet_cbir.training.engine import Trainer, fit

logger = logging.getLogger(__name__)

VALIDATION_BATCH = 256
"""Fixed, because the contrastive loss depends on the number of negatives: runs stay comparable."""


def train(config: Config, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Train a run and return its folder.

    Args:
        config: the experiment; start_epoch > 0 resumes like `resume`, and names the epoch to be found there.
        resume: continue from the run's last checkpoint; begin anew where there is none.
        overwrite: allow a fresh run to replace an earlier one; its features and results go, its checkpoints are
            replaced after the first epoch.

    Raises:
        CheckpointError: there is a trained run already and neither option was given, or its last checkpoint is
            not the one to resume from.
        DataError: a list or a store is malformed, or names are missing in it.
        TrainingError: a loss is not finite.
    """
    with process_group(choose_device(config)):
        if rank() != 0:
            logging.getLogger("bigearthnet_cbir").setLevel(logging.WARNING)
        return _train(config, RunFolder(config.run_folder), resume or config.start_epoch > 0, overwrite)


def _train(config: Config, folder: RunFolder, resume: bool, overwrite: bool) -> Path:
    if folder.last.exists() and not (resume or overwrite):
        raise CheckpointError(
            f"{folder.root}: holds a trained run already; use --resume to go on, --overwrite to replace it, or "
            "another logging_params.name"
        )
    train_loader, val_loader, trainer = _prepare(config)
    if resume:
        _restore(trainer, folder, config.start_epoch)
    if rank() == 0:
        _open_folder(config, folder, overwrite)
    logger.info(
        "training %s %s on %s pairs, validating on %s, %d x %s, %d threads each, from epoch %d to %d, into %s",
        config.type, config.backbone, f"{len(train_loader.dataset):,}",  # type: ignore[arg-type]
        f"{len(val_loader.dataset):,}", world_size(), trainer.device,  # type: ignore[arg-type]
        torch.get_num_threads(), trainer.state.epoch, config.epochs, folder.root,
    )  # fmt: skip
    curves = TensorBoardCurves(folder.curves, trainer.state.epoch) if rank() == 0 else nullcontext(_no_report)
    with curves as report:
        fit(trainer, train_loader, val_loader, config.epochs, folder.best, folder.last, report)
    return folder.root


def _prepare(config: Config) -> tuple[DataLoader[PairBatch], DataLoader[PairBatch], Trainer]:
    needs_labels = config.loss_func == "classification" or config.contrastive_loss == "label_aware"
    train_set = build_dataset(config, "train", require_labels=needs_labels)
    val_set = build_dataset(config, "val", require_labels=needs_labels)
    if len(val_set) == 0:
        raise DataError(f"{config.val_csv}: lists no pairs; the best checkpoint is chosen by them")
    pinned = choose_device(config).type == "cuda"
    train_loader = training_loader(
        train_set, config.batch_size, config.seed, config.num_workers,
        pin_memory=pinned, part=rank(), parts=world_size(),
    )  # fmt: skip
    val_loader = ordered_loader(val_set, VALIDATION_BATCH, config.num_workers, pin_memory=pinned)
    return train_loader, val_loader, build_trainer(config, train_set.pairs, len(train_loader))


def _open_folder(config: Config, folder: RunFolder, overwrite: bool) -> None:
    if overwrite:
        for stale in (folder.query, folder.archive, folder.retrieval, folder.report):
            stale.unlink(missing_ok=True)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_config(config, folder.parameters)


def _no_report(epoch: int, figures: dict[str, float]) -> None:
    """Say nothing: of several processes only the first one reports."""


def _restore(trainer: Trainer, folder: RunFolder, start_epoch: int) -> None:
    if not folder.last.exists() and start_epoch == 0:
        logger.info("nothing to resume in %s: training begins at epoch 0", folder.root)
        return
    content = load_checkpoint(folder.last)
    trainer.restore(content, folder.last)
    if start_epoch not in (0, trainer.state.epoch):
        raise CheckpointError(
            f"{folder.last}: is at epoch {trainer.state.epoch}, but start_epoch is {start_epoch}; "
            f"write start_epoch: {trainer.state.epoch}, or use --resume"
        )
    logger.info("resuming after epoch %d", trainer.state.epoch)
