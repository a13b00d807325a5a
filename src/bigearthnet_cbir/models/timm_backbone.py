"""Backbones from timm: convolutional networks and vision transformers by name, without their classification layer.

Wightman 2019, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models. Networks are built with
random weights. Nothing is downloaded.
"""

from __future__ import annotations

import difflib
import logging
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigearthnet_cbir.errors import ConfigError, short
from bigearthnet_cbir.models.resnet import import_torchvision

logger = logging.getLogger(__name__)

TIMM_PREFIX: Final = "timm:"
INSTALL_TIMM: Final = "pip install '.[timm]'"
PATCH_SIDE: Final = 120


def import_timm() -> Any:
    """Import timm after torchvision, whose operators must be declared first if torch is a CPU-only build.

    Raises:
        ConfigError: timm is not installed.
    """
    import_torchvision()
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"backbone: timm:... needs the optional package timm; install it by {INSTALL_TIMM}"
        ) from error
    return timm


class TimmBackbone(nn.Module):
    """A network of timm from its first layer to its pooled features.

    A network for any image size gets patches unchanged. A network for a fixed size is built for 120 x 120 pixels if its
    patch size divides 120, as 8 does. Otherwise, images are resized to the size for which the network was designed. The
    log reports both cases.

    Args:
        backbone: "timm:" and the name of a network.
        in_channels: of the images.

    Attributes:
        width: length of the pooled features.
        side: width and height in pixels that images are resized to; None without resizing.
        first_convolution: name of the first layer according to timm; "" if timm does not give it.

    Raises:
        ConfigError: timm is not installed, or has no network of that name with pooled features.
    """

    def __init__(self, backbone: str, in_channels: int) -> None:
        super().__init__()
        name = _checked_name(backbone)
        self.network, self.side = _build(name, in_channels)
        first = _settings(self.network).get("first_conv")
        self.first_convolution: str = first if isinstance(first, str) else ""
        self.width = _width(self.network, in_channels, self.side or PATCH_SIDE, backbone)

    def forward(self, images: Tensor, stem: nn.Module | None = None) -> Tensor:
        """Return the pooled features (B, width) of (B, in_channels, H, W) images.

        Args:
            images: normalised; with a stem, (B, its channels, H, W).
            stem: 1x1 convolution that is applied before the network.
        """
        if self.side is not None and images.shape[-2:] != (self.side, self.side):
            images = functional.interpolate(images, size=(self.side, self.side), mode="bicubic", align_corners=False)
        features: Tensor = self.network(images if stem is None else stem(images))
        return features


def _checked_name(backbone: str) -> str:
    timm = import_timm()
    name = backbone.removeprefix(TIMM_PREFIX)
    if not timm.is_model(name) or "." in name:
        base = name.partition(".")[0]
        if timm.is_model(base):
            cure = f"the part after the point names weights, which are not downloaded: write {TIMM_PREFIX}{base}"
        else:
            near = difflib.get_close_matches(base, timm.list_models(), n=3)
            cure = f"did you mean {', '.join(near)}?" if near else "timm.list_models() has the names"
        raise ConfigError(f"backbone is {short(backbone)}, which timm {timm.__version__} does not have; {cure}")
    return name


def _build(name: str, in_channels: int) -> tuple[nn.Module, int | None]:
    """Return a network, and the size to which images must be resized; None if it accepts 120 pixels or any size."""
    timm = import_timm()
    options = {"pretrained": False, "in_chans": in_channels, "num_classes": 0}
    network: nn.Module = timm.create_model(name, **options)
    settings = _settings(network)
    if not settings.get("fixed_input_size"):
        return network, None
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and all(PATCH_SIDE % side == 0 for side in patch):
        try:
            network = timm.create_model(name, **options, img_size=PATCH_SIDE)
        except (TypeError, ValueError, AssertionError):
            logger.debug("%s takes no image size", name, exc_info=True)
        else:
            logger.info(
                "timm:%s is built for patches of %d pixels, %d tokens a side", name, PATCH_SIDE, PATCH_SIDE // patch[0]
            )
            return network, PATCH_SIDE
    side = int(settings["input_size"][-1])
    logger.info("timm:%s wants images of %d pixels: patches of %d are resized to it", name, side, PATCH_SIDE)
    return network, side


def _settings(network: nn.Module) -> dict[str, Any]:
    """Return timm's settings of a network: input size, name of the first convolution."""
    return dict(network.default_cfg)  # type: ignore[arg-type]


def _width(network: nn.Module, in_channels: int, side: int, backbone: str) -> int:
    """Return the length of the pooled features, determined with an image of zeros."""
    network.eval()
    try:
        with torch.no_grad():
            output = network(torch.zeros(1, in_channels, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"backbone is {backbone}, which takes no images of {side} pixels ({reason})") from (error)
    network.train()
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise ConfigError(f"backbone is {backbone}, which gives no pooled features (B, D); use another network of timm")
    return int(output.shape[1])
