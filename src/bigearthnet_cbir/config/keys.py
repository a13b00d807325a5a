"""Declaration of configuration keys, and the lists of keys that must agree, derived from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, Final

from bigearthnet_cbir.config.validators import Rule

if TYPE_CHECKING:
    from bigearthnet_cbir.config.schema import Config


class Affects(Flag):
    """What a key affects.

    NOTHING: neither weights nor metrics, such as paths and devices. Files (lists, archives, a checkpoint) are compared
    by content, not by path.
    MODEL: the shape of the network; a keyword of DualEncoder. Another value requires a new training.
    TRAINING: the trained weights. A resumed run must not change it.
    MEASUREMENT: the metrics of a retrieval. It must be equal for a run and its baselines.
    """

    NOTHING = 0
    MODEL = auto()
    TRAINING = auto()
    MEASUREMENT = auto()


NOTHING, MODEL, TRAINING, MEASUREMENT = Affects.NOTHING, Affects.MODEL, Affects.TRAINING, Affects.MEASUREMENT

_RECORDED_LATER: Final = frozenset({"precision"})
"""Keys that older checkpoints did not record; a checkpoint without one may have any value."""


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
        affects: what the key affects.
        rule: validation rule.
        meaning: description for the README's table and for messages.
        default: behaviour without the key, so that older YAML files and checkpoints keep their meaning; without a
            default the key is required.
        optional: whether the key may be null.
        trains_with: another key and a value of it; TRAINING is affected only if that key has this value.
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
    """Return the keys that determine the shape of the network, with their values."""
    return settings_affecting(config, MODEL)


def training_settings(config: Config) -> dict[str, Any]:
    """Return the keys that must be equal when a run is resumed, with their values."""
    return settings_affecting(config, MODEL | TRAINING)


def effect_in_words(item: Field[Any]) -> str:
    """Return what a key affects, for the README's table, for example "training with scheduler true, measurement"."""
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
    """Return the settings of a checkpoint, completed by the defaults of keys that are newer than the checkpoint.

    The defaults are the behaviour without the key, so another value means a different training.

    Args:
        told: recorded settings of the checkpoint.
        config: configuration with all keys.
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
