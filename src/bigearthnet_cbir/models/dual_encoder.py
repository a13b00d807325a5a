"""The dual-branch encoder: it maps both sensors' images of a location into one vector space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from bigearthnet_cbir.errors import short
from bigearthnet_cbir.models.backbones import build_backbone
from bigearthnet_cbir.models.heads import HEADS
from bigearthnet_cbir.models.sensor_batchnorm import convert_sensor_batchnorm, select_sensor
from bigearthnet_cbir.models.skip_init import SkipInit

S1_CHANNELS = 2
S2_CHANNELS = 10
MOST_CHANNELS = 16_384
"""Largest projection_dim and out_channels; larger values in a damaged file would allocate gigabytes."""


class DualOutput(NamedTuple):
    """Features h (B, n_features) and projections z (B, projection_dim) of Sentinel-1 and Sentinel-2."""

    h1: Tensor
    h2: Tensor
    z1: Tensor
    z2: Tensor


class DualEncoder(nn.Module):
    """Encoder of Sentinel-1 and Sentinel-2 images.

    Args:
        type: "separate" has one backbone per sensor; "joint" maps each sensor with its own 1x1 convolution to
            `out_channels` channels and uses one backbone for both.
        backbone: name of a torchvision ResNet, or "timm:" and the name of a network of timm.
        projection_dim: length of z.
        projection_head: "mlp" or "original".
        out_channels: channels after the joint type's stems; unused by "separate".
        sensor_norm: "per_sensor" gives each sensor its own batch norms in the joint backbone; "shared" as in
            the original scripts.

    Attributes:
        settings: the arguments.

    Raises:
        ValueError: a choice is unknown, or a number of channels is out of range.
    """

    def __init__(
        self,
        *,
        type: str = "joint",
        backbone: str = "resnet50",
        projection_dim: int = 128,
        projection_head: str = "original",
        out_channels: int = 32,
        sensor_norm: str = "per_sensor",
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "type": type, "backbone": backbone, "projection_dim": projection_dim, "projection_head": projection_head,
            "out_channels": out_channels, "sensor_norm": sensor_norm,
        }  # fmt: skip
        _check_settings(self.settings)
        self.is_joint = type == "joint"
        if self.is_joint:
            self.stem_s1 = nn.Conv2d(S1_CHANNELS, out_channels, 1)
            self.stem_s2 = nn.Conv2d(S2_CHANNELS, out_channels, 1)
            self.trunk = build_backbone(backbone, out_channels)
            if sensor_norm == "per_sensor":
                convert_sensor_batchnorm(self.trunk)
            width = self.trunk.width
        else:
            self.trunk_s1 = build_backbone(backbone, S1_CHANNELS)
            self.trunk_s2 = build_backbone(backbone, S2_CHANNELS)
            width = self.trunk_s1.width
        self.n_features = width
        self.projection_dim = projection_dim
        self.head_s1 = HEADS[projection_head](width, projection_dim)
        self.head_s2 = HEADS[projection_head](width, projection_dim)

    def encode_s1(self, s1: Tensor) -> Tensor:
        """Return h1 (B, n_features) of normalised Sentinel-1 images (B, 2, H, W), channels VV, VH."""
        return self._joint(s1, "s1") if self.is_joint else self.trunk_s1(s1)

    def encode_s2(self, s2: Tensor) -> Tensor:
        """Return h2 (B, n_features) of normalised Sentinel-2 images (B, 10, H, W)."""
        return self._joint(s2, "s2") if self.is_joint else self.trunk_s2(s2)

    def _joint(self, images: Tensor, sensor: str) -> Tensor:
        stem = self.stem_s1 if sensor == "s1" else self.stem_s2
        select_sensor(self.trunk, sensor)
        features: Tensor = self.trunk(images, stem)
        return features

    def forward(self, s1: Tensor, s2: Tensor) -> DualOutput:
        """Encode a batch of pairs.

        Args:
            s1: (B, 2, 120, 120) float32, normalised, channels VV, VH.
            s2: (B, 10, 120, 120) float32, normalised, channels B02 B03 B04 B08 B05 B06 B07 B8A B11 B12.
        """
        h1, h2 = self.encode_s1(s1), self.encode_s2(s2)
        return DualOutput(h1, h2, self.head_s1(h1), self.head_s2(h2))


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ValueError unless each choice is known and each number in its range."""
    choices = {"type": ("joint", "separate"), "projection_head": tuple(HEADS), "sensor_norm": ("shared", "per_sensor")}
    for name, words in choices.items():
        word = settings[name]
        if not isinstance(word, str) or word not in words:
            raise ValueError(f"{name} is {short(word)}; choose one of {', '.join(words)}")
    for name in ("projection_dim", "out_channels"):
        number = settings[name]
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_CHANNELS:
            raise ValueError(f"{name} is {short(number)}; give a whole number from 1 to {MOST_CHANNELS:,}")


def rebuild_encoder(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> DualEncoder:
    """Return the encoder of `settings` and of a state_dict.

    An encoder is sent to another process in this form, because pickle could not import its layers' classes by name
    (models/resnet imports torchvision in part).
    """
    with SkipInit():
        model = DualEncoder(**settings)
    model.load_state_dict(weights)
    return model
