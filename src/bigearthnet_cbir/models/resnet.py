"""ResNet trunks from torchvision, cut before their classification layer.

He et al. 2016, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None


def _import_resnet_module() -> Any:
    """Import torchvision's resnet module, also where its compiled operators cannot load.

    The wheel is compiled for CUDA; beside a CPU-only torch the import stops at operators that nobody declared.
    Declaring their schemas is enough, since no ResNet calls them. Where the import works nothing is done.
    """
    global _library
    try:
        from torchvision.models import resnet
    except (RuntimeError, ImportError) as error:
        if "torchvision::" not in str(error):
            raise
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in _OPERATORS:
            _library.define(f"{name}{_SIGNATURE}")  # type: ignore[no-untyped-call]
        from torchvision.models import resnet
    return resnet


class Trunk(nn.Module):
    """A ResNet from its stem's batch norm to its pooled features.

    Layers are named 0..8 in torchvision's order (0 conv1, 1 bn1, 2 relu, 3 maxpool, 4..7 layer1..4, 8 avgpool),
    which is how the original checkpoints name them.
    """

    def __init__(self, backbone: str, in_channels: int) -> None:
        super().__init__()
        resnets = _import_resnet_module()
        if backbone == "resnet10":
            # One block per stage: too small for torchvision to name, right for a demo on a CPU.
            network = resnets.ResNet(resnets.BasicBlock, [1, 1, 1, 1])
        else:
            network = getattr(resnets, backbone)(weights=None)
        self.width: int = network.fc.in_features
        conv1 = network.conv1
        if in_channels != conv1.in_channels:
            conv1 = nn.Conv2d(in_channels, conv1.out_channels, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")
        layers = [conv1, *list(network.children())[1:-1]]
        self.encoder = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features.

        Args:
            images: (B, in_channels, H, W) normalised.

        Returns:
            (B, width).
        """
        features: Tensor = self.encoder(images)
        return features.flatten(1)
