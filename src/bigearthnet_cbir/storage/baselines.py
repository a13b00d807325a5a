"""The baselines in a run's folder: those that were measured as the run was."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

from bigearthnet_cbir.storage.results import open_results
from bigearthnet_cbir.storage.run_folder import BASELINE_PREFIX, RunFolder

logger = logging.getLogger(__name__)

_MEASURED: Final = ("query_split", "archive_split", "queries", "archive_size", "distance", "feature_kind", "k")
_NETWORK: Final = (
    "type", "backbone", "projection_dim", "projection_head", "out_channels", "sensor_norm", "fusion",
)  # fmt: skip
"""Keys of the configuration that make a random network another one."""


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
        told = {key: file.attrs.get(key) for key in _MEASURED}
        options = json.loads(file.attrs.get("configuration", "{}"))
    network = {key: options.get(key) for key in _NETWORK} if baseline == "untrained" else {}
    return {**told, **network}
