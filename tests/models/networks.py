"""Networks for tests."""

from __future__ import annotations

from typing import Any

import torch

from bigearthnet_cbir.models.dual_encoder import DualEncoder


def trained_like(**options: Any) -> DualEncoder:
    """Return a network whose batch norms are not the identity."""
    torch.manual_seed(0)
    model = DualEncoder(**options)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_(0, 0.2)
    return model.eval()
