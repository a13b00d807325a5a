"""Alignment loss between the two embeddings of a pair."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def pair_alignment(z1: Tensor, z2: Tensor) -> Tensor:
    """Return the mean of 1 - cos(z1, z2) over (B, P) pairs, a float32 scalar between 0 and 2.

    The attraction term of Wang and Isola 2020, "Understanding Contrastive Representation Learning through
    Alignment and Uniformity", https://arxiv.org/abs/2005.10242, written with the cosine.
    """
    return (1.0 - functional.cosine_similarity(z1.float(), z2.float(), dim=1)).mean()
