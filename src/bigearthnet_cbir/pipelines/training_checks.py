"""Checks before training starts, and one-line errors for memory and disk."""

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
from bigearthnet_cbir.pipelines.builders import choose_device
from bigearthnet_cbir.pipelines.foreign_encoder import refuse_foreign
from bigearthnet_cbir.pipelines.inputs import refuse_int8
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.distributed import world_size
from bigearthnet_cbir.training.resuming import CHANGEABLE


def check_options(config: Config, goes_on: bool, overwrite: bool, change: Collection[str]) -> None:
    """Raise ConfigError for contradicting options and for settings that cannot change."""
    refuse_foreign(config, "remove the key encoder to train a network here")
    refuse_int8(config)
    if overwrite and goes_on:
        raise ConfigError(
            f"{config.source}: start_epoch > 0 and --resume continue a run, --overwrite replaces it; give one only"
        )
    if change and not goes_on:
        raise ConfigError(f"--change {' '.join(change)}: needs --resume; give both")
    fixed = [key for key in change if key not in CHANGEABLE]
    if fixed:
        raise ConfigError(
            f"--change {' '.join(fixed)}: this setting of a run is fixed; only {', '.join(CHANGEABLE)} can "
            "change; use another logging_params.name"
        )


def refuse_trained(folder: RunFolder, allowed: bool) -> None:
    """Raise CheckpointError if the run folder has a best or last checkpoint, unless allowed."""
    if not allowed and (folder.last.exists() or folder.best.exists()):
        raise CheckpointError(
            f"{folder.root}: already has a trained run; use --resume to continue, --overwrite to replace it, or "
            "another logging_params.name"
        )


def check_inputs(config: Config) -> None:
    """Check what all runs of a sweep share besides lists and archives: weights, device, the folder of results.

    Raises:
        ConfigError, CheckpointError: as in training and retrieval.
    """
    refuse_foreign(config, "a sweep trains its networks: leave the key encoder out")
    choose_device(config)
    for file in (config.init_weights, config.init_weights_s1):
        if file is not None:
            read_timm_weights(Path(file)) if config.backbone.startswith(TIMM_PREFIX) else read_pretrained(Path(file))
    group = config.run_folder.parent
    with writable(config):
        group.mkdir(parents=True, exist_ok=True)
        if not os.access(group, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_micro_batches(config: Config, batch: int) -> None:
    """Raise ConfigError if a batch of a process does not consist of whole micro-batches.

    Args:
        config: the experiment.
        batch: pairs per batch of a process; fewer than configured if the training list is shorter.
    """
    micro, processes = config.micro_batch_size, world_size()
    if micro and (micro % processes or batch * processes % micro):
        raise ConfigError(
            f"{config.source}: micro_batch_size is {micro}; give a multiple of the {processes} training processes that "
            f"divides the {batch * processes} pairs of a batch, or 0"
        )


@contextmanager
def writable(config: Config) -> Iterator[None]:
    """Convert write errors of the run folder to one line."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{config.source}: logging_params.save_dir is {config.logging_params.save_dir}, where "
            f"{config.run_folder} cannot be written ({error.strerror or error}); give a writable folder"
        ) from error


@contextmanager
def enough_memory(config: Config, device: torch.device) -> Iterator[None]:
    """Convert out-of-memory errors to one line, on GPU and CPU."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise TrainingError(
            f"{config.source}: the memory of {device} is not sufficient for batch_size {config.batch_size}; lower "
            "batch_size, window, memory_size or projection_dim, give a smaller micro_batch_size, or choose a smaller "
            "backbone"
        ) from error
