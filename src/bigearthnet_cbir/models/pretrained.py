"""Initial weights of ResNet backbones from a local file with the layer names of torchvision or torchgeo.

Nothing is downloaded. Known files: torchvision's ImageNet weights (3 channels), and the SSL4EO-S12 MoCo weights (Wang
et al. 2023, https://arxiv.org/abs/2211.07044) with 2 Sentinel-1 or 13 Sentinel-2 channels.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from bigearthnet_cbir.errors import CheckpointError, summarize_names
from bigearthnet_cbir.models.resnet import Backbone
from bigearthnet_cbir.models.safe_load import check_weights, read_tensor_file
from bigearthnet_cbir.models.sensor_batchnorm import SENSORS

logger = logging.getLogger(__name__)

CHANNELS: Final[dict[int, tuple[str, ...]]] = {
    2: ("VV", "VH"),
    3: ("B04", "B03", "B02"),
    10: ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"),
    12: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
    13: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"),
}
"""Bands of the first convolution by number of channels, in the order of the published weights."""

_LAYERS: Final = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
_PREFIXES: Final = ("module.", "model.", "backbone.", "encoder_q.", "encoder.", "base_encoder.", "resnet.")


def read_pretrained(path: Path) -> dict[str, Tensor]:
    """Return the ResNet weights of a file under torchvision's names, without the classification layer.

    Raises:
        CheckpointError: the file is missing, damaged, or has no ResNet weights.
    """
    content = read_tensor_file(path, "init_weights takes a local .pth state_dict, nothing is downloaded")
    for nested in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(nested), Mapping):
            content = content[nested]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: init_weights has no state_dict; give a .pth file that maps names to weights")
    weights = {_plain(str(name)): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    weights = {name: tensor for name, tensor in weights.items() if name.split(".")[0] in _LAYERS}
    if "layer4.0.conv1.weight" not in weights or "conv1.weight" not in weights or weights["conv1.weight"].ndim != 4:
        raise CheckpointError(f"{path}: init_weights has no ResNet with the layer names of torchvision or torchgeo")
    return weights


def _plain(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def load_backbone_weights(
    trunk: Backbone, weights: Mapping[str, Tensor], bands: tuple[str, ...] | None, source: str
) -> set[str]:
    """Copy ResNet weights into a backbone, and return the names of the copied weights.

    Args:
        trunk: backbone whose weights are replaced.
        weights: weights of read_pretrained.
        bands: names of the input channels; None for the joint backbone, whose input channels are not bands, so
            that its first convolution keeps its random weights.
        source: the file, for messages.

    Raises:
        CheckpointError: the file is of another ResNet.
    """
    own = trunk.state_dict()
    if not weights["conv1.weight"].is_floating_point():
        raise CheckpointError(f"{source}: conv1.weight of init_weights is not float; use another file")
    new: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        head, rest = name.split(".", 1)
        new |= dict.fromkeys(_targets(own, f"encoder.{_LAYERS[head]}", rest), tensor)
    first = _first_convolution(new.pop("encoder.0.weight"), bands)
    if first is not None:
        new["encoder.0.weight"] = first
    needed = [name for name in own if not name.endswith("num_batches_tracked") and name != "encoder.0.weight"]
    missing = [name for name in needed if name not in new]
    wrong = missing + [name for name, tensor in new.items() if name not in own or tensor.shape != own[name].shape]
    if wrong:
        raise CheckpointError(
            f"{source}: init_weights does not fit this backbone ({summarize_names(wrong, 3)}); set backbone to it"
        )
    check_weights(new, own, source)
    trunk.load_state_dict({**own, **new})
    return set(new)


def random_layers(module: nn.Module, filled: Collection[str], prefix: str = "") -> list[str]:
    """Return the names of the largest submodules without any loaded weights."""
    names = [f"{prefix}{name}" for name, _ in module.named_parameters()]
    if not names or all(name in filled for name in names):
        return []
    if prefix and not any(name in filled for name in names):
        return [prefix.removesuffix(".")]
    return [
        part for name, child in module.named_children() for part in random_layers(child, filled, f"{prefix}{name}.")
    ]


def _targets(own: Mapping[str, Tensor], layer: str, rest: str) -> list[str]:
    """Return the backbone's names of a weight; two for batch norms per sensor."""
    plain = f"{layer}.{rest}"
    module, _, leaf = plain.rpartition(".")
    per_sensor = [f"{module}.norms.{sensor}.{leaf}" for sensor in SENSORS]
    return per_sensor if per_sensor[0] in own else [plain]


def _first_convolution(weight: Tensor, bands: tuple[str, ...] | None) -> Tensor | None:
    """Return the first convolution of the file for the given bands, or None without a common band."""
    known = CHANNELS.get(weight.shape[1])
    if bands is None or known is None or not set(bands) & set(known):
        return None
    # A band that the file lacks is initialised with the mean of its bands.
    average = weight.mean(dim=1)
    unknown = [band for band in bands if band not in known]
    if unknown:
        logger.info("init_weights has no %s: initialised with the mean of its bands", ", ".join(unknown))
    columns = [weight[:, known.index(band)] if band in known else average for band in bands]
    return torch.stack(columns, dim=1)
