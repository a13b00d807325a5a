"""How a configuration key is declared, and what follows from its declaration: which keys must agree, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, Final

from bigearthnet_cbir.config.validators import Rule

if TYPE_CHECKING:
    from bigearthnet_cbir.config.schema import Config


class Affects(Flag):
    """What another value of a key would change.

    NOTHING: where a run lies and what it computes on. Files that a path names (lists, archives, a checkpoint) are
    compared by their content, not by this path.
    MODEL: which weights the network has; a keyword of DualEncoder. Another value needs another training.
    TRAINING: the values of the trained weights. A resumed run must not change it.
    MEASUREMENT: the figures of a retrieval. A run and its baseline must share it to stand side by side.
    """

    NOTHING = 0
    MODEL = auto()
    TRAINING = auto()
    MEASUREMENT = auto()


NOTHING, MODEL, TRAINING, MEASUREMENT = Affects.NOTHING, Affects.MODEL, Affects.TRAINING, Affects.MEASUREMENT

_RECORDED_LATER: Final = frozenset({"precision"})
"""Keys that runs took before their checkpoints recorded them: a checkpoint without one may have had any value."""


def key(
    affects: Affects,
    rule: Rule,
    meaning: str,
    default: Any = MISSING,
    *,
    optional: bool = False,
    trains_with: tuple[str, Any] | None = None,
) -> Any:
    """Declare one configuration key.

    Args:
        affects: what another value would change.
        rule: checks a value.
        meaning: for the README's table and for messages.
        default: what runs did before there was the key, so that earlier YAML files and checkpoints keep their meaning;
            without one the key is required.
        optional: the key may also be null.
        trains_with: another key and its value: TRAINING is affected only where that key has that value.
    """
    metadata = {
        "affects": affects,
        "rule": rule,
        "meaning": meaning,
        "optional": optional,
        "trains_with": trains_with,
    }
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def declared_keys(config: Config | type[Any]) -> dict[str, Field[Any]]:
    """Return the keys of a configuration, or of its class, by name."""
    return {item.name: item for item in fields(config) if "rule" in item.metadata}


def names_affecting(config: type[Any], what: Affects) -> tuple[str, ...]:
    """Return the names of the keys that can affect any of `what`, in the order of the schema."""
    return tuple(name for name, item in declared_keys(config).items() if item.metadata["affects"] & what)


def settings_affecting(config: Config, what: Affects) -> dict[str, Any]:
    """Return the values of the keys that affect any of `what` in this configuration, in the order of the schema."""
    values = {name: getattr(config, name) for name in declared_keys(config)}
    return {name: values[name] for name, item in declared_keys(config).items() if _effect(item, values) & what}


def model_settings(config: Config) -> dict[str, Any]:
    """Return the keys that decide which weights a network has, with their values."""
    return settings_affecting(config, MODEL)


def training_settings(config: Config) -> dict[str, Any]:
    """Return the keys that a resumed run must share with the one it continues, with their values."""
    return settings_affecting(config, MODEL | TRAINING)


def effect_in_words(item: Field[Any]) -> str:
    """Return what a key affects, for the README's table: "training with scheduler true, measurement", say."""
    effect: Affects = item.metadata["affects"]
    words = [flag.name.lower() for flag in (MODEL, TRAINING, MEASUREMENT) if flag & effect and flag.name]
    if item.metadata["trains_with"] is not None:
        name, value = item.metadata["trains_with"]
        words[words.index("training")] += f" with {name} {value if isinstance(value, str) else str(value).lower()}"
    return ", ".join(words) or "-"


def _effect(item: Field[Any], values: Mapping[str, Any]) -> Affects:
    effect: Affects = item.metadata["affects"]
    condition = item.metadata["trains_with"]
    if condition is not None and values.get(condition[0]) != condition[1]:
        effect &= ~TRAINING
    return effect


def complete_settings(told: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Return the settings of a checkpoint, with those keys that came after it was written.

    It was trained as their defaults say, so a run that gives another value is another training.

    Args:
        told: what the checkpoint records.
        config: whose keys are known.
    """
    later = {
        name: item.default
        for name, item in declared_keys(config).items()
        if item.metadata["affects"] & (MODEL | TRAINING)
        and item.metadata["trains_with"] is None
        and item.default is not MISSING
        and name not in _RECORDED_LATER
    }
    return {**later, **told}
