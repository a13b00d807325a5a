"""Which parts of the recipe help: trainings on one demo world, several seeds each, mean and spread of F1@10 and F1@5.

    python benchmarks/ablation.py [--train 1000] [--epochs 6] [--seeds 3] [--only "original, joint"]
    python benchmarks/ablation.py --objectives

Every row changes what its name says and nothing else; `original, joint` is the original scripts' recipe, and rows that
begin with MLP change what `MLP head, norm, flips` is. With --objectives the rows are those of ablation_objectives.py,
which change the recommended recipe. Trainings run side by side, one core each. A finished one is not
repeated: the work folder is kept (--folder).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
from ablation_objectives import CHANGES, OBJECTIVES, train_changed
from hardware import write_results

DIRECTIONS = ("s1_s2", "s2_s1", "s1_s1", "s2_s2", "fused")
FIGURES = ("F1@10", "F1@5")
ORIGINAL = {"projection_head": "original", "augment": False, "sensor_norm": "shared"}
RECOMMENDED = {"projection_head": "original", "augment": True, "sensor_norm": "per_sensor"}
MLP = {**RECOMMENDED, "projection_head": "mlp"}
RECIPES: dict[str, dict[str, Any]] = {
    "original, joint": {"type": "joint", **ORIGINAL},
    "original + MLP head": {"type": "joint", **ORIGINAL, "projection_head": "mlp"},
    "original + flips, turns": {"type": "joint", **ORIGINAL, "augment": True},
    "original + norm per sensor": {"type": "joint", **ORIGINAL, "sensor_norm": "per_sensor"},
    "recommended, joint (norm, flips)": {"type": "joint", **RECOMMENDED},
    "MLP head, norm": {"type": "joint", **MLP, "augment": False},
    "MLP head, norm, flips": {"type": "joint", **MLP},
    "MLP + alignment 1": {"type": "joint", **MLP, "alignment_weight": 1.0},
    "MLP, decoupled": {"type": "joint", **MLP, "contrastive_loss": "decoupled"},
    "MLP + memory 512": {"type": "joint", **MLP, "memory_size": 512},
    "MLP + crop, dropout, noise": {
        "type": "joint", **MLP, "crop_area": 0.5, "band_dropout": 0.1, "noise": 0.1, "speckle_looks": 8
    },
    "MLP, learnt temperature": {"type": "joint", **MLP, "learn_temperature": True},
    "MLP, label-aware (reads labels)": {"type": "joint", **MLP, "contrastive_loss": "label_aware"},
    "original, separate": {"type": "separate", **ORIGINAL},
    "MLP head, flips, separate": {"type": "separate", **MLP},
}  # fmt: skip
BEST = "recommended, joint (norm, flips)"
RECIPES_OF_OBJECTIVES = {BEST: RECIPES[BEST], **{name: {**RECIPES[BEST], **keys} for name, keys in OBJECTIVES.items()}}
ALL_RECIPES = {**RECIPES, **RECIPES_OF_OBJECTIVES}


def write_world(folder: Path, sizes: dict[str, int]) -> None:
    """Write the demo world's store and lists, unless they are there."""
    from bigearthnet_cbir.data.patch_store import PatchWriter
    from bigearthnet_cbir.data.synthetic import make_pair
    from bigearthnet_cbir.types import Patch

    if (folder / "train.csv").exists():
        return
    first = 0
    with PatchWriter(folder / "patches.lmdb") as writer:
        for split, size in sizes.items():
            lines = []
            for index in range(first, first + size):
                made = make_pair(0, index)
                for name, bands in ((made.acquisition.names.s1, made.s1), (made.acquisition.names.s2, made.s2)):
                    writer.write(name, Patch(bands, made.labels))
                lines.append(f"{made.acquisition.names.s2},{made.acquisition.names.s1}\n")
            (folder / f"{split}.csv").write_text("".join(lines))
            first += size


