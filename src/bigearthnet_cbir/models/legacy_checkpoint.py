"""Checkpoints of the original scripts: detected by their keys and mapped to this project's encoder.

Such a checkpoint always contains three encoders (encoder_s1, encoder_s2, encoder_joint), although only some of them
were trained, and the projection heads as Linear + ReLU. Their classification layer was neither trained nor saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from torch import Tensor

from bigearthnet_cbir.errors import CheckpointError

_MARKS: Final = ("projection_head_s1.0.weight", "encoder_joint.conv_first.weight")

_SEPARATE: Final = {"encoder_s1.encoder.": "trunk_s1.encoder.", "encoder_s2.encoder.": "trunk_s2.encoder."}
_JOINT: Final = {
    "encoder_joint.conv_SAR.conv.": "stem_s1.",
    "encoder_joint.conv_RGB.conv.": "stem_s2.",
    "encoder_joint.encoder.": "trunk.encoder.",
}
_HEADS: Final = {"projection_head_s1.": "head_s1.", "projection_head_s2.": "head_s2."}
_FIRST: Final = {
    "encoder_s1.conv1.weight": "trunk_s1.encoder.0.weight",
    "encoder_s2.conv1.weight": "trunk_s2.encoder.0.weight",
    "encoder_joint.conv_first.weight": "trunk.encoder.0.weight",
}
"""A second name under which the first convolution was also saved."""


def is_original(weights: Mapping[str, Any]) -> bool:
    """Return whether a state_dict has the original scripts' keys."""
    names = {str(name).removeprefix("module.") for name in weights}
    return all(mark in names for mark in _MARKS)


def from_original(weights: Mapping[str, Tensor], type: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return DualEncoder options and weights that reproduce z1 and z2 of the original network.

    Args:
        weights: the original state_dict, with or without DataParallel's "module." prefix.
        type: "joint" or "separate": which of its encoders was trained.

    Raises:
        CheckpointError: the two names of a first convolution disagree, or the layers differ from the original ones.
    """
    tensors = {str(name): tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}
    named = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if [named[mark].ndim if mark in named else 0 for mark in _MARKS] != [2, 4]:
        raise CheckpointError(f"the original checkpoint's {' and '.join(_MARKS)} have unexpected shapes; use another")
    prefixes = {**(_JOINT if type == "joint" else _SEPARATE), **_HEADS}
    mapped = dict(_renamed(named, prefixes))
    for old, new in _FIRST.items():
        if old in named and any(new.startswith(prefix) for prefix in prefixes.values()):
            if new in mapped and not _are_equal(mapped[new], named[old]):
                raise CheckpointError(f"the original checkpoint has two different {old}; it was edited, use another")
            mapped[new] = named[old]
    options = {
        "type": type,
        "projection_head": "original",
        "projection_dim": len(named["projection_head_s1.0.weight"]),
        "out_channels": named["encoder_joint.conv_first.weight"].shape[1],
        "sensor_norm": "shared",
    }
    return options, mapped


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool(((one == other) | (one != one)).all())


def _renamed(named: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in named.items():
        for old, new in prefixes.items():
            if name.startswith(old):
                yield new + name.removeprefix(old), tensor
