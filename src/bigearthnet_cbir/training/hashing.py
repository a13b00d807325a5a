"""Training of hash heads on embeddings that are computed once. It takes minutes, where an encoder takes hours."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bigearthnet_cbir.data.loaders import mixed_seed
from bigearthnet_cbir.errors import CheckpointError, TrainingError
from bigearthnet_cbir.models.hash_heads import HashHeads
from bigearthnet_cbir.training.checkpoints import load_checkpoint, load_weights
from bigearthnet_cbir.training.optimizers import build_optimizer

logger = logging.getLogger(__name__)

HASH_KIND: Final = "bigearthnet-cbir hash heads"
DECAY: Final = 1e-4
"""Weight decay of AdamW."""


@dataclass(frozen=True)
class HashSettings:
    """Settings of the training of hash heads.

    Attributes:
        epochs: passes over the embeddings.
        batch_size: pairs per step; the other pairs of a batch are the negatives of each pair.
        learning_rate: at the first step; cosine decay to 0.
    """

    epochs: int = 120
    batch_size: int = 256
    learning_rate: float = 3e-3


@dataclass
class HashTrainer:
    """Hash heads in training.

    Attributes:
        heads: the trained heads.
        loss: (u1, u2, label) -> scalar.
        settings: of the training.
        seed: of the shuffling, which depends only on seed and epoch.
        identity: plain values that must be equal in a checkpoint and in the training that resumes from it.
        epoch: number of completed epochs.
    """

    heads: HashHeads
    loss: nn.Module
    settings: HashSettings
    seed: int
    identity: dict[str, Any]
    epoch: int = 0
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        weights = [*self.heads.parameters(), *self.loss.parameters()]
        self.optimizer = build_optimizer("adamw", weights, self.settings.learning_rate, DECAY)

    def train_epoch(self, s1: npt.NDArray[Any], s2: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
        """Run one epoch over (N, D) embeddings of both sensors and (N, L) labels, and return its mean loss.

        Raises:
            TrainingError: the loss is not finite.
        """
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        order = torch.randperm(len(s1), generator=generator).numpy()
        pieces = max(1, round(len(order) / self.settings.batch_size))
        losses = []
        for step, rows in enumerate(np.array_split(order, pieces)):
            self._set_rate((self.epoch + step / pieces) / self.settings.epochs)
            batch = (torch.from_numpy(np.array(values[rows])) for values in (s1, s2, labels))
            losses.append(self._step(*batch))
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss of the hash heads is not finite in epoch {self.epoch + 1}; extract the features again with "
                "precision: fp32, or use another checkpoint"
            )
        self.epoch += 1
        return mean

    def _step(self, s1: Tensor, s2: Tensor, label: Tensor) -> Tensor:
        loss: Tensor = self.loss(*self.heads(s1.float(), s2.float()), label)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def _set_rate(self, done: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def content(self) -> dict[str, Any]:
        """Return the content of a checkpoint of the heads."""
        return {
            "kind": HASH_KIND,
            "identity": self.identity,
            "epoch": self.epoch,
            "state_dict": self.heads.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, path: Path) -> None:
        """Resume from a checkpoint of the heads.

        Raises:
            CheckpointError: it is broken, not a checkpoint of hash heads, or of another training.
        """
        content = load_checkpoint(path)
        check_heads(content, path, self.identity)
        load_weights(self.heads, content["state_dict"], path)
        try:
            self.loss.load_state_dict(content["loss"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.epoch = int(content["epoch"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path}: is damaged ({error}); train the heads anew with --overwrite") from error


def check_heads(content: dict[str, Any], path: Path, expected: dict[str, Any]) -> None:
    """Raise an error if hash heads were trained with other settings.

    Args:
        content: of the checkpoint.
        path: of the checkpoint.
        expected: settings that it must have, all or some.

    Raises:
        CheckpointError: a setting differs; the message names it.
    """
    told = content.get("identity", {})
    if content.get("kind") != HASH_KIND:
        raise CheckpointError(f"{path}: holds no hash heads; train them: project/train.py --hash {path.parent}")
    differing = [f"{name} {told.get(name)!r} is not {value!r}" for name, value in expected.items()
                 if told.get(name) != value]  # fmt: skip
    if differing:
        raise CheckpointError(
            f"{path}: these hash heads are of another training ({'; '.join(differing)}); train them anew: "
            f"project/train.py --hash {path.parent} --overwrite"
        )


def fit_heads(
    trainer: HashTrainer,
    s1: npt.NDArray[Any],
    s2: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    save: Callable[[dict[str, Any]], None],
    every: int = 10,
) -> None:
    """Train hash heads to their last epoch.

    Args:
        trainer: new or restored.
        s1: (N, D) embeddings of Sentinel-1.
        s2: (N, D) embeddings of Sentinel-2.
        labels: (N, L) of 0 and 1.
        save: writes the content of a checkpoint, after every `every` epochs and after the last.
        every: number of epochs between two checkpoints.
    """
    epochs = trainer.settings.epochs
    while trainer.epoch < epochs:
        loss = trainer.train_epoch(s1, s2, labels)
        if trainer.epoch % every == 0 or trainer.epoch == epochs:
            logger.info("hash heads, epoch %d/%d: training loss %.4f", trainer.epoch, epochs, loss)
            save(trainer.content())
