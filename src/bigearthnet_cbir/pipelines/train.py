"""Training: from a configuration to a run folder with its best and last checkpoint."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.data import DataLoader

from bigearthnet_cbir.config import Config, as_config, write_config
from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.loaders import ordered_loader, training_loader
from bigearthnet_cbir.errors import ConfigError, DataError
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines.builders import build_dataset, build_trainer, choose_device
from bigearthnet_cbir.pipelines.resume import record_changes, restore
from bigearthnet_cbir.pipelines.training_checks import check_options, enough_memory, refuse_trained, writable
from bigearthnet_cbir.storage.run_folder import BASELINE_PREFIX, RunFolder
from bigearthnet_cbir.training.distributed import process_group, rank, wait_for_all, world_size
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.fit import fit
from bigearthnet_cbir.training.tensorboard import TensorBoardCurves

logger = logging.getLogger(__name__)

VALIDATION_BATCH = 256
"""Fixed, because the contrastive loss depends on the number of negatives: runs stay comparable."""

DERIVED: Final = ("figures", "export")
"""Folders that reports and exports make in a run folder."""


def train(
    config: Config | Mapping[str, Any] | Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    change: Collection[str] = (),
) -> Path:
    """Train a run and return its folder.

    Args:
        config: the experiment: a Config, a mapping of keys, or a YAML file; start_epoch > 0 resumes like `resume`,
            and names the epoch to be found there.
        resume: continue from the run's checkpoint that is furthest on; begin anew where there is none.
        overwrite: allow a fresh run to replace an earlier one; its checkpoints, features, results and report go
            before the first epoch.
        change: names of settings that a resumed run takes from `config` though its checkpoint has other values;
            they are recorded in its checkpoints.

    Raises:
        CheckpointError: there is a trained run already and neither option was given, or its checkpoint is not the
            one to resume from.
        ConfigError: options contradict each other, or the run folder cannot be written.
        DataError: a list or a store is malformed, or names are missing in it.
        LockedError: another command is at work in the run folder.
        TrainingError: a loss is not finite, or the memory does not suffice.
    """
    config = as_config(config)
    goes_on = resume or config.start_epoch > 0
    check_options(config, goes_on, overwrite, change)
    device = choose_device(config)
    with process_group(device), enough_memory(config, device):
        if rank() != 0:
            logging.getLogger("bigearthnet_cbir").setLevel(logging.WARNING)
        return _train(config, RunFolder(config.run_folder), goes_on, overwrite, change)


def _train(config: Config, folder: RunFolder, goes_on: bool, overwrite: bool, change: Collection[str]) -> Path:
    refuse_trained(folder, goes_on or overwrite)
    train_loader, val_loader, trainer = _prepare(config)
    with ExitStack() as held:
        if rank() == 0:
            with writable(config):
                held.enter_context(folder_lock(folder.root, "train"))
            refuse_trained(folder, goes_on or overwrite)
        changes = restore(config, trainer, folder, change) if goes_on else []
        wait_for_all()
        if rank() == 0:
            if changes:  # before parameters.yaml, which the best checkpoint must not contradict at any moment
                record_changes(trainer, folder)
            with writable(config):
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
    for path, pairs in ((config.train_csv, train_set), (config.val_csv, val_set)):
        least = 2 if config.loss_func == "contrastive" else 1
        if len(pairs) < least:
            why = "the contrastive loss of one pair is always 0" if len(pairs) else "there is nothing to learn from"
            raise DataError(f"{path}: lists {len(pairs)} pairs; {why}: give a list of {least} or more")
    pinned = choose_device(config).type == "cuda"
    train_loader = training_loader(
        train_set, config.batch_size, config.seed, config.num_workers,
        pin_memory=pinned, rank=rank(), num_replicas=world_size(),
    )  # fmt: skip
    if config.accumulate_steps > len(train_loader):
        raise ConfigError(
            f"{config.source}: accumulate_steps is {config.accumulate_steps}, but an epoch has {len(train_loader)} "
            f"batches; give at most {len(train_loader)}"
        )
    val_loader = ordered_loader(val_set, VALIDATION_BATCH, config.num_workers, pin_memory=pinned)
    return train_loader, val_loader, build_trainer(config, train_set.pairs, len(train_loader))


def _open_folder(config: Config, folder: RunFolder, overwrite: bool) -> None:
    if overwrite:
        remove_run(folder)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_config(config, folder.parameters)


def remove_run(folder: RunFolder) -> None:
    """Remove all that earlier commands wrote into a run folder; what else lies there, and parameters.yaml, stays.

    The new configuration is written only after this: a run that then stops in its first epoch leaves no network of
    other settings that could be scored under its name.
    """
    files = (folder.best, folder.last, folder.query, folder.archive, folder.retrieval, folder.report)
    folders = (folder.curves, *(folder.root / name for name in DERIVED), *folder.root.glob(f"{BASELINE_PREFIX}*"))
    unfinished = [path for file in files for path in folder.root.glob(f".{file.name}*")]
    for path in (*files, *folders, *unfinished):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _no_report(epoch: int, figures: dict[str, float]) -> None:
    """Say nothing: of several processes only the first one reports."""
