"""Resuming: choice and validation of the checkpoint, and the record of changed settings."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.config.keys import complete_settings
from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import load_checkpoint, save_checkpoint
from bigearthnet_cbir.training.distributed import rank
from bigearthnet_cbir.training.engine import Trainer

logger = logging.getLogger(__name__)


def restore(config: Config, trainer: Trainer, folder: RunFolder, change: Collection[str]) -> list[dict[str, Any]]:
    """Restore the trainer from the checkpoint of the run, if there is one, and return the changed settings.

    Args:
        config: configuration; start_epoch > 0 is the expected epoch.
        trainer: new trainer.
        folder: run folder.
        change: names of settings that may differ from the checkpoint.

    Raises:
        CheckpointError: start_epoch > 0 but the checkpoint is missing, is at another epoch, or is of a run with other
            settings.
    """
    found = _furthest(folder)
    if found is None:
        if config.start_epoch > 0:
            raise CheckpointError(
                f"{folder.last}: there is no such file, but start_epoch is {config.start_epoch}; write start_epoch: 0"
            )
        logger.info("nothing to resume in %s: training starts at epoch 0", folder.root)
        return []
    path, content = found
    epoch = content.get("epoch")
    if isinstance(epoch, int):
        _check_epoch(config, path, epoch)
    if isinstance(content.get("identity"), dict):
        content = {**content, "identity": complete_settings(content["identity"], config)}
    changes = trainer.restore(content, path, change)
    if path == folder.best and rank() == 0:
        save_checkpoint(folder.last, content)  # after the final epoch nothing later would update it
    if epoch == config.epochs:
        logger.info("%s is already at epoch %d: nothing to train", path, epoch)
    else:
        logger.info("resuming after epoch %d", trainer.state.epoch)
    return changes


def _furthest(folder: RunFolder) -> tuple[Path, dict[str, Any]] | None:
    """Return the checkpoint of the latest epoch; the best one is later if a kill came before the last was written."""
    last = load_checkpoint(folder.last) if folder.last.exists() else None
    if not folder.best.exists():
        return None if last is None else (folder.last, last)
    if last is None:
        return folder.best, load_checkpoint(folder.best)
    try:
        best = load_checkpoint(folder.best)
    except CheckpointError:
        return folder.last, last
    same = "identity" in last and best.get("identity") == last["identity"]
    epochs = best.get("epoch"), last.get("epoch")
    if same and all(isinstance(epoch, int) for epoch in epochs) and epochs[0] > epochs[1]:  # type: ignore[operator]
        return folder.best, best
    return folder.last, last


def _check_epoch(config: Config, path: Path, epoch: int) -> None:
    """Refuse a checkpoint of another epoch than configured."""
    if epoch > config.epochs:
        raise CheckpointError(
            f"{path}: is at epoch {epoch}, beyond epochs, which is {config.epochs}; write epochs: {epoch} or more, or "
            "start again with --overwrite"
        )
    if config.start_epoch not in (0, epoch):
        cure = f"write start_epoch: {epoch}, or start_epoch: 0 and use --resume"
        if epoch == config.epochs:
            cure = f"its {epoch} epochs are finished: write start_epoch: 0, and more epochs to continue with --resume"
        raise CheckpointError(f"{path}: is at epoch {epoch}, but start_epoch is {config.start_epoch}; {cure}")


def record_changes(trainer: Trainer, folder: RunFolder) -> None:
    """Record the changed settings in both checkpoints, so that they agree with parameters.yaml."""
    if folder.best.exists():
        best = load_checkpoint(folder.best)
        save_checkpoint(folder.best, {**best, "changes": trainer.changes})
    save_checkpoint(folder.last, trainer.checkpoint())
