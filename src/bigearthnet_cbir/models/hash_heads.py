"""Hash heads: one linear layer per sensor from an embedding to relaxed codes, whose signs are the bits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigearthnet_cbir.errors import short
from bigearthnet_cbir.types import FloatArray

MOST_BITS = 16_384
"""Maximum length of a code. The limit rejects a damaged file before it would allocate gigabytes."""


class LinearBits(NamedTuple):
    """One head as a projection with thresholds: bit b of a unit vector x is [x . projection[:, b] > thresholds[b]].

    Attributes:
        projection: (D, bits) float32.
        thresholds: (bits,) float32.
    """

    projection: FloatArray
    thresholds: FloatArray


class HashHeads(nn.Module):
    """One head per sensor: u = tanh(W (x - mean) / scale + b) of a unit vector x.

    OrthoHash and HashNet also use only a linear head on the backbone. Its signs need no network: `as_bits` returns them
    as one projection and thresholds, with which a search works without PyTorch.

    Args:
        width: length of an embedding.
        bits: length of a code.

    Raises:
        ValueError: a number is out of bounds.
    """

    mean_s1: Tensor
    mean_s2: Tensor
    scale: Tensor

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        for name, number in (("width", width), ("bits", bits)):
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_BITS:
                raise ValueError(f"{name} is {short(number)}; give a whole number from 1 to {MOST_BITS:,}")
        self.head_s1 = nn.Linear(width, bits)
        self.head_s2 = nn.Linear(width, bits)
        self.register_buffer("mean_s1", torch.zeros(width))
        self.register_buffer("mean_s2", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def start_from(self, mean_s1: Tensor, mean_s2: Tensor, scale: float, projection: Tensor) -> None:
        """Initialise both heads with one projection (width, bits), zero bias, and these statistics of unit vectors.

        Args:
            mean_s1: (width,) of Sentinel-1.
            mean_s2: (width,) of Sentinel-2.
            scale: standard deviation of one element, over both sensors.
            projection: its signs are the initial code, for example that of iterative quantisation.
        """
        self.mean_s1.copy_(mean_s1)
        self.mean_s2.copy_(mean_s2)
        self.scale.fill_(scale)
        for head in (self.head_s1, self.head_s2):
            head.weight.copy_(projection.T)
            head.bias.zero_()

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Return relaxed codes u1, u2 (B, bits) between -1 and 1 of embeddings (B, width) of any length."""
        one = self.head_s1((functional.normalize(x1, dim=1) - self.mean_s1) / self.scale)
        two = self.head_s2((functional.normalize(x2, dim=1) - self.mean_s2) / self.scale)
        return one.tanh(), two.tanh()

    @torch.no_grad()
    def as_bits(self) -> tuple[LinearBits, LinearBits]:
        """Return the heads of Sentinel-1 and Sentinel-2 as projections and thresholds for unit vectors."""
        found = []
        for head, mean in ((self.head_s1, self.mean_s1), (self.head_s2, self.mean_s2)):
            weight = head.weight.double()
            thresholds = weight @ mean.double() - head.bias.double() * self.scale.double()
            found.append(LinearBits(head.weight.T.contiguous().numpy(), thresholds.float().numpy()))
        return found[0], found[1]
