"""What extraction in 8 bits costs in quality: cosine to the float32 vectors, and F1@10, on the demo world.

    python benchmarks/int8.py [--seeds 3] [--precision bf16] [--folder logs/int8]

World and trainings are those of the recommended recipe in benchmarks/ablation.py, whose work folder can be given; a
finished training is not repeated. Each network embeds 300 queries and 600 archive patches in float32 and in 8 bits.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import h5py
import numpy as np
from ablation import BEST, configuration, figures_of, write_world
from hardware import write_results

from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.pipelines.retrieve import retrieve
from bigearthnet_cbir.pipelines.train import train
from bigearthnet_cbir.storage.features import FEATURES
from bigearthnet_cbir.storage.run_folder import RunFolder


def measure(folder: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train, unless that was done before, and retrieve in both precisions; return a row."""
    config = configuration(folder, BEST, seed, options.epochs, options.batch, options.precision)
    train(config, resume=True)
    trained = RunFolder(config.run_folder)
    runs = {}
    for precision in ("fp32", "int8"):
        runs[precision] = RunFolder(trained.root / precision)
        runs[precision].root.mkdir(exist_ok=True)
        retrieve(replace(config, precision=precision, state_dict=str(trained.best)), runs[precision])
    cosines = np.concatenate(
        [cosines_of(*(getattr(run, side) for run in runs.values())) for side in ("query", "archive")]
    )
    exact, found = (figures_of(run.retrieval) for run in runs.values())
    row = {"seed": seed, "lowest cosine": f"{cosines.min():.5f}", "mean cosine": f"{cosines.mean():.5f}"}
    for name in DIRECTIONS:
        value, changed = (figures[name]["F1@10"] for figures in (exact, found))
        row[name] = f"{value:.4f} {changed - value:+.4f}"
    return row


def cosines_of(one: Path, other: Path) -> np.ndarray:
    """Return the cosine between the vectors of both files, of all patches and kinds of features."""
    with h5py.File(one) as first, h5py.File(other) as second:
        found = []
        for name in FEATURES:
            u, v = first[name][:].astype(np.float64), second[name][:].astype(np.float64)
            found.append((u * v).sum(axis=1) / (np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)))
        return np.concatenate(found)


def main() -> None:
    """Measure and write benchmarks/results/int8.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="of the training")
    parser.add_argument("--folder", type=Path, default=Path("logs/int8"))
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_world(folder, {"test": 600, "val": 300, "train": 1000})
    write_results("int8", [measure(folder, seed, options) for seed in range(options.seeds)])


if __name__ == "__main__":
    main()
