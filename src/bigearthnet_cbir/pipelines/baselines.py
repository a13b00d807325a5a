"""Baselines of a run: those that were evaluated with the same settings."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.config.keys import MEASUREMENT, MODEL, declared_keys, names_affecting
from bigearthnet_cbir.storage.results import open_results, read_attributes, read_configuration
from bigearthnet_cbir.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

_ATTRIBUTES: Final = {"feature": "feature_kind"}
"""Attributes of a results file whose name differs from their key."""

_CONFIGURED: Final = frozenset({"code_bits"})
"""Keys that are compared as configured: with one bit per feature, their attribute depends on the number of features."""

_COUNTS: Final = ("queries", "archive_size", "k")

_OTHERWISE: Final = frozenset({"protocol", "top_k", "exclude_within"})
"""Keys that are not compared: protocol (its splits are), top_k (k is), exclude_within (it only adds metrics)."""

_NETWORK: Final = frozenset({"fusion", "feature"})
"""Measurement keys without effect on baselines without a network."""


def find_baselines(results: Path) -> dict[str, Path]:
    """Return the results of the baselines of a run by name; warn of those with other settings.

    Args:
        results: retrieval.h5 of the run.

    Raises:
        ResultsError: a file is not readable.
    """
    found = {}
    for name, folder in RunFolder(results.parent).baselines().items():
        path = folder.retrieval
        run, other = _measurement(results, name), _measurement(path, name)
        differing = [f"{key} {other[key]} instead of {value}" for key, value in run.items() if other[key] != value]
        if differing:
            logger.warning(
                "omitted baseline %s with other settings (%s); run retrieval.py --baseline %s again",
                name, "; ".join(differing), name,
            )  # fmt: skip
        else:
            found[name] = path
    return found


def _measurement(path: Path, baseline: str) -> dict[str, Any]:
    """Return the settings that must be equal for a run and its baseline."""
    with open_results(path) as file:
        attributes = read_attributes(file)
    options = read_configuration(attributes.get("configuration"))
    keys = declared_keys(Config)
    names = [name for name in names_affecting(Config, MEASUREMENT) if name not in _OTHERWISE]
    if baseline == "untrained":
        names += names_affecting(Config, MODEL)
    else:
        names = [name for name in names if name not in _NETWORK]
    settings = {name: options.get(name, keys[name].default) for name in names}
    told = {
        name: value if name in _CONFIGURED else attributes.get(_ATTRIBUTES.get(name, name), value)
        for name, value in settings.items()
    }
    return {**told, **{name: attributes.get(name) for name in _COUNTS}}
