"""Losses on relaxed codes against loops."""

import math

import pytest
import torch

from bigearthnet_cbir.losses.hashing import (
    ContrastiveHashLoss,
    OrthoHashLoss,
    bit_balance,
    near_orthogonal_codes,
    quantisation,
)
from bigearthnet_cbir.losses.ntxent import NTXentLoss

U1, U2 = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0)).tanh()
LABELS = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]])


def loop_quantisation(codes: torch.Tensor) -> float:
    return sum((abs(value) - 1) ** 2 for row in codes.tolist() for value in row) / codes.numel()


def loop_balance(codes: torch.Tensor) -> float:
    return sum((sum(column) / len(column)) ** 2 for column in codes.T.tolist()) / codes.shape[1]


def test_quantisation_and_balance_equal_the_loops() -> None:
    assert float(quantisation(U1)) == pytest.approx(loop_quantisation(U1))
    assert float(bit_balance(U1)) == pytest.approx(loop_balance(U1))


def test_balance_is_over_the_batch_and_not_over_the_bits_of_a_code() -> None:
    uneven_codes = torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]])
    even_codes = torch.tensor([[1.0, -1, 1, -1], [1, -1, 1, -1]])
    assert float(bit_balance(uneven_codes)) == 0
    assert float(bit_balance(even_codes)) == 1


def test_signs_have_no_quantisation_error() -> None:
    assert float(quantisation(U1.sign())) == 0


def test_contrastive_loss_is_the_sum_of_its_three_terms() -> None:
    expected = float(NTXentLoss(0.3)(U1, U2))
    for codes in (U1, U2):
        expected += (0.5 * loop_quantisation(codes) + 2.0 * loop_balance(codes)) / 2
    assert float(ContrastiveHashLoss(0.3, 0.5, 2.0)(U1, U2)) == pytest.approx(expected, rel=1e-5)


def test_orthohash_equals_the_loops() -> None:
    loss = OrthoHashLoss(
        3, 12, seed=1, scale=4.0, contrast_weight=0.7, temperature=0.3, quantisation_weight=0.5, balance_weight=2.0
    )
    centres = loss.class_codes.tolist()
    expected = 0.7 * float(NTXentLoss(0.3)(U1, U2))
    for codes in (U1, U2):
        total, patches = 0.0, 0
        for code, label in zip(codes.tolist(), LABELS.tolist(), strict=True):
            if not sum(label):
                continue
            length = math.sqrt(sum(value**2 for value in code))
            logits = [
                4.0 * sum(a * b for a, b in zip(code, centre, strict=True)) / (length * math.sqrt(12))
                for centre in centres
            ]
            whole = math.log(sum(map(math.exp, logits)))
            total -= sum(y / sum(label) * (logit - whole) for y, logit in zip(label, logits, strict=True))
            patches += 1
        expected += (total / patches + 0.5 * loop_quantisation(codes) + 2.0 * loop_balance(codes)) / 2
    assert float(loss(U1, U2, LABELS)) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_labels_is_finite_and_has_gradients() -> None:
    codes = U1.clone().requires_grad_()
    loss = OrthoHashLoss(3, 12)(codes, U2, torch.zeros(5, 3))
    loss.backward()
    assert loss.isfinite()
    assert codes.grad is not None
    assert codes.grad.isfinite().all()


@pytest.mark.parametrize("bits", [16, 64, 512])
def test_class_codes_are_signs_nearer_to_orthogonal_than_one_draw(bits: int) -> None:
    codes = near_orthogonal_codes(19, bits, seed=2)
    assert codes.shape == (19, bits)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(codes, near_orthogonal_codes(19, bits, seed=2))
    assert not torch.equal(codes, near_orthogonal_codes(19, bits, seed=3))
    one_draw = torch.randint(0, 2, (19, bits), generator=torch.Generator().manual_seed(2)).float() * 2 - 1
    overlaps = [(rows @ rows.T / bits).fill_diagonal_(0).abs().max().item() for rows in (codes, one_draw)]
    assert overlaps[0] < overlaps[1]
    assert overlaps[0] < 1
