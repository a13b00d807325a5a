"""The objectives of benchmarks/ablation_objectives.py against their definitions, in loops."""

import importlib.util
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.training.test_engine import DATA, new_trainer
from torch import Tensor
from torch.utils.data import DataLoader

from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualOutput

ROOT = Path(__file__).resolve().parents[2]
SIZE, WIDTH = 5, 8


def read_objectives() -> Any:
    named = "ablation_objectives"
    spec = importlib.util.spec_from_file_location(named, ROOT / "benchmarks" / f"{named}.py")
    sys.modules[named] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[named])
    return sys.modules[named]


objectives = read_objectives()


def embeddings(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(math.prod(shape)))


def two_sensors() -> tuple[Tensor, Tensor]:
    both = embeddings(2, SIZE, WIDTH)
    return both[0], both[0] + 0.5 * both[1]


def test_vicreg_is_the_sum_of_its_three_terms() -> None:
    u1, u2 = two_sensors()
    invariance = sum(float((u1[i, d] - u2[i, d]) ** 2) for i in range(SIZE) for d in range(WIDTH)) / (SIZE * WIDTH)
    variance = covariance = 0.0
    for u in (u1.tolist(), u2.tolist()):
        mean = [sum(row[d] for row in u) / SIZE for d in range(WIDTH)]
        matrix = [
            [sum((row[a] - mean[a]) * (row[b] - mean[b]) for row in u) / (SIZE - 1) for b in range(WIDTH)]
            for a in range(WIDTH)
        ]
        variance += sum(max(0.0, 1 - math.sqrt(matrix[d][d] + 1e-4)) for d in range(WIDTH)) / WIDTH / 2
        covariance += sum(matrix[a][b] ** 2 for a in range(WIDTH) for b in range(WIDTH) if a != b) / WIDTH
    assert float(objectives.vicreg(u1, u2)) == pytest.approx(25 * invariance + 25 * variance + covariance, rel=1e-5)


def test_barlow_twins_compares_the_correlation_with_the_identity() -> None:
    u1, u2 = two_sensors()
    expected = 0.0
    for a in range(WIDTH):
        for b in range(WIDTH):
            x, y = u1[:, a] - u1[:, a].mean(), u2[:, b] - u2[:, b].mean()
            correlation = float(x @ y / (x.norm() * y.norm()))
            expected += (1 - correlation) ** 2 if a == b else 0.005 * correlation**2
    assert float(objectives.barlow_twins(u1, u2)) == pytest.approx(expected, rel=1e-3)


def test_momentum_contrast_is_a_cross_entropy_over_keys_and_queue() -> None:
    z1, z2 = two_sensors()
    k1, k2 = embeddings(2, SIZE, WIDTH + 1)[:, :, :WIDTH]
    queue, allowed = torch.nn.functional.normalize(embeddings(4, WIDTH), dim=1), embeddings(SIZE, 4) > 0
    losses = []
    for z, own, other in ((z1, k1, k2), (z2, k2, k1)):
        for i in range(SIZE):
            negatives = [key for j in range(SIZE) if j != i for key in (own[j], other[j])]
            negatives += [queue[m] for m in range(4) if allowed[i, m]]
            logits = [float(torch.cosine_similarity(z[i], key, dim=0)) / 0.2 for key in (other[i], *negatives)]
            losses.append(math.log(sum(map(math.exp, logits))) - logits[0])
    output, keys = DualOutput(z1, z2, z1, z2), DualOutput(k1, k2, k1, k2)
    found = float(objectives.momentum_contrast(output, keys, queue, allowed, 0.2))
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_slow_encoder_follows_by_an_exponential_average() -> None:
    trainer = new_trainer()
    objective = objectives.MomentumObjective(trainer.model, 0.1, 4, 0.9, WIDTH)
    before = [weight.clone() for weight in objective.slow.parameters()]
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight += 1.0
    objective.keys(trainer.model, embeddings(2, 2, 120, 120), embeddings(2, 10, 120, 120))
    for old, slow in zip(before, objective.slow.parameters(), strict=True):
        torch.testing.assert_close(slow, old + 0.1)


def test_within_sensor_adds_the_contrast_of_two_views_of_each_sensor() -> None:
    first1, first2 = two_sensors()
    second1, second2 = first1.flip(1), first2.flip(1).square()
    z1, z2 = torch.cat((first1, second1)), torch.cat((first2, second2))
    objective, loss = objectives.WithinSensorObjective(0.2, 0.5), NTXentLoss(0.2)
    between = (loss(first1, first2) + loss(second1, second2)) / 2
    within = (loss(first1, second1) + loss(first2, second2)) / 2
    found = objective(DualOutput(z1, z2, z1, z2), torch.zeros(SIZE, 19), torch.arange(SIZE))
    assert float(found) == pytest.approx(float(between + 0.5 * within), rel=1e-6)
    output = DualOutput(first1, first2, first1, first2)
    assert objective.eval()(output, torch.zeros(SIZE, 19), torch.arange(SIZE)) == loss(first1, first2)


@pytest.mark.parametrize("name", objectives.CHANGES)
def test_every_change_trains_its_weights(name: str) -> None:
    config = SimpleNamespace(
        temperature=0.1, projection_dim=WIDTH, optimizer="sgd", learning_rate=0.1, weight_decay=0.0
    )
    trainer = objectives.CHANGES[name](new_trainer(), config)
    before = {key: value.clone() for key, value in trainer.checkpoint()["objective"].items()}
    start = [weight.detach().clone() for weight in trainer.model.parameters()]
    assert math.isfinite(trainer.train_epoch(DataLoader(DATA, batch_size=3, drop_last=True)))
    assert math.isfinite(trainer.validate(DataLoader(DATA, batch_size=7))[0])
    assert any(not torch.equal(old, new) for old, new in zip(start, trainer.model.parameters(), strict=True))
    changed = {key for key, value in trainer.checkpoint()["objective"].items() if not torch.equal(before[key], value)}
    assert changed >= {key for key in before if key.startswith(("expander.0", "slow.s1.0.weight", "queue.vectors"))}
