"""The baselines in a run's folder: those that were measured as the run was."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.config.keys import MEASUREMENT, MODEL, declared_keys, names_affecting
from bigearthnet_cbir.storage.results import open_results, read_attributes, read_configuration
from bigearthnet_cbir.storage.run_folder import BASELINE_PREFIX, RunFolder

logger = logging.getLogger(__name__)

_ATTRIBUTES: Final = {"feature": "feature_kind"}
"""Attributes of a results file that are named otherwise than their keys."""

_COUNTS: Final = ("queries", "archive_size", "k")

_OTHERWISE: Final = frozenset({"protocol", "top_k", "exclude_within"})
"""Keys that are not compared: a protocol is its two splits, top_k shows in k, exclude_within only adds figures."""

_NETWORK: Final = frozenset({"fusion"})
"""Keys of the measurement that do nothing where there is no network."""


def find_baselines(results: Path) -> dict[str, Path]:
    """Return the results of the baselines beside a run's, by name; one measured otherwise is named in a warning.

    Args:
        results: the run's retrieval.h5.

    Raises:
        ResultsError: a file is not readable.
    """
    found = {}
    for root in sorted(results.parent.glob(f"{BASELINE_PREFIX}*")):
        name, path = root.name.removeprefix(BASELINE_PREFIX), RunFolder(root).retrieval
        if not path.exists():
            continue
        run, other = _measurement(results, name), _measurement(path, name)
        differing = [f"{key} {other[key]}, not {value}" for key, value in run.items() if other[key] != value]
        if differing:
            logger.warning(
                "left out baseline %s, measured otherwise (%s): run retrieval.py --baseline %s again",
                name, "; ".join(differing), name,
            )  # fmt: skip
        else:
            found[name] = path
    return found


def _measurement(path: Path, baseline: str) -> dict[str, Any]:
    """Return what must be equal for a run and a baseline to be compared."""
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
    told = {name: attributes.get(_ATTRIBUTES.get(name, name), value) for name, value in settings.items()}
    return {**told, **{name: attributes.get(name) for name in _COUNTS}}
