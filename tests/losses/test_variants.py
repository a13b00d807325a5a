import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from bigearthnet_cbir.losses.alignment import pair_alignment
from bigearthnet_cbir.losses.label_aware import LabelAwareLoss, jaccard_overlap
from bigearthnet_cbir.losses.memory_bank import CrossBatchMemory
from bigearthnet_cbir.losses.ntxent import DecoupledLoss, NTXentLoss
from bigearthnet_cbir.types import LOWEST_LEARNED_TEMPERATURE

Z1, Z2 = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])


def similarities(temperature: float) -> list[list[float]]:
    views = torch.cat((Z1, Z2)).double()
    return [[float(cosine_similarity(a, b, dim=0)) / temperature for b in views] for a in views]


def test_decoupled_loss_equals_the_loops() -> None:
    logits = similarities(0.2)
    total = 0.0
    for i in range(8):
        positive = (i + 4) % 8
        negatives = sum(math.exp(logits[i][k]) for k in range(8) if k not in {i, positive})
        total += math.log(negatives) - logits[i][positive]
    assert float(DecoupledLoss(0.2)(Z1, Z2)) == pytest.approx(total / 8, rel=1e-5)


def test_decoupled_loss_of_one_pair_is_zero_with_a_gradient() -> None:
    z1 = Z1[:1].clone().requires_grad_()
    loss = DecoupledLoss(0.2)(z1, Z2[:1])
    loss.backward()
    assert float(loss.detach()) == 0
    assert z1.grad is not None


def test_label_aware_loss_equals_the_loops() -> None:
    logits = similarities(0.5)
    sets = [set(row.nonzero().flatten().tolist()) for row in LABELS] * 2
    total = 0.0
    for i in range(8):
        denominator = math.log(sum(math.exp(logits[i][k]) for k in range(8) if k != i))
        weights = []
        for j in range(8):
            union = sets[i] | sets[j]
            overlap = len(sets[i] & sets[j]) / len(union) if union else 0.0
            weights.append(0.0 if i == j else 1.0 if j == (i + 4) % 8 else overlap)
        total -= sum(w * (logits[i][j] - denominator) for j, w in enumerate(weights)) / sum(weights)
    assert float(LabelAwareLoss(0.5)(Z1, Z2, LABELS)) == pytest.approx(total / 8, rel=1e-5)


def test_label_aware_loss_without_shared_labels_is_ntxent() -> None:
    assert float(LabelAwareLoss(0.1)(Z1, Z2, torch.eye(4))) == pytest.approx(float(NTXentLoss(0.1)(Z1, Z2)), rel=1e-5)


def test_jaccard_overlap_by_hand() -> None:
    expected = [[1, 0.5, 0, 0], [0.5, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert torch.equal(jaccard_overlap(LABELS), torch.tensor(expected))


def test_alignment_by_hand() -> None:
    z1, z2 = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    assert float(pair_alignment(z1, z2)) == pytest.approx(0.5)


def test_memory_negatives_equal_a_larger_sum() -> None:
    memory = CrossBatchMemory(3, 5)
    memory.add(Z1[:2], Z2[:2], torch.tensor([7, 8]))
    place = torch.tensor([7, 9])
    negatives, allowed = memory.negatives(place)
    assert allowed.tolist() == [[False, True, False] * 2, [True, True, False] * 2]
    a, b = Z1[2:], Z2[2:]
    views, kept = normalize(torch.cat((a, b)), dim=1), normalize(torch.cat((Z1[:2], Z2[:2])), dim=1)
    columns = {0: [1, 3], 1: [0, 1, 2, 3]}
    total = 0.0
    for i in range(4):
        inside = [float(views[i] @ views[k]) / 0.1 for k in range(4) if k != i]
        outside = [float(views[i] @ kept[k]) / 0.1 for k in columns[i % 2]]
        total += math.log(sum(map(math.exp, inside + outside))) - float(views[i] @ views[(i + 2) % 4]) / 0.1
    assert float(NTXentLoss(0.1)(a, b, negatives, allowed)) == pytest.approx(total / 4, rel=1e-5)


def test_memory_is_a_ring_and_is_saved() -> None:
    memory = CrossBatchMemory(3, 5)
    memory.add(Z1[:2], Z2[:2], torch.tensor([0, 1]))
    memory.add(Z1[2:], Z2[2:], torch.tensor([2, 3]))
    assert memory.places.tolist() == [3, 1, 2]
    restored = CrossBatchMemory(3, 5)
    restored.load_state_dict(memory.state_dict())
    assert torch.equal(restored.vectors, memory.vectors)
    assert int(restored.next_row) == 1
    memory.add(Z1, Z2, torch.tensor([4, 5, 6, 7]))
    assert sorted(memory.places.tolist()) == [5, 6, 7]


def test_learned_temperature_gets_a_gradient_and_a_floor() -> None:
    loss = NTXentLoss(0.1, learned=True)
    loss(Z1, Z2).backward()
    (weight,) = loss.parameters()
    assert weight.grad is not None
    assert float(weight.grad.abs()) > 0
    with torch.no_grad():
        weight.fill_(-20.0)
    assert float(loss.temperature()) == pytest.approx(LOWEST_LEARNED_TEMPERATURE)
    assert not list(NTXentLoss(0.1).parameters())


@pytest.mark.parametrize("loss", [NTXentLoss, DecoupledLoss])
def test_a_learned_temperature_comes_back_from_its_floor(loss: type[NTXentLoss]) -> None:
    """With pairs that do not match a lower temperature costs more: the gradient has to raise it from the floor."""
    trained = loss(0.1, learned=True)
    (weight,) = trained.parameters()
    with torch.no_grad():
        weight.fill_(math.log(LOWEST_LEARNED_TEMPERATURE) - 3)
    step = torch.optim.SGD([weight], lr=0.01)
    for _ in range(3):
        step.zero_grad()
        trained(Z1, Z2).backward()
        step.step()
    assert float(trained.temperature()) > 1.01 * LOWEST_LEARNED_TEMPERATURE
