"""Training objectives that benchmarks/ablation.py compares with the recommended recipe; the package does not have them.

Each entry of CHANGES turns the trainer of a configuration into one with another objective, everything else equal. They
run in one process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigearthnet_cbir.config import Config, write_config
from bigearthnet_cbir.data.augment import Augmentation
from bigearthnet_cbir.data.loaders import ordered_loader, training_loader
from bigearthnet_cbir.losses.memory_bank import CrossBatchMemory
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualOutput
from bigearthnet_cbir.pipelines.builders import build_dataset, build_trainer
from bigearthnet_cbir.pipelines.train import VALIDATION_BATCH
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import load_checkpoint
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.fit import fit
from bigearthnet_cbir.training.objectives import Objective, TrainingStep
from bigearthnet_cbir.training.optimizers import build_optimizer, one_cycle

EXPANDER_WIDTH = 512
"""The papers have 8,192; with batches of 32 and 128 projections that many have no use."""


class TwoViews:
    """Augments a batch twice and joins both results: (B, ...) becomes (2B, ...), the second views after the first."""

    def __init__(self, augment: Augmentation) -> None:
        self.augment = augment

    def __call__(self, s1: Tensor, s2: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return both views of both sensors."""
        first, second = (self.augment(s1, s2, generator) for _ in range(2))
        return torch.cat((first[0], second[0])), torch.cat((first[1], second[1]))


class WithinSensorObjective(Objective):
    """NT-Xent between the sensors, plus the weighted NT-Xent between two views of the same sensor (`TwoViews`).

    The validation loss has one view and is NT-Xent between the sensors.
    """

    def __init__(self, temperature: float, weight: float = 1.0) -> None:
        super().__init__()
        self.loss = NTXentLoss(temperature)
        self.weight = weight

    def forward(self, output: DualOutput, label: Tensor, pair_index: Tensor) -> Tensor:
        """Return the loss of a batch."""
        if not self.training:
            return self.loss(output.z1, output.z2)
        (first1, second1), (first2, second2) = (z.chunk(2) for z in (output.z1, output.z2))
        between = (self.loss(first1, first2) + self.loss(second1, second2)) / 2
        within = (self.loss(first1, second1) + self.loss(first2, second2)) / 2
        return between + self.weight * within


def vicreg(u1: Tensor, u2: Tensor) -> Tensor:
    """Return the VICReg loss of (B, D) embeddings, a float32 scalar.

    Bardes et al. 2022, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    https://arxiv.org/abs/2105.04906: weights 25, 25 and 1. As in the authors' implementation, the invariance term is
    the mean over dimensions, and the variance term the mean over both branches.
    """
    invariance = (u1 - u2).square().mean()
    variance, covariance = u1.new_zeros(()), u1.new_zeros(())
    for u in (u1, u2):
        variance = variance + (1.0 - (u.var(dim=0) + 1e-4).sqrt()).relu().mean() / 2
        matrix = u.T.cov()
        covariance = covariance + off_diagonal(matrix).square().sum() / u.shape[1]
    return 25.0 * invariance + 25.0 * variance + covariance


def barlow_twins(u1: Tensor, u2: Tensor) -> Tensor:
    """Return the Barlow Twins loss of (B, D) embeddings, a float32 scalar.

    Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction",
    https://arxiv.org/abs/2103.03230: weight 0.005 of the terms off the diagonal.
    """
    first, second = ((u - u.mean(dim=0)) / (u.var(dim=0, correction=0) + 1e-5).sqrt() for u in (u1, u2))
    matrix = first.T @ second / len(u1)
    return (1.0 - matrix.diagonal()).square().sum() + 0.005 * off_diagonal(matrix).square().sum()


def off_diagonal(matrix: Tensor) -> Tensor:
    """Return a square matrix with zeros on its diagonal."""
    return matrix - torch.diag(matrix.diagonal())


