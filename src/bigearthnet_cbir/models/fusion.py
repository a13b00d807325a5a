"""Fusion of the two sensors' vectors into one."""

from __future__ import annotations

import torch
from torch import Tensor

FUSIONS = ("concat", "avg", "max", "sum")


def fuse(z1: Tensor, z2: Tensor, how: str) -> Tensor:
    """Return one vector per pair.

    Args:
        z1: (B, P) of Sentinel-1.
        z2: (B, P) of Sentinel-2.
        how: concat, avg, max or sum.

    Returns:
        (B, 2P) for concat, with Sentinel-1 first, else (B, P).

    Raises:
        ValueError: the fusion is unknown or the shapes differ.
    """
    if z1.shape != z2.shape:
        raise ValueError(f"cannot fuse shapes {tuple(z1.shape)} and {tuple(z2.shape)}; both must be (B, P)")
    if how == "concat":
        return torch.cat((z1, z2), dim=1)
    if how == "avg":
        return (z1 + z2) / 2
    if how == "max":
        return torch.maximum(z1, z2)
    if how == "sum":
        return z1 + z2
    raise ValueError(f"fusion is {how!r}; choose one of {', '.join(FUSIONS)}")


def fused_width(width: int, how: str) -> int:
    """Return the length of the fused vector of two vectors of the given length."""
    return 2 * width if how == "concat" else width
