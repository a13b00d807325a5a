"""Checkpoints: the complete state that exact resuming needs, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bigearthnet_cbir.errors import CheckpointError, summarize_names
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.models.safe_load import check_weights, read_tensor_file
from bigearthnet_cbir.provenance import stamp

KIND = "bigearthnet-cbir checkpoint"
_PLAIN = (str, int, float, type(None))
"""Types of the settings in a checkpoint."""


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a kill at any moment leaves the complete old or new file.

    Raises:
        CheckpointError: the file system refuses the write (no space, read-only); the old file is kept.
    """
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            torch.save({"kind": KIND, **stamp(), **content}, stream)
    except (OSError, RuntimeError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise CheckpointError(
            f"{path}: cannot be written ({refusal.strerror or refusal}); the previous checkpoint is kept: free disk "
            "space, then run train.py --resume"
        ) from error


def _refusal(error: BaseException | None) -> OSError | None:
    """Return the underlying OSError, which PyTorch wraps into a RuntimeError."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it (weights_only), onto the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, or has no state_dict.
    """
    content = read_tensor_file(path, "train first, or name a checkpoint with state_dict")
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path}: has no state_dict; give a checkpoint written by project/train.py")
    identity = content.get("identity", {})
    if not isinstance(identity, dict) or not all(isinstance(value, _PLAIN) for value in identity.values()):
        raise CheckpointError(f"{path}: its settings are damaged; use another checkpoint")
    return content


def load_weights(module: nn.Module, weights: Mapping[str, Any], path: Path) -> None:
    """Load the weights of a module.

    Raises:
        CheckpointError: names are missing or unexpected, shapes or data types differ, or a weight is not finite.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in weights]
    unknown = [str(name) for name in weights if name not in own]
    shapes = [
        f"{name} is {_shape(weights[name])}, not {_shape(own[name])}"
        for name in own
        if name in weights and _shape(weights[name]) != _shape(own[name])
    ]
    problems = [
        f"{len(names)} {what} ({summarize_names(names, 3)})"
        for names, what in ((missing, "weights missing"), (unknown, "weights unknown"), (shapes, "shapes differ"))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{path}: belongs to another model: {'; '.join(problems)}; check type, backbone, projection_dim, "
            "projection_head, out_channels and sensor_norm"
        )
    check_weights(weights, own, path)
    module.load_state_dict(weights)


def _shape(value: Any) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else "no tensor"