class ExpandedObjective(Objective):
    """A loss of the outputs of a three-layer expander over the projections, which is dropped after training.

    Both papers compute their loss behind such an expander and use the layer before it.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], projection_dim: int) -> None:
        super().__init__()
        self.loss = loss
        hidden = [nn.Linear(projection_dim, EXPANDER_WIDTH), nn.BatchNorm1d(EXPANDER_WIDTH), nn.ReLU()]
        hidden += [nn.Linear(EXPANDER_WIDTH, EXPANDER_WIDTH), nn.BatchNorm1d(EXPANDER_WIDTH), nn.ReLU()]
        self.expander = nn.Sequential(*hidden, nn.Linear(EXPANDER_WIDTH, EXPANDER_WIDTH))

    def forward(self, output: DualOutput, label: Tensor, pair_index: Tensor) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(self.expander(output.z1).float(), self.expander(output.z2).float())


class MomentumObjective(Objective):
    """Contrast of the projections with those of a slow encoder: of this batch, and of earlier ones in a queue.

    He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning" (MoCo),
    https://arxiv.org/abs/1911.05722, between two sensors. The validation loss is NT-Xent without slow encoder.

    Args:
        model: encoder whose exponential moving average the slow encoder is.
        temperature: divisor of the cosine similarities.
        size: pairs in the queue.
        momentum: share of the slow encoder's weights that a step keeps.
        projection_dim: length of a projection.
    """

    def __init__(self, model: nn.Module, temperature: float, size: int, momentum: float, projection_dim: int) -> None:
        super().__init__()
        self.loss = NTXentLoss(temperature)
        self.slow = copy.deepcopy(model).requires_grad_(False)
        self.queue = CrossBatchMemory(size, projection_dim)
        self.momentum = momentum

    def forward(self, output: DualOutput, label: Tensor, pair_index: Tensor) -> Tensor:
        """Return the validation loss of a batch."""
        return self.loss(output.z1, output.z2)

    @torch.no_grad()
    def keys(self, model: nn.Module, s1: Tensor, s2: Tensor) -> DualOutput:
        """Move the slow encoder towards the encoder and return its output."""
        for slow, weight in zip(self.slow.parameters(), model.parameters(), strict=True):
            slow.lerp_(weight, 1.0 - self.momentum)
        return self.slow(s1, s2)

    def contrast(self, output: DualOutput, keys: DualOutput, pair_index: Tensor) -> Tensor:
        """Return the training loss of a batch, and put its keys into the queue."""
        negatives, allowed = self.queue.negatives(pair_index)
        self.queue.add(keys.z1, keys.z2, pair_index)
        return momentum_contrast(output, keys, negatives, allowed, self.loss.temperature.value)


def momentum_contrast(
    output: DualOutput, keys: DualOutput, negatives: Tensor, allowed: Tensor, temperature: float
) -> Tensor:
    """Return the mean cross entropy of 2B projections against the keys of the other sensor's patch, a float32 scalar.

    Args:
        output: of the encoder; only z1 and z2 (B, P) are used.
        keys: of the slow encoder. The key of the same patch is masked out, all others are negatives.
        negatives: (M, P) normalised keys of earlier batches.
        allowed: (B, M) bool mask of the negatives of each pair.
        temperature: divisor of the cosine similarities.
    """
    size = len(output.z1)
    views = functional.normalize(torch.cat((output.z1, output.z2)).float(), dim=1)
    others = functional.normalize(torch.cat((keys.z1, keys.z2)).float(), dim=1)
    same = torch.eye(2 * size, dtype=torch.bool, device=views.device)
    current = (views @ others.T).masked_fill(same, -torch.inf)
    earlier = (views @ negatives.T).masked_fill(~torch.cat((allowed, allowed)), -torch.inf)
    positive = torch.arange(2 * size, device=views.device).roll(size)
    return functional.cross_entropy(torch.cat((current, earlier), dim=1) / temperature, positive)


class MomentumStep(TrainingStep):
    """A training step whose objective also sees the images."""

    objective: MomentumObjective

    def forward(self, s1: Tensor, s2: Tensor, label: Tensor, pair_index: Tensor) -> Tensor:
        """Return the loss of the batch."""
        keys = self.objective.keys(self.model, s1, s2)
        return self.objective.contrast(self.model(s1, s2), keys, pair_index)


class MomentumTrainer(Trainer):
    """A trainer with a MomentumStep."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._forward = MomentumStep(self.model, self.objective)


