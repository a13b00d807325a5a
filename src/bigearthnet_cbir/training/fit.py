"""The training loop: epochs with validation, and checkpoints of the best and the last epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.errors import TrainingError
from bigearthnet_cbir.training.checkpoints import save_checkpoint
from bigearthnet_cbir.training.distributed import broadcast_number, rank, world_size
from bigearthnet_cbir.training.engine import Trainer

logger = logging.getLogger(__name__)

Scalars = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class EpochResult:
    """The results of an epoch.

    Attributes:
        training_loss: mean over its steps and all processes.
        validation_loss: after the epoch.
        scores: validation metrics by name; known in the first process only.
        seconds: duration of its steps.
        pairs_per_second: throughput of its steps, over all processes.
        learning_rate: of its last step.
        improved: whether its validation loss is the lowest so far.
    """

    training_loss: float
    validation_loss: float
    scores: dict[str, float]
    seconds: float
    pairs_per_second: float
    learning_rate: float
    improved: bool

    @property
    def figures(self) -> dict[str, float]:
        """All values by the names of the training curves."""
        return {
            "loss/training": self.training_loss,
            "loss/validation": self.validation_loss,
            "learning_rate": self.learning_rate,
            "pairs_per_second": self.pairs_per_second,
            **{f"validation/{name}": value for name, value in self.scores.items()},
        }


def fit(
    trainer: Trainer,
    train_loader: DataLoader[PairBatch],
    val_loader: DataLoader[PairBatch],
    epochs: int,
    best: Path,
    last: Path,
    report: Scalars,
) -> None:
    """Train up to `epochs` completed epochs, and keep the best and the last checkpoint.

    Args:
        trainer: new, or restored from `last`.
        train_loader: shuffled per epoch.
        val_loader: in order, with a fixed batch size.
        epochs: number of completed epochs at the end.
        best: checkpoint of the lowest validation loss.
        last: checkpoint after the latest epoch, written after `best`.
        report: called with the epoch (1-based) and all its values by name.

    Raises:
        TrainingError: a loss is not finite.
    """
    while trainer.state.epoch < epochs:
        result = _run_epoch(trainer, train_loader, val_loader)
        if rank() != 0:
            continue
        report(trainer.state.epoch, result.figures)
        if result.improved:
            save_checkpoint(best, trainer.checkpoint())
        save_checkpoint(last, trainer.checkpoint())
        _log(result, trainer.state.epoch, epochs)


def _run_epoch(trainer: Trainer, train_loader: DataLoader[PairBatch], val_loader: DataLoader[PairBatch]) -> EpochResult:
    """Train and validate one epoch, and increment the epoch counter."""
    start = time.perf_counter()
    training_loss = trainer.train_epoch(train_loader)
    seconds = time.perf_counter() - start
    rate = len(train_loader) * (train_loader.batch_size or 1) * world_size() / seconds
    validation_loss, scores = trainer.validate(val_loader) if rank() == 0 else (0.0, {})
    validation_loss = broadcast_number(validation_loss)
    if not np.isfinite(validation_loss):
        raise TrainingError(
            f"the validation loss is {validation_loss} after epoch {trainer.state.epoch + 1}; {trainer.advice()}"
        )
    improved = validation_loss < trainer.state.best_loss
    trainer.state.epoch += 1
    trainer.state.best_loss = min(validation_loss, trainer.state.best_loss)
    return EpochResult(training_loss, validation_loss, scores, seconds, rate, trainer.last_rate, improved)


def _log(result: EpochResult, epoch: int, epochs: int) -> None:
    logger.info(
        "epoch %d/%d: training loss %.4f, validation loss %.4f%s, %.1f s, %.1f pairs/s",
        epoch, epochs, result.training_loss, result.validation_loss, " (best)" if result.improved else "",
        result.seconds, result.pairs_per_second,
    )  # fmt: skip
    if result.scores:
        logger.info("    %s", ", ".join(f"{name} {value:.4f}" for name, value in result.scores.items()))
