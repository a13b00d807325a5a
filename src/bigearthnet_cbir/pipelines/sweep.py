"""The grid of model types and fusions: trained where needed, retrieved, and gathered in one table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from bigearthnet_cbir.config import Config, parse_config, write_config
from bigearthnet_cbir.errors import CbirError, TrainingError
from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.provenance import replace_file
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

TYPES: Final = ("joint", "separate")
FUSIONS: Final = ("concat", "avg", "max", "sum")
MEASURED: Final = ("protocol", "query_split", "queries", "archive_split", "archive_size", "convention")
"""Columns of the table that say what was measured; the same in all rows of a sweep."""


@dataclass(frozen=True)
class SweepRun:
    """One cell of the grid.

    Attributes:
        config: its configuration.
        trained_by: the configuration of the run whose checkpoint it retrieves with. With the contrastive loss
            fusion does not enter the training, so one training per type serves its four fusions.
    """

    config: Config
    trained_by: Config


def plan_sweep(values: Mapping[str, Any], folder_name: str, loss_func: str, root: Path) -> list[SweepRun]:
    """Return the eight runs of a sweep.

    Args:
        values: configuration keys that all runs share.
        folder_name: the group's name under save_dir.
        loss_func: contrastive or classification.
        root: where relative paths start.

    Raises:
        ConfigError: a shared key is wrong.
    """
    save_dir = (values.get("logging_params") or {}).get("save_dir", "logs")
    runs = []
    for model_type in TYPES:
        trainers: dict[str, Config] = {}
        for fusion in FUSIONS:
            name = f"{loss_func}_{model_type}_{fusion}"
            cell: dict[str, Any] = {"name": folder_name, "loss_func": loss_func, "type": model_type, "fusion": fusion}
            cell["logging_params"] = {"save_dir": save_dir, "name": name}
            config = parse_config({**values, **cell}, source=name, root=root)
            trainer = trainers.setdefault("all" if loss_func == "contrastive" else fusion, config)
            if config is not trainer:
                config = replace(config, state_dict=str(RunFolder(trainer.run_folder).best))
            runs.append(SweepRun(config, trainer))
    return runs


def run_sweep(
    runs: list[SweepRun],
    yaml_folder: Path,
    train: Callable[[Config], object],
    retrieve: Callable[[Config, RunFolder], Path],
) -> tuple[pd.DataFrame, list[str]]:
    """Train and retrieve every run; a failed one does not stop the rest.

    Args:
        runs: of plan_sweep.
        yaml_folder: where each run's YAML file is written.
        train: trains a configuration; does nothing where that is finished already.
        retrieve: writes a run's retrieval.h5 and returns its path.

    Returns:
        The table (one row per run and direction, headline figures and chance), and the names of failed runs.
    """
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    untrained: set[str] = set()
    for number, run in enumerate(runs, 1):
        name, trainer = run.config.logging_params.name, run.trained_by.logging_params.name
        logger.info("run %d of %d: %s", number, len(runs), name)
        folder = RunFolder(run.config.run_folder)
        try:
            write_config(run.config, yaml_folder / f"{run.config.name}_{name}.yaml")
            if trainer in untrained:
                raise TrainingError(f"its encoder is that of {trainer}, whose training failed")
            untrained.add(trainer)
            train(run.trained_by)
            untrained.discard(trainer)
            if run.config != run.trained_by:
                folder.root.mkdir(parents=True, exist_ok=True)
                write_config(run.config, folder.parameters)
            rows += _rows(run.config, retrieve(run.config, folder))
        except CbirError as error:
            logger.error("run %s failed: %s", name, error)
            failed.append(name)
        except Exception:
            # A defect of ours in one cell must not cost the others; its traceback goes to the log.
            logger.exception("run %s failed", name)
            failed.append(name)
    return pd.DataFrame(rows), failed


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
    """Write the sweep's table as CSV, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    table.to_csv(temporary, index=False)
    replace_file(temporary, path)
