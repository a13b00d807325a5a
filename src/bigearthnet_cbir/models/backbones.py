"""Backbones by name: a ResNet of torchvision, or a network of timm."""

from __future__ import annotations

from typing import TypeAlias

from bigearthnet_cbir.errors import short
from bigearthnet_cbir.models.resnet import Backbone
from bigearthnet_cbir.models.timm_backbone import TIMM_PREFIX, TimmBackbone

AnyBackbone: TypeAlias = Backbone | TimmBackbone


def build_backbone(backbone: str, in_channels: int) -> AnyBackbone:
    """Return a freshly initialised backbone, whose forward takes images and, for a joint backbone, a sensor's stem.

    Raises:
        ValueError: the name is unknown, or timm is not installed.
    """
    if not isinstance(backbone, str):
        raise ValueError(f"backbone is {short(backbone)}; give a name")
    return TimmBackbone(backbone, in_channels) if backbone.startswith(TIMM_PREFIX) else Backbone(backbone, in_channels)
