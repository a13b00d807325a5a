"""One model in training: an epoch of steps, a validation, and what a checkpoint holds of both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from bigearthnet_cbir.data.augment import Augmentation
from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.loaders import EpochSampler, mixed_seed
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.errors import CheckpointError, TrainingError
from bigearthnet_cbir.evaluation.classification import classification_scores
from bigearthnet_cbir.models.dual_encoder import DualOutput
from bigearthnet_cbir.training.checkpoints import load_weights
from bigearthnet_cbir.training.distributed import mean_over_processes, rank, wrap_ddp
from bigearthnet_cbir.training.grad_cache import GradientCache
from bigearthnet_cbir.training.objectives import Objective, TrainingStep
from bigearthnet_cbir.training.optimizers import read_rates, take_rates
from bigearthnet_cbir.training.restoring import restore_optimizer, restore_schedule
from bigearthnet_cbir.training.resuming import changes_of, check_content, find_changes, finite_advice

logger = logging.getLogger(__name__)

FINITE_CHECK_STEPS = 50
"""Steps between checks of the losses, because each check waits for the device."""


@dataclass
class TrainingState:
    """Progress of a run: completed epochs and the lowest validation loss so far."""

    epoch: int = 0
    best_loss: float = float("inf")


@dataclass
class Trainer:
    """A model in training, with everything that a step needs.

    Attributes:
        model: the encoder: (s1, s2) -> DualOutput.
        objective: the loss.
        optimizer: optimiser of the parameters of both.
        scheduler: stepped after every optimiser step, or None.
        transform: converts stored values to network input.
        augment: applied to training batches, or None.
        precision: autocast dtype; float32 means no autocast.
        seed: seed of the augmentation, which depends only on seed, epoch and step.
        identity: settings that must be equal when a run resumes from a checkpoint.
        accumulate: batches whose gradients are averaged per optimiser step; negatives come from one batch.
        clip_norm: largest total norm of the gradients; 0: no clipping.
        compile: whether the step uses torch.compile.
        micro_batch: pairs of a forward pass in this process, by gradient caching; 0: the whole batch.
        last_rate: learning rate of the latest optimiser step.
        changes: settings that took a new value when the run was resumed: epoch, key, from, to.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.OneCycleLR | None
    transform: BatchTransform
    augment: Augmentation | None
    precision: torch.dtype
    seed: int
    identity: dict[str, Any]
    accumulate: int = 1
    clip_norm: float = 0.0
    compile: bool = False
    micro_batch: int = 0
    state: TrainingState = field(default_factory=TrainingState)
    last_rate: float = 0.0
    changes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        step = TrainingStep(self.model, self.objective)
        self._weights = [weight for weight in step.parameters() if weight.requires_grad]
        self._backward: Callable[..., Tensor]
        if self.micro_batch:
            self._backward = GradientCache(step, self.micro_batch, self._autocast, self.compile).backward
        else:
            self._backward = self._plain_backward
            wrapped = wrap_ddp(step, self.device)
            self._forward = torch.compile(wrapped) if self.compile else wrapped

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self.transform.device

    def train_epoch(self, loader: DataLoader[PairBatch]) -> float:
        """Run one epoch and return its mean loss over all processes.

        Raises:
            TrainingError: a loss is not finite; the message has epoch and step, and no checkpoint is written.
        """
        self.model.train()
        self.objective.train()
        epoch = self.state.epoch
        if isinstance(loader.sampler, EpochSampler):
            loader.sampler.epoch = epoch
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        for step, batch in enumerate(tqdm(loader, f"epoch {epoch + 1}", unit="batch", leave=False, disable=None)):
            losses.append(self._gradients(batch, epoch, step))
            if (step + 1) % self.accumulate == 0 or step + 1 == len(loader):
                self._update(step % self.accumulate + 1)
            if (step + 1) % FINITE_CHECK_STEPS == 0:
                self._check_finite(losses, step + 1 - FINITE_CHECK_STEPS)
        self._check_finite(losses, 0)
        return mean_over_processes(torch.stack(losses).mean())

    def _gradients(self, batch: PairBatch, epoch: int, step: int) -> Tensor:
        s1, s2 = self.transform(batch)
        if self.augment is not None:
            generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch, step, rank()))
            s1, s2 = self.augment(s1, s2, generator)
        return self._backward(*channels_last(s1, s2), *self._targets(batch))

    def _plain_backward(self, *inputs: Tensor) -> Tensor:
        with self._autocast():
            loss: Tensor = self._forward(*inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _update(self, batches: int) -> None:
        if batches > 1:
            for weight in self._weights:
                if weight.grad is not None:
                    weight.grad /= batches
        if self.clip_norm:
            nn.utils.clip_grad_norm_(self._weights, self.clip_norm)
        self.last_rate = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scheduler is not None:
            self.scheduler.step()

    def _targets(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        return batch.label.to(self.device, non_blocking=True), batch.pair_index.to(self.device, non_blocking=True)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def _check_finite(self, losses: list[Tensor], first: int) -> None:
        finite = torch.stack(losses[first:]).isfinite()
        if not bool(finite.all()):
            step = first + int((~finite).nonzero()[0])
            raise TrainingError(
                f"the loss is {float(losses[step])} at epoch {self.state.epoch + 1}, step {step + 1}; {self.advice()}"
            )

    def advice(self) -> str:
        """Return the remedy for a loss that is not finite."""
        return finite_advice(self.state.epoch, self.optimizer.defaults["lr"])

    @torch.no_grad()
    def validate(self, loader: DataLoader[PairBatch]) -> tuple[float, dict[str, float]]:
        """Return the sample-weighted mean loss in eval mode, and scores if the objective has classes.

        The contrastive loss depends on the batch size, so compared runs must validate with equal batch sizes.
        """
        self.model.eval()
        self.objective.eval()
        total, count = 0.0, 0
        labels, probabilities = [], []
        for batch in tqdm(loader, "validation", unit="batch", leave=False, disable=None):
            with self._autocast():
                output: DualOutput = self.model(*channels_last(*self.transform(batch)))
                loss = self.objective(output, *self._targets(batch))
                predicted = self.objective.probabilities(output)
            total += float(loss) * len(batch.label)
            count += len(batch.label)
            if predicted is not None:
                labels.append(batch.label.numpy())
                probabilities.append(predicted.cpu().numpy())
        scores = classification_scores(np.concatenate(labels), np.concatenate(probabilities)) if labels else {}
        return total / count, scores

    def checkpoint(self) -> dict[str, Any]:
        """Return the complete state for exact resuming."""
        return {
            "epoch": self.state.epoch,
            "best_loss": self.state.best_loss,
            "state_dict": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "rng": torch.get_rng_state(),
            "identity": self.identity,
            "changes": self.changes,
        }

    def restore(self, content: dict[str, Any], path: Path, asked: Collection[str] = ()) -> list[dict[str, Any]]:
        """Restore a checkpoint of this run, and return the settings with new values.

        Args:
            content: content of the checkpoint.
            path: path of the checkpoint, for messages.
            asked: names in resuming.CHANGEABLE that may differ.

        Raises:
            CheckpointError: it is of a run with other settings, or lacks a part of the state.
        """
        check_content(content, path)
        changes = find_changes(content, self.identity, asked, path)
        load_weights(self.model, content["state_dict"], path)
        load_weights(self.objective, content["objective"], path)
        try:
            self._restore_optimizer(content, {change["key"] for change in changes})
            torch.set_rng_state(content["rng"])
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: damaged, cannot resume; start a new run") from error
        for change in changes:
            logger.info("from epoch %d on: %s %s instead of %s", *map(change.get, ("epoch", "key", "to", "from")))
            if change["key"] == "temperature":
                self.objective.change_temperature(change["to"])
        self.state = TrainingState(content["epoch"], content["best_loss"])
        self.changes = [*changes_of(content), *changes]
        return changes

    def _restore_optimizer(self, content: dict[str, Any], changed: set[str]) -> None:
        rates = read_rates(self.optimizer)
        restore_optimizer(self.optimizer, content["optimizer"])
        if changed & {"learning_rate", "epochs"}:
            total = None if self.scheduler is None else self.scheduler.total_steps
            done = 0 if total is None else content["scheduler"]["last_epoch"]
            self.scheduler = take_rates(self.optimizer, rates, total, done)
        elif self.scheduler is not None:
            restore_schedule(self.scheduler, content["scheduler"])


def channels_last(s1: Tensor, s2: Tensor) -> tuple[Tensor, Tensor]:
    """Return both batches in channels-last memory layout, which is fastest for convolutions."""
    one, two = (images.contiguous(memory_format=torch.channels_last) for images in (s1, s2))
    return one, two
