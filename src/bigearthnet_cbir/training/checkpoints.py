"""Checkpoints: everything that a run needs to go on exactly where it stopped, written in one step."""

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
"""Types of the settings that a checkpoint tells."""


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves either the old or the new file, whole.

    Raises:
        CheckpointError: the file system refuses it (no space, read-only); the old file stays as it was.
    """
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            torch.save({"kind": KIND, **stamp(), **content}, stream)
    except (OSError, RuntimeError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise CheckpointError(
            f"{path}: cannot be written ({refusal.strerror or refusal}); the checkpoint before it is kept: make room "
            "there, then train.py --resume"
        ) from error


def _refusal(error: BaseException | None) -> OSError | None:
    """Return what the file system said; PyTorch's writer hides it behind a RuntimeError of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code from it (weights_only), onto the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, or holds no state_dict.
    """
    content = read_tensor_file(path, "train first, or name a checkpoint with state_dict")
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path}: holds no state_dict; give a checkpoint written by project/train.py")
    identity = content.get("identity", {})
    if not isinstance(identity, dict) or not all(isinstance(value, _PLAIN) for value in identity.values()):
        raise CheckpointError(f"{path}: what it says of its settings is damaged; use another checkpoint")
    return content


def load_weights(module: nn.Module, weights: Mapping[str, Any], path: Path) -> None:
    """Load a module's weights and say in one line what does not fit.

    Raises:
        CheckpointError: names are missing or left over, shapes or data types differ, or a weight is not finite.
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
