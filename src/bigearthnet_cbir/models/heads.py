"""Projection heads: they map backbone features h to the projection z."""

from __future__ import annotations

from torch import nn


def mlp_head(n_features: int, projection_dim: int) -> nn.Sequential:
    """Return the two-layer head W2 ReLU(W1 h) of SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709)."""
    return nn.Sequential(
        nn.Linear(n_features, n_features), nn.ReLU(inplace=True), nn.Linear(n_features, projection_dim)
    )


def original_head(n_features: int, projection_dim: int) -> nn.Sequential:
    """Return the head of the original scripts, ReLU(W h); its output is non-negative."""
    return nn.Sequential(nn.Linear(n_features, projection_dim), nn.ReLU(inplace=True))


HEADS = {"mlp": mlp_head, "original": original_head}
