"""What is refused before training begins, and what the machine may refuse: each in one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.errors import CheckpointError, ConfigError, TrainingError
from bigearthnet_cbir.models.pretrained import read_pretrained
from bigearthnet_cbir.models.timm_backbone import TIMM_PREFIX
from bigearthnet_cbir.models.timm_pretrained import read_timm_weights
from bigearthnet_cbir.pipelines.builders import build_dataset, choose_device
from bigearthnet_cbir.pipelines.foreign_encoder import refuse_foreign
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.resuming import CHANGEABLE


def check_options(config: Config, goes_on: bool, overwrite: bool, change: Collection[str]) -> None:
    """Refuse options that contradict each other, and changes that a run cannot take; raises ConfigError."""
    refuse_foreign(config, "leave the key encoder out to train a network here")
    if overwrite and goes_on:
        raise ConfigError(
            f"{config.source}: start_epoch > 0 and --resume go on, --overwrite begins anew; give one of them only"
        )
    if change and not goes_on:
        raise ConfigError(f"--change {' '.join(change)}: is for a run that goes on; give --resume too")
    fixed = [key for key in change if key not in CHANGEABLE]
    if fixed:
        raise ConfigError(
            f"--change {' '.join(fixed)}: a run keeps this from its first epoch on; only {', '.join(CHANGEABLE)} may "
            "change, for the rest use another logging_params.name"
        )


def refuse_trained(folder: RunFolder, allowed: bool) -> None:
    """Refuse to begin where a trained network is, best or last, unless that was asked for; raises CheckpointError."""
    if not allowed and (folder.last.exists() or folder.best.exists()):
        raise CheckpointError(
            f"{folder.root}: holds a trained run already; use --resume to go on, --overwrite to replace it, or "
            "another logging_params.name"
        )


def check_inputs(config: Config) -> None:
    """Refuse what would end every run of a sweep alike: lists, archives, weights, device, the folder of results.

    Raises:
        ConfigError, CheckpointError, DataError: as training and retrieval would.
    """
    refuse_foreign(config, "a sweep trains its networks: leave the key encoder out")
    choose_device(config)
    for split in dict.fromkeys(("train", "val", config.query_split, config.archive_split)):
        build_dataset(config, split, require_labels=True)
    for file in (config.init_weights, config.init_weights_s1):
        if file is not None:
            read_timm_weights(Path(file)) if config.backbone.startswith(TIMM_PREFIX) else read_pretrained(Path(file))
    group = config.run_folder.parent
    with writable(config):
        group.mkdir(parents=True, exist_ok=True)
        if not os.access(group, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def writable(config: Config) -> Iterator[None]:
    """Say in one line where results cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{config.source}: logging_params.save_dir is {config.logging_params.save_dir}, where "
            f"{config.run_folder} cannot be written ({error.strerror or error}); give a folder that you may write to"
        ) from error


@contextmanager
def enough_memory(config: Config, device: torch.device) -> Iterator[None]:
    """Say in one line that memory does not suffice, on a GPU or beside it."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise TrainingError(
            f"{config.source}: the memory of {device} does not suffice for batch_size {config.batch_size}; lower "
            "batch_size, window, memory_size or projection_dim, or choose a smaller backbone"
        ) from error
