"""ResNet backbones from torchvision without their classification layer.

He et al. 2016, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigearthnet_cbir.errors import short

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None

_RESNET = "torchvision.models.resnet"


def import_resnet_module() -> Any:
    """Return torchvision's resnet module, imported without the rest of torchvision.

    The import of the whole package also loads operators for object detection, and with them the compiler of
    torch.compile: 1.4 s, compared with 0.03 s for this module. If the module cannot be imported alone (another version
    of torchvision), the whole package is imported.
    """
    if _RESNET in sys.modules:
        return sys.modules[_RESNET]
    if "torchvision" not in sys.modules:
        try:
            return _import_alone()
        except (ImportError, RuntimeError, AttributeError):
            _forget_torchvision(keep=())
    import_torchvision()
    return importlib.import_module(_RESNET)


def _import_alone() -> Any:
    """Import the module with two empty parent packages, which are removed afterwards."""
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        raise ImportError("torchvision is not installed")
    root = Path(found.submodule_search_locations[0])
    for name, folder in (("torchvision", root), ("torchvision.models", root / "models")):
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    module = importlib.import_module(_RESNET)
    _forget_torchvision(keep=(_RESNET,))
    return module


def _forget_torchvision(keep: tuple[str, ...]) -> None:
    """Remove torchvision from the loaded modules, so that a later import loads it completely."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision" and name not in keep]:
        del sys.modules[name]


def import_torchvision() -> None:
    """Import all of torchvision, also if its compiled operators cannot be loaded.

    The wheel is compiled for CUDA; with a CPU-only torch its import fails at undeclared operators. Declaring their
    schemas is sufficient, because no ResNet calls them. If the import works, nothing is changed.
    """
    global _library
    try:
        import torchvision
    except (RuntimeError, ImportError) as error:
        if "torchvision::" not in str(error):
            raise
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in _OPERATORS:
            _library.define(f"{name}{_SIGNATURE}")  # type: ignore[no-untyped-call]
        import torchvision  # noqa: F401


class Backbone(nn.Module):
    """A ResNet from its stem's batch norm to its pooled features.

    Layers are named 0..8 in torchvision's order (0 conv1, 1 bn1, 2 relu, 3 maxpool, 4..7 layer1..4, 8 avgpool),
    which is how the original checkpoints name them.
    """

    def __init__(self, backbone: str, in_channels: int) -> None:
        super().__init__()
        resnets = import_resnet_module()
        if backbone == "resnet10":
            # One block per stage: torchvision has no such model; it is small enough for a demo on a CPU.
            network = resnets.ResNet(resnets.BasicBlock, [1, 1, 1, 1])
        elif isinstance(backbone, str) and re.fullmatch(r"resnet\d+", backbone) and hasattr(resnets, backbone):
            network = getattr(resnets, backbone)(weights=None)
        else:
            raise ValueError(f"backbone is {short(backbone)}; give a ResNet of torchvision, such as resnet50")
        self.width: int = network.fc.in_features
        conv1 = network.conv1
        if in_channels != conv1.in_channels:
            conv1 = nn.Conv2d(in_channels, conv1.out_channels, 7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")
        layers = [conv1, *list(network.children())[1:-1]]
        self.encoder = nn.Sequential(*layers)

    @property
    def first(self) -> nn.Conv2d:
        """The first convolution."""
        conv: nn.Conv2d = self.encoder[0]  # type: ignore[assignment]
        return conv

    def forward(self, images: Tensor, stem: nn.Conv2d | None = None) -> Tensor:
        """Return the pooled features.

        Args:
            images: (B, in_channels, H, W) normalised; with a stem, (B, its channels, H, W).
            stem: 1x1 convolution applied before the backbone.

        Returns:
            (B, width).
        """
        if stem is None:
            features: Tensor = self.encoder(images)
        else:
            weight = fold_pointwise_conv(stem, self.first)
            maps = functional.conv2d(
                append_bias_channel(images), weight, stride=self.first.stride, padding=self.first.padding
            )
            features = self.encoder[1:](maps)
        return features.flatten(1)


def fold_pointwise_conv(stem: nn.Conv2d, conv: nn.Conv2d) -> Tensor:
    """Return the weight of the single convolution that equals a 1x1 convolution followed by another.

    It has one more input channel for the stem's bias: apply it to `append_bias_channel(images)`. The output of the
    stem is not computed: with 32 channels and ten bands this saves two thirds of the first layer's operations, and no
    gradient of the images is needed.

    Args:
        stem: (C, in, 1, 1) with bias.
        conv: (out, C, h, w) without bias.

    Returns:
        (out, in + 1, h, w), float32.
    """
    with torch.autocast(stem.weight.device.type, enabled=False):
        mixing = torch.cat((stem.weight.flatten(1), stem.bias[:, None]), dim=1)  # type: ignore[index]
        return torch.einsum("ocyx,ci->oiyx", conv.weight, mixing).contiguous(memory_format=torch.channels_last)


def append_bias_channel(images: Tensor) -> Tensor:
    """Return (B, in + 1, H, W) with a constant-one channel for the bias; zero padding keeps it exact at borders."""
    return torch.cat((images, torch.ones_like(images[:, :1])), dim=1)