def configuration(folder: Path, recipe: str, seed: int, epochs: int, batch: int, precision: str = "fp32") -> Any:
    """Return the configuration of one training, by default in the arithmetic that every CPU has."""
    from bigearthnet_cbir.config import parse_config

    store = str(folder / "patches.lmdb")
    values = {
        **{f"{split}_csv": str(folder / f"{split}.csv") for split in ("train", "val", "test")},
        "bigEarthPthLMDB_S1": store, "bigEarthPthLMDB_S2": store,
        "backbone": "resnet10", "window": 64, "batch_size": batch, "epochs": epochs, "learning_rate": 1e-3,
        "device": "cpu", "precision": precision, "num_workers": 0, "seed": seed, "name": recipe.replace(" ", "_"),
        "logging_params": {"save_dir": str(folder), "name": f"seed{seed}"}, **ALL_RECIPES[recipe],
    }  # fmt: skip
    return parse_config(values, source=recipe)


def figures_of(path: Path) -> dict[str, dict[str, float]]:
    """Return direction -> headline figures of a results file, chance among them."""
    from bigearthnet_cbir.evaluation.summary import headline
    from bigearthnet_cbir.storage.results import read_results

    found = read_results(path).directions
    figures = {direction: headline(result.curves) for direction, result in found.items()}
    return {**figures, **{f"chance {direction}": headline(result.chance) for direction, result in found.items()}}


def run(job: tuple[Path, str, int, int, int, str, str | None]) -> tuple[str, dict[str, dict[str, float]]]:
    """Train and retrieve once, on one core, or measure a baseline."""
    folder, recipe, seed, epochs, batch, precision, baseline = job
    import torch

    from bigearthnet_cbir.pipelines.retrieve import retrieve
    from bigearthnet_cbir.pipelines.train import train
    from bigearthnet_cbir.storage.run_folder import RunFolder

    torch.set_num_threads(1)
    config = configuration(folder, recipe, seed, epochs, batch, precision)
    run_folder = RunFolder(config.run_folder)
    if baseline is None and not run_folder.retrieval.exists():
        train_changed(config, recipe) if recipe in CHANGES else train(config, resume=True)
    figures = figures_of(retrieve(config, run_folder, baseline=baseline))
    logging.getLogger("ablation").warning(
        "%s, seed %d: F1@10 S1->S2 %s", baseline or recipe, seed, figures.get("s1_s2", {}).get("F1@10")
    )
    return baseline or recipe, figures


def table(results: dict[str, list[dict[str, dict[str, float]]]]) -> list[dict[str, str]]:
    """Return one line a recipe and figure: mean and sample deviation over seeds, per direction."""
    rows = []
    for figure in FIGURES:
        for recipe, runs in results.items():
            row = {"figure": figure, "recipe": recipe, "seeds": str(len(runs))}
            for direction in DIRECTIONS:
                values = [figures[direction][figure] for figures in runs if direction in figures]
                spread = f" +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                row[direction] = f"{np.mean(values):.3f}{spread}" if values else "-"
            rows.append(row)
    return rows


def main() -> None:
    """Train what is missing and write benchmarks/results/<results>.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--val", type=int, default=300)
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--objectives", action="store_true", help="the rows of ablation_objectives.py")
    parser.add_argument("--only", nargs="+", choices=list(ALL_RECIPES))
    parser.add_argument("--folder", type=Path, default=Path("logs/ablation"))
    parser.add_argument("--results", help="name in benchmarks/results")
    options = parser.parse_args()
    options.only = options.only or list(RECIPES_OF_OBJECTIVES if options.objectives else RECIPES)
    options.results = options.results or ("ablation_objectives" if options.objectives else "ablation")
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = options.folder.resolve()
    write_world(folder, {"test": options.test, "val": options.val, "train": options.train})
    size = (options.epochs, options.batch, options.precision)
    jobs = [(folder, recipe, seed, *size, None) for seed in range(options.seeds) for recipe in options.only]
    baselines = [(folder, options.only[0], 0, *size, name) for name in ("band_statistics", "untrained")]
    results: dict[str, list[dict[str, dict[str, float]]]] = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        for name, figures in pool.map(run, [*jobs, *baselines]):
            results.setdefault(name, []).append(figures)
    one = results[options.only[0]][0]
    results["chance"] = [{direction: one[f"chance {direction}"] for direction in DIRECTIONS}]
    (folder / "figures.json").write_text(json.dumps(results))
    write_results(options.results, table(results))


if __name__ == "__main__":
    main()
