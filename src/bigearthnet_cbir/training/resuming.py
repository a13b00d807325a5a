"""Resuming from a checkpoint: required content, settings that must be equal, and settings that may change."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from bigearthnet_cbir.errors import CheckpointError

CHANGEABLE: Final = ("learning_rate", "temperature", "precision", "clip_norm", "epochs")
"""Settings that --change may change when a run is resumed."""

_KINDS: Final[dict[str, type | tuple[type, ...]]] = {
    "epoch": int, "best_loss": float, "state_dict": dict, "objective": dict, "optimizer": dict,
    "scheduler": (dict, type(None)), "rng": torch.Tensor, "identity": dict,
}  # fmt: skip


def check_content(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint that lacks what resuming needs, such as one of the original scripts.

    Raises:
        CheckpointError: the message names the missing entries.
    """
    lacking = [name for name, kind in _KINDS.items() if name not in content or not isinstance(content[name], kind)]
    if lacking:
        raise CheckpointError(f"{path}: cannot resume, it lacks {', '.join(lacking)}; start a new run")


def changes_of(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings that changed during the training of a checkpoint: epoch, key, from, to."""
    told = content.get("changes")
    known = [change for change in told if isinstance(change, dict)] if isinstance(told, list) else []
    whole = [change for change in known if change.keys() >= {"epoch", "key", "from", "to"}]
    return [change for change in whole if isinstance(change["epoch"], int) and isinstance(change["key"], str)]


def find_changes(
    content: Mapping[str, Any], identity: Mapping[str, Any], asked: Collection[str], path: Path
) -> list[dict[str, Any]]:
    """Return the settings that change at this point, each as epoch, key, from and to.

    Args:
        content: content of the checkpoint.
        identity: settings of the resumed run; settings that an older checkpoint lacks are not compared.
        asked: names of the settings that may differ.
        path: path of the checkpoint, for messages.

    Raises:
        CheckpointError: other settings differ.
    """
    before = content["identity"]
    changes = [
        {"epoch": content["epoch"], "key": key, "from": before[key], "to": value}
        for key, value in identity.items()
        if key in before and before[key] != value
    ]
    unasked = [change for change in changes if change["key"] not in asked]
    if unasked:
        named = "; ".join(f"{change['key']} was {change['from']!r}, is {change['to']!r}" for change in unasked)
        cures = "restore them, or use another logging_params.name"
        if all(change["key"] in CHANGEABLE for change in unasked):
            command = " ".join(f"{change['key']}={change['to']}" for change in unasked)
            cures = f"restore them, use another logging_params.name, or train.py --resume --change {command}"
        raise CheckpointError(f"{path}: was trained with other settings ({named}); {cures}")
    return changes


def finite_advice(completed_epochs: int, learning_rate: float) -> str:
    """Return the remedy for a loss that is not finite: a complete command."""
    if completed_epochs == 0:
        return (
            "there is no checkpoint yet: lower learning_rate, raise temperature or use precision: fp32 in the YAML "
            "file, then train again"
        )
    return (
        f"the checkpoint of epoch {completed_epochs} is kept: continue from it with train.py --resume --change "
        f"learning_rate={learning_rate / 10:g}, or with another temperature=, precision=fp32 or clip_norm="
    )
