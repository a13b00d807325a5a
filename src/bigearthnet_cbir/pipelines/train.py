"""Training of a configuration: creates a run folder with the best and the last checkpoint."""

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
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines.builders import build_dataset, build_trainer, choose_device
from bigearthnet_cbir.pipelines.inputs import require_pairs
from bigearthnet_cbir.pipelines.resume import record_changes, restore
from bigearthnet_cbir.pipelines.training_checks import (
    check_micro_batches,
    check_options,
    enough_memory,
    refuse_trained,
    writable,
)
from bigearthnet_cbir.storage.run_folder import BASELINE_PREFIX, RunFolder
from bigearthnet_cbir.training.distributed import process_group, rank, wait_for_all, world_size
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.fit import fit
from bigearthnet_cbir.training.tensorboard import TensorBoardCurves

logger = logging.getLogger(__name__)

VALIDATION_BATCH = 256
"""Fixed, because the contrastive loss depends on the number of negatives; validation losses are thus comparable."""

DERIVED: Final = ("figures", "export")
"""Folders that reports and exports create in a run folder."""


def train(
    config: Config | Mapping[str, Any] | Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    change: Collection[str] = (),
) -> Path:
    """Train a run and return its folder.

    Args:
        config: the experiment: a Config, a mapping of keys, or a YAML file; start_epoch > 0 resumes like `resume`
            and is the expected epoch.
        resume: continue from the checkpoint with the highest epoch; start from scratch if there is none.
        overwrite: replace an existing run; its checkpoints, features, results and report are deleted before the first
            epoch.
        change: names of settings that a resumed run takes from `config` instead of its checkpoint; the checkpoints
            record them.

    Raises:
        CheckpointError: a trained run exists and neither option is given, or its checkpoint cannot be resumed.
        ConfigError: options contradict each other, or the run folder cannot be written.
        DataError: a list or a store is malformed, or names are missing in it.
        LockedError: another command is writing to the run folder.
        TrainingError: a loss is not finite, or memory is not sufficient.
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
            if changes:  # before parameters.yaml, so that the best checkpoint never contradicts it
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
    require_pairs(config, "train", len(train_set))
    require_pairs(config, "val", len(val_set))
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
    check_micro_batches(config, train_loader.batch_size or 1)
    val_loader = ordered_loader(val_set, VALIDATION_BATCH, config.num_workers, pin_memory=pinned)
    return train_loader, val_loader, build_trainer(config, train_set.pairs, len(train_loader))


def _open_folder(config: Config, folder: RunFolder, overwrite: bool) -> None:
    if overwrite:
        remove_run(folder)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_config(config, folder.parameters)


def remove_run(folder: RunFolder) -> None:
    """Remove all outputs of earlier commands in a run folder; parameters.yaml and other files are kept.

    The new configuration is written afterwards, so that no network with other settings remains if the new run stops in
    its first epoch.
    """
    files = (
        folder.best, folder.last, folder.query, folder.archive, folder.retrieval, folder.report, folder.codes,
        folder.train_features, *folder.root.glob("hash_heads_*"),
    )  # fmt: skip
    folders = (folder.curves, *(folder.root / name for name in DERIVED), *folder.root.glob(f"{BASELINE_PREFIX}*"))
    unfinished = [path for file in files for path in folder.root.glob(f".{file.name}*")]
    for path in (*files, *folders, *unfinished):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _no_report(epoch: int, figures: dict[str, float]) -> None:
    """Report nothing; of several processes only the first one reports."""
