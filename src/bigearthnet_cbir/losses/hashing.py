"""Losses on relaxed binary codes: contrast between the sensors, or cosine softmax with fixed class codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigearthnet_cbir.losses.ntxent import NTXentLoss

CODE_DRAWS = 1000
"""Number of random sets of class codes, from which the one nearest to orthogonal is chosen."""


def quantisation(codes: Tensor) -> Tensor:
    """Return the mean of (|u| - 1)^2 over (B, bits) relaxed codes, the quantisation error of their signs."""
    return (codes.abs() - 1.0).square().mean()


def bit_balance(codes: Tensor) -> Tensor:
    """Return the mean over bits of (the bit's mean over the batch)^2, of (B, bits) relaxed codes.

    It is 0 if every bit is 1 for half of the batch. A single code need not have as many ones as zeros.
    """
    return codes.mean(dim=0).square().mean()


class _Regularised(nn.Module):
    """The common terms of both losses: weighted quantisation and balance terms, averaged over the sensors."""

    def __init__(self, quantisation_weight: float, balance_weight: float) -> None:
        super().__init__()
        self.quantisation_weight = quantisation_weight
        self.balance_weight = balance_weight

    def penalty(self, *codes: Tensor) -> Tensor:
        terms = [self.quantisation_weight * quantisation(u) + self.balance_weight * bit_balance(u) for u in codes]
        return torch.stack(terms).mean()


class ContrastiveHashLoss(_Regularised):
    """NT-Xent between the relaxed codes of the two sensors, a quantisation term and bit balance; ignores labels.

    Args:
        temperature: of NT-Xent; > 0.
        quantisation_weight: of `quantisation`.
        balance_weight: of `bit_balance`.
    """

    def __init__(self, temperature: float = 0.2, quantisation_weight: float = 0.1, balance_weight: float = 0.1) -> None:
        super().__init__(quantisation_weight, balance_weight)
        self.contrast = NTXentLoss(temperature)

    def forward(self, u1: Tensor, u2: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the loss of (B, bits) relaxed codes, a float32 scalar; `label` is ignored."""
        contrast: Tensor = self.contrast(u1, u2)
        return contrast + self.penalty(u1, u2)


class OrthoHashLoss(_Regularised):
    """Cross entropy between the labels and the cosine similarity of relaxed codes to fixed codes of the classes.

    Hoe et al. 2021, "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective"
    (OrthoHash), https://arxiv.org/abs/2109.14449. The target of a patch with several labels is y / sum(y). Patches
    without labels are ignored. The terms of `ContrastiveHashLoss` are an addition to the paper, which has a single
    modality. Without the contrast, the codes of the two sensors of a pair are further apart (docs/codes.md).

    Args:
        classes: number of classes.
        bits: length of a code.
        seed: of the class codes.
        scale: multiplies the cosines.
        contrast_weight: of NT-Xent between the sensors.
        temperature: of NT-Xent.
        quantisation_weight: of `quantisation`.
        balance_weight: of `bit_balance`.
    """

    class_codes: Tensor

    def __init__(
        self,
        classes: int,
        bits: int,
        seed: int = 0,
        scale: float = 8.0,
        contrast_weight: float = 1.0,
        temperature: float = 0.2,
        quantisation_weight: float = 0.1,
        balance_weight: float = 0.1,
    ) -> None:
        super().__init__(quantisation_weight, balance_weight)
        self.scale = scale
        self.contrast_weight = contrast_weight
        self.contrast = NTXentLoss(temperature)
        self.register_buffer("class_codes", near_orthogonal_codes(classes, bits, seed))

    def forward(self, u1: Tensor, u2: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss over both sensors, a float32 scalar.

        Args:
            u1: (B, bits) relaxed codes of Sentinel-1.
            u2: (B, bits) of Sentinel-2.
            label: (B, classes) of 0 and 1.
        """
        labelled = label.sum(dim=1) > 0
        target = label[labelled].float()
        target = target / target.sum(dim=1, keepdim=True)
        centres = functional.normalize(self.class_codes, dim=1)
        losses = []
        for codes in (u1, u2):
            logits = self.scale * functional.normalize(codes[labelled], dim=1) @ centres.T
            losses.append(-(target * logits.log_softmax(dim=1)).sum() / max(len(target), 1))
        contrast: Tensor = self.contrast_weight * self.contrast(u1, u2)
        return torch.stack(losses).mean() + contrast + self.penalty(u1, u2)


def near_orthogonal_codes(classes: int, bits: int, seed: int = 0) -> Tensor:
    """Return (classes, bits) float32 of +1 and -1, with rows as near to orthogonal as many random draws give.

    Of CODE_DRAWS uniform random draws, the result is the one whose largest |cosine| between two rows is smallest. The
    paper draws once.
    """
    generator = torch.Generator().manual_seed(seed)
    best, least = torch.ones(classes, bits), float("inf")
    for _ in range(CODE_DRAWS):
        codes = torch.randint(0, 2, (classes, bits), generator=generator).float() * 2 - 1
        overlap = (codes @ codes.T / bits).fill_diagonal_(0).abs().max().item()
        if overlap < least:
            best, least = codes, overlap
    return best
