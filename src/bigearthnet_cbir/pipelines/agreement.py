"""Comparison of a configuration with the settings of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.config.keys import complete_settings
from bigearthnet_cbir.config.schema import PATH_KEYS
from bigearthnet_cbir.errors import CheckpointError, DataError
from bigearthnet_cbir.pipelines.builders import pairs_digest
from bigearthnet_cbir.pipelines.inputs import read_configured_pairs
from bigearthnet_cbir.training.resuming import changes_of

logger = logging.getLogger(__name__)

_ELSEWHERE: Final = frozenset({"precision"})
"""Training keys that a retrieval may set differently."""


def settings_that_differ(
    config: Config, content: Mapping[str, Any], only: Collection[str] | None = None
) -> dict[str, list[Any]]:
    """Return the settings that differ from those of a checkpoint: key -> [checkpoint value, configured value].

    A value that the run got later through --resume --change is not a difference, because its best checkpoint may be
    older. Checkpoints of the original scripts contain no settings, so none differs.

    Args:
        config: configuration to compare.
        content: content of the checkpoint.
        only: keys to compare; None for all settings in the checkpoint.
    """
    identity = content.get("identity")
    if not isinstance(identity, Mapping):
        return {}
    epoch = content.get("epoch")
    since = epoch if isinstance(epoch, int) else 0
    later = {change["key"]: change["to"] for change in changes_of(content) if change["epoch"] >= since}
    differing = {}
    for key, was in complete_settings(identity, config).items():
        now = getattr(config, key, None)
        compared = hasattr(config, key) and key not in _ELSEWHERE and (only is None or key in only)
        if compared and _plain(key, now) not in (_plain(key, was), _plain(key, later.get(key, was))):
            differing[key] = [was, now]
    if only is None and not _same_pairs(config, identity):
        differing["train_csv"] = ["other pairs", config.train_csv]
    return differing


def _plain(key: str, value: Any) -> Any:
    """Return a value to compare: of a path its name, because another machine has the same file elsewhere."""
    return Path(value).name if key in PATH_KEYS and isinstance(value, str) else value


def _same_pairs(config: Config, identity: Mapping[str, Any]) -> bool:
    """Return whether train_csv has the training pairs of the checkpoint; True if it cannot be read."""
    if "training_pairs" not in identity:
        return True
    try:
        return pairs_digest(read_configured_pairs(config, "train")) == str(identity["training_pairs"])
    except (DataError, OSError) as error:
        logger.info("the training pairs are not compared with those of the checkpoint: %s", error)
        return True


def check_agreement(
    config: Config,
    content: Mapping[str, Any],
    checkpoint: Path,
    *,
    allow_different: bool = False,
    only: Collection[str] | None = None,
) -> dict[str, list[Any]]:
    """Return the result of settings_that_differ; raise an error if there are differences that are not allowed.

    Raises:
        CheckpointError: the configuration differs from the checkpoint; the message has all keys with both values.
    """
    differing = settings_that_differ(config, content, only)
    if not differing:
        return {}
    named = "; ".join(f"{key} was {was!r}, is {now!r}" for key, (was, now) in differing.items())
    if not allow_different:
        raise CheckpointError(
            f"{checkpoint}: was trained with other settings than {config.source} has ({named}); restore them, use "
            "the parameters.yaml of that run, or give --allow-different, which records both"
        )
    logger.warning("%s: was trained with other settings than %s has: %s", checkpoint, config.source, named)
    return differing
