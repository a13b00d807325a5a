"""Cached gradients against the gradient of one graph over all embeddings."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest
import torch
from tests.training.test_engine import DATA, SmallEncoder, new_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bigearthnet_cbir.losses.memory_bank import CrossBatchMemory
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualEncoder, DualOutput
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.grad_cache import GradientCache
from bigearthnet_cbir.training.objectives import (
    ClassificationObjective,
    ContrastiveObjective,
    Objective,
    TrainingStep,
)
from bigearthnet_cbir.training.optimizers import one_cycle

PAIRS = 8
Context = Callable[[], AbstractContextManager[None]]


class PlainEncoder(nn.Module):
    """Pairs do not interact in it."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        layers = nn.Conv2d(10, 8, 8, 8), nn.ReLU(), nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.stem = nn.Conv2d(2, 10, 1)
        self.trunk = nn.Sequential(*layers, nn.Linear(8, 8))

    def forward(self, s1: Tensor, s2: Tensor) -> DualOutput:
        z1, z2 = self.trunk(self.stem(s1)), self.trunk(s2)
        return DualOutput(z1, z2, z1, z2)


def bf16() -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.bfloat16)


def batch(kind: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    s1, s2 = (torch.randn(PAIRS, bands, 32, 32, generator=generator).to(kind) for bands in (2, 10))
    return s1, s2, (torch.rand(PAIRS, 19, generator=generator) < 0.3).to(torch.uint8), torch.arange(PAIRS)


def contrastive() -> Objective:
    return ContrastiveObjective(NTXentLoss(0.2, learned=True), 0.5)


def step_of(encoder: Callable[[], nn.Module], objective: Callable[[], Objective] = contrastive) -> TrainingStep:
    torch.manual_seed(2)
    return TrainingStep(encoder(), objective()).train()


def joined_graph(step: TrainingStep, size: int, context: Context) -> Tensor:
    """Compute the definition: every micro-batch in one graph, the loss of the joined embeddings, one backward pass."""
    s1, s2, *targets = batch()
    outputs = []
    for part in zip(s1.split(size), s2.split(size), strict=True):
        with context():
            outputs.append(step.model(*part))
    with context():
        loss = step.loss(DualOutput(*map(torch.cat, zip(*outputs, strict=True))), *targets)
    loss.backward()
    return loss.detach()


def small_dual_encoder() -> DualEncoder:
    return DualEncoder(backbone="resnet10", projection_dim=8, out_channels=4)


def assert_equal_effects(one: TrainingStep, other: TrainingStep) -> None:
    for (name, weight), expected in zip(one.named_parameters(), other.parameters(), strict=True):
        assert expected.grad is not None, name
        assert weight.grad is not None, name
        assert float(expected.grad.abs().max()) > 0, name
        torch.testing.assert_close(weight.grad, expected.grad, rtol=1e-5, atol=1e-6, msg=name)
    for (name, buffer), expected in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 20])
def test_without_interaction_the_gradient_is_that_of_one_batch(size: int) -> None:
    cached, whole = step_of(PlainEncoder).double(), step_of(PlainEncoder).double()
    loss = GradientCache(cached, size, nullcontext).backward(*batch(torch.float64))
    expected = whole(*batch(torch.float64))
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), abs=1e-6)
    assert_equal_effects(cached, whole)


@pytest.mark.parametrize("context", [nullcontext, bf16])
@pytest.mark.parametrize("encoder", [SmallEncoder, small_dual_encoder, lambda: PlainEncoder(dropout=0.5)])
def test_gradients_statistics_and_random_state_are_those_of_one_graph_over_micro_batches(
    encoder: Callable[[], nn.Module], context: Context
) -> None:
    cached, whole = step_of(encoder), step_of(encoder)
    torch.manual_seed(5)
    loss = GradientCache(cached, 3, context).backward(*batch())
    after = torch.get_rng_state()
    torch.manual_seed(5)
    expected = joined_graph(whole, 3, context)
    assert torch.equal(after, torch.get_rng_state())
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    assert_equal_effects(cached, whole)


def test_running_statistics_count_each_micro_batch_once() -> None:
    step = step_of(SmallEncoder)
    GradientCache(step, 3, nullcontext).backward(*batch())
    assert step.model.s1[1].num_batches_tracked == 3


def test_with_running_statistics_the_gradient_of_a_resnet_is_that_of_one_batch() -> None:
    """In float64: the rounding of float32 depends on the processor and the size of a batch."""
    cached, whole = (step_of(small_dual_encoder).eval().double() for _ in range(2))
    GradientCache(cached, 2, nullcontext).backward(*batch(torch.float64))
    whole(*batch(torch.float64)).backward()
    assert_equal_effects(cached, whole)


def test_a_classification_head_gets_its_gradient() -> None:
    cached, whole = (step_of(PlainEncoder, classification) for _ in range(2))
    GradientCache(cached, 3, nullcontext).backward(*batch())
    whole(*batch()).backward()
    assert_equal_effects(cached, whole)


def classification() -> Objective:
    return ClassificationObjective(8, "concat", 19)


def trained(micro_batch: int) -> Trainer:
    """Train two epochs with everything that a batch passes through: augmentation, memory, accumulation, clipping."""
    torch.manual_seed(2)
    model = PlainEncoder()
    objective = ContrastiveObjective(NTXentLoss(0.2, learned=True), memory=CrossBatchMemory(4, 8))
    optimizer = torch.optim.SGD([*model.parameters(), *objective.parameters()], lr=0.1, momentum=0.9)
    trainer = replace(
        new_trainer(), model=model, objective=objective, optimizer=optimizer, scheduler=one_cycle(optimizer, 0.1, 4),
        accumulate=2, clip_norm=0.5, micro_batch=micro_batch,
    )  # fmt: skip
    for epoch in range(2):
        trainer.state.epoch = epoch
        trainer.train_epoch(DataLoader(DATA, batch_size=2))
    return trainer


def test_epochs_with_cached_gradients_equal_plain_epochs() -> None:
    plain, cached = trained(0), trained(1)
    for name in ("model", "objective"):
        expected = getattr(plain, name).state_dict()
        for key, value in getattr(cached, name).state_dict().items():
            torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, msg=key)
    assert bool((plain.objective.memory.places >= 0).all()), "the memory was not filled"


def test_a_micro_batch_of_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        GradientCache(step_of(PlainEncoder), 0, nullcontext)