def with_objective(trainer: Trainer, config: Config, objective: Objective) -> Trainer:
    """Return the trainer with another objective, whose weights are trained too."""
    modules = trainer.model, objective
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    optimizer = build_optimizer(config.optimizer, weights, config.learning_rate, config.weight_decay)
    scheduler = one_cycle(optimizer, config.learning_rate, trainer.scheduler.total_steps)
    return replace(trainer, objective=objective, optimizer=optimizer, scheduler=scheduler)


def within_sensor(trainer: Trainer, config: Config) -> Trainer:
    """Contrast two views of each sensor, besides the two sensors."""
    changed = with_objective(trainer, config, WithinSensorObjective(config.temperature))
    return replace(changed, augment=TwoViews(trainer.augment))


def expanded(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Trainer, Config], Trainer]:
    """Return the change to a loss behind an expander."""
    return lambda trainer, config: with_objective(trainer, config, ExpandedObjective(loss, config.projection_dim))


def momentum_queue(momentum: float, size: int) -> Callable[[Trainer, Config], Trainer]:
    """Return the change to a slow encoder with a queue."""

    def change(trainer: Trainer, config: Config) -> Trainer:
        objective = MomentumObjective(trainer.model, config.temperature, size, momentum, config.projection_dim)
        changed = with_objective(trainer, config, objective)
        return MomentumTrainer(**{item.name: getattr(changed, item.name) for item in fields(changed)})

    return change


PHOTOMETRIC: dict[str, Any] = {"band_dropout": 0.1, "noise": 0.1, "speckle_looks": 8}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "within sensor": {},
    "VICReg": {},
    "momentum 0.99, queue 512": {},
    "GradCache, batch 128": {"batch_size": 128, "micro_batch_size": 32, "learning_rate": 2e-3},
    "Barlow Twins": {},
    "batch 32, accumulate 4": {"accumulate_steps": 4, "learning_rate": 2e-3},
    "momentum 0.9, queue 512": {},
    "GradCache, batch 256": {"batch_size": 256, "micro_batch_size": 32, "learning_rate": 2e-3 * 2**0.5},
    "within sensor, dropout, noise": PHOTOMETRIC,
}
"""Keys of each row, beside those of the recommended recipe.

For Adam the learning rate grows with the square root of the pairs per step (Malladi et al. 2022,
https://arxiv.org/abs/2205.10287).
"""

CHANGES: dict[str, Callable[[Trainer, Config], Trainer]] = {
    "within sensor": within_sensor,
    "within sensor, dropout, noise": within_sensor,
    "VICReg": expanded(vicreg),
    "Barlow Twins": expanded(barlow_twins),
    "momentum 0.99, queue 512": momentum_queue(0.99, 512),
    "momentum 0.9, queue 512": momentum_queue(0.9, 512),
}
"""The rows of OBJECTIVES that keys of the package do not describe."""


def train_changed(config: Config, name: str) -> None:
    """Train a run with a change of CHANGES, or continue it."""
    folder = RunFolder(config.run_folder)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_config(config, folder.parameters)
    train_set, val_set = (build_dataset(config, split, require_labels=False) for split in ("train", "val"))
    loader = training_loader(train_set, config.batch_size, config.seed, config.num_workers)
    trainer = CHANGES[name](build_trainer(config, train_set.pairs, len(loader)), config)
    if folder.last.exists():
        trainer.restore(load_checkpoint(folder.last), folder.last)
    val_loader = ordered_loader(val_set, VALIDATION_BATCH, config.num_workers)
    fit(trainer, loader, val_loader, config.epochs, folder.best, folder.last, lambda *_: None)
