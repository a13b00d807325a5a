"""Sweep over model types and fusions: training, retrieval, and one table of results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from bigearthnet_cbir.config import Config, parse_config, write_config
from bigearthnet_cbir.config.schema import KEYS
from bigearthnet_cbir.config.validators import Choice, RuleError
from bigearthnet_cbir.errors import CbirError, ConfigError, TrainingError
from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.messages import brief
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

SWEPT: Final[dict[str, tuple[str, ...]]] = {name: KEYS[name].metadata["rule"].options for name in ("type", "fusion")}
"""The axes of the grid: all choices of two keys."""

MEASURED: Final = ("protocol", "query_split", "queries", "archive_split", "archive_size", "convention")
"""Columns of the table with the protocol, equal in all rows of a sweep."""


@dataclass(frozen=True)
class SweepRun:
    """One cell of the grid.

    Attributes:
        config: configuration of the run.
        trained_by: configuration of the run whose checkpoint it uses. Fusion does not affect contrastive training,
            so one training per type is used for its four fusions.
    """

    config: Config
    trained_by: Config


def plan_sweep(
    values: Mapping[str, Any], folder_name: str, loss_func: str, root: Path, chosen: Mapping[str, Any] | None = None
) -> list[SweepRun]:
    """Return the runs of a sweep: all eight, or the selected part of the grid.

    Args:
        values: configuration keys of all runs; type and fusion are ignored.
        folder_name: name of the group under save_dir.
        loss_func: contrastive or classification.
        root: base folder of relative paths.
        chosen: keys that replace `values`; type and fusion (a word or a list of words) select a part of the grid.

    Raises:
        ConfigError: a key is invalid, or contradicts the sweep.
    """
    chosen = dict(chosen or {})
    types, fusions = (_part(key, options, chosen) for key, options in SWEPT.items())
    shared = {**values, **chosen}
    save_dir = _check_shared(shared, chosen, loss_func)

    def cell(model_type: str, fusion: str) -> Config:
        name = f"{loss_func}_{model_type}_{fusion}"
        keys: dict[str, Any] = {"name": folder_name, "loss_func": loss_func, "type": model_type, "fusion": fusion}
        keys["logging_params"] = {**save_dir, "name": name}
        return parse_config({**shared, **keys}, source=name, root=root)

    runs = []
    for model_type in types:
        # Also for a part of the grid, so that the whole sweep can reuse its trainings.
        first = cell(model_type, SWEPT["fusion"][0])
        for fusion in fusions:
            config = cell(model_type, fusion)
            trainer = first if loss_func == "contrastive" else config
            if config != trainer:
                config = replace(config, state_dict=str(RunFolder(trainer.run_folder).best))
            runs.append(SweepRun(config, trainer))
    return runs


def _part(key: str, options: tuple[str, ...], chosen: dict[str, Any]) -> tuple[str, ...]:
    """Remove a swept key from the chosen ones, and return its selected options in order."""
    if key not in chosen:
        return options
    given = chosen.pop(key)
    try:
        words = [Choice(options).check(word) for word in (given if isinstance(given, list) else [given])]
    except RuleError as error:
        raise ConfigError(f"--set {key}={brief(given)}: {error}, or a list of them") from error
    if not words:
        raise ConfigError(f"--set {key}=[]: selects no runs; choose one of {', '.join(options)}")
    return tuple(option for option in options if option in words)


def _check_shared(shared: Mapping[str, Any], chosen: Mapping[str, Any], loss_func: str) -> dict[str, Any]:
    """Refuse keys that the sweep sets itself, and return logging_params without the name of a run."""
    if shared.get("state_dict") is not None:
        raise ConfigError(
            f"state_dict is {brief(shared['state_dict'])}; a sweep trains its networks and does not use it: "
            "remove it from the base file, the class Config and --set"
        )
    words = {key: str(shared.get(key)).strip().lower() for key in ("code", "distance")}
    if words == {"code": "learned", "distance": "hamming"}:
        raise ConfigError(
            "code is learned; a sweep trains no hash heads: use code: itq, or project/train.py --hash for each run "
            "after the sweep"
        )
    if chosen.get("loss_func", loss_func) != loss_func:
        raise ConfigError(
            f"--set loss_func={brief(chosen['loss_func'])}: --loss_func is {loss_func}; give only one of them"
        )
    if "name" in chosen:
        raise ConfigError(f"--set name={brief(chosen['name'])}: use --folder_name for the name of the group")
    params = shared.get("logging_params") or {}
    if not isinstance(params, Mapping):
        raise ConfigError(f"logging_params is {brief(params)}; give the key save_dir under it")
    if "name" in (chosen.get("logging_params") or {}):
        raise ConfigError("--set logging_params: each run of a sweep has its own name; give save_dir only")
    return {key: value for key, value in params.items() if key != "name"}


def table_name(runs: list[SweepRun]) -> str:
    """Return the name of the table of a sweep; a part of the grid has a separate name."""
    parts = ["sweep", runs[0].config.loss_func]
    for key, options in SWEPT.items():
        kept = [option for option in options if any(getattr(run.config, key) == option for run in runs)]
        if len(kept) < len(options):
            parts.append("-".join(kept))
    return "_".join(parts) + ".csv"


def run_sweep(
    runs: list[SweepRun],
    yaml_folder: Path,
    train: Callable[[Config], object],
    retrieve: Callable[[Config, RunFolder], Path],
) -> tuple[pd.DataFrame, list[str]]:
    """Train and retrieve every run; a failed run does not stop the others.

    Args:
        runs: runs of plan_sweep.
        yaml_folder: folder for the YAML files of the runs.
        train: trains a configuration, unless it is already finished.
        retrieve: writes retrieval.h5 of a run and returns its path.

    Returns:
        The table (one row per run and direction, with headline metrics and chance), and the names of failed runs.
    """
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    untrained: set[str] = set()
    for number, run in enumerate(runs, 1):
        name = run.config.logging_params.name
        logger.info("run %d of %d: %s", number, len(runs), name)
        try:
            write_config(run.config, yaml_folder / f"{run.config.name}_{name}.yaml")
            rows += _run_cell(run, untrained, train, retrieve)
        except (CbirError, OSError) as error:
            logger.error("run %s failed: %s", name, error)
            failed.append(name)
        except Exception:
            # A bug in one run must not stop the others; the log has its traceback.
            logger.exception("run %s failed", name)
            failed.append(name)
    return pd.DataFrame(rows), failed


def _run_cell(
    run: SweepRun,
    untrained: set[str],
    train: Callable[[Config], object],
    retrieve: Callable[[Config, RunFolder], Path],
) -> list[dict[str, Any]]:
    """Train and retrieve one run, and return its rows; a training that fails adds its name to `untrained`."""
    trainer = run.trained_by.logging_params.name
    if trainer in untrained:
        raise TrainingError(f"it uses the encoder of {trainer}, whose training failed")
    untrained.add(trainer)
    train(run.trained_by)
    untrained.discard(trainer)
    folder = RunFolder(run.config.run_folder)
    if run.config != run.trained_by:
        folder.root.mkdir(parents=True, exist_ok=True)
        write_config(run.config, folder.parameters)
    return _rows(run.config, retrieve(run.config, folder))


def _rows(config: Config, results_file: Path) -> list[dict[str, Any]]:
    results = read_results(results_file)
    return [
        {
            **{name: results.attributes[name] for name in MEASURED},
            "type": config.type,
            "fusion": config.fusion,
            "direction": direction,
            **headline(found.curves),
            **{f"chance {name}": value for name, value in headline(found.chance).items()},
        }
        for direction, found in results.directions.items()
    ]


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the table of a sweep as CSV, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)
