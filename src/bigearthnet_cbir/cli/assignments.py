"""KEY=VALUE words of a command line, such as those of --set and --change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bigearthnet_cbir.config.loader import read_value
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.messages import brief, plain


def assignments(words: Sequence[str], option: str) -> dict[str, Any]:
    """Return the keys and values of KEY=VALUE words; values are parsed as YAML.

    Raises:
        ConfigError: a word has no equals sign or no key, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{option} {plain(word)}: give KEY=VALUE, for example {option} epochs=10")
        if key in found:
            both = f"{brief(found[key])} and {plain(value)}"
            raise ConfigError(f"{option} {plain(key)} is given twice ({both}); keep one")
        found[key] = read_value(value)
    return found
