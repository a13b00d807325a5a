import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from bigearthnet_cbir.losses.multilabel import MultiLabelLoss
from bigearthnet_cbir.losses.ntxent import NTXentLoss


def slow_ntxent(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> float:
    """SimCLR's equation 1, written out with loops in float64."""
    views = torch.cat((z1, z2)).double()
    size = len(z1)
    total = 0.0
    for i in range(2 * size):
        positive = (i + size) % (2 * size)
        similarity = [float(cosine_similarity(views[i], views[k], dim=0)) / temperature for k in range(2 * size)]
        others = [similarity[k] for k in range(2 * size) if k != i]
        top = max(others)
        total += top + math.log(sum(math.exp(value - top) for value in others)) - similarity[positive]
    return total / (2 * size)


@pytest.mark.parametrize("temperature", [0.005, 0.07, 0.1, 0.5, 1.0, 20.0])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_ntxent_equals_the_loops(size: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(size)
    z1, z2 = torch.randn(2, size, 5, generator=generator)
    assert float(NTXentLoss(temperature)(z1, z2)) == pytest.approx(slow_ntxent(z1, z2, temperature), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_all_equal_embeddings_give_log_of_the_number_of_others(size: int) -> None:
    z = torch.ones(size, 4)
    assert float(NTXentLoss(0.1)(z, z)) == pytest.approx(math.log(2 * size - 1), abs=1e-5)


def test_loss_is_symmetric_and_ignores_scale() -> None:
    z1, z2 = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1))
    loss = NTXentLoss(0.2)
    assert float(loss(z1, z2)) == pytest.approx(float(loss(z2, z1)), rel=1e-6)
    assert float(loss(z1, z2)) == pytest.approx(float(loss(3 * z1, 0.1 * z2)), rel=1e-5)


@pytest.mark.parametrize("temperature", [1e-6, 1e-3])
def test_small_temperature_stays_finite_with_gradients(temperature: float) -> None:
    z1 = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), requires_grad=True)
    z2 = z1.detach() + 0.01
    value = NTXentLoss(temperature)(z1, z2)
    value.backward()
    assert torch.isfinite(value)
    assert z1.grad is not None
    assert torch.isfinite(z1.grad).all()


def test_batch_of_one_pair_has_zero_loss_and_gradient() -> None:
    z1, z2 = torch.randn(1, 4, requires_grad=True), torch.randn(1, 4)
    loss = NTXentLoss(0.1)(z1, z2)
    loss.backward()
    assert float(loss.detach()) == 0
    assert z1.grad is not None
    assert float(z1.grad.abs().max()) == 0


def test_loss_is_computed_in_float32_under_autocast() -> None:
    z1, z2 = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", torch.bfloat16):
        inside = NTXentLoss(0.05)(z1, z2)
    assert inside.dtype == torch.float32
    assert float(inside) == pytest.approx(float(NTXentLoss(0.05)(z1, z2)), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        NTXentLoss(temperature)


def test_multilabel_loss_equals_the_definition() -> None:
    logits = torch.tensor([[0.3, -2.0], [1.5, 0.0]])
    labels = torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8)
    p = torch.sigmoid(logits).tolist()
    expected = -(math.log(p[0][0]) + math.log(1 - p[0][1]) + math.log(1 - p[1][0]) + math.log(p[1][1])) / 4
    assert float(MultiLabelLoss()(logits, labels)) == pytest.approx(expected, rel=1e-6)
