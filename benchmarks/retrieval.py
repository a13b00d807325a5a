"""The whole of BigEarthNet, validation against test split, through retrieval.py's own code path with Ray workers.

    python benchmarks/retrieval.py [--queries 123723] [--archive 125866] [--num_cpu 2] [--distance cosine]

Features are random (how long the search takes hardly depends on what they mean), 2 x 128 wide, so that the
fused ones have 256; labels follow the classes' true frequencies. Extraction is left out: everything from query.h5 and
archive.h5 on is timed, metrics included, beside the highest memory of all processes together.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import psutil
from hardware import write_results

from bigearthnet_cbir.cli import configure_logging
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.pipelines.retrieve import search_and_score
from bigearthnet_cbir.storage.features import FUSED_FEATURE, S1_FEATURE, S2_FEATURE, write_features
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import PatchPair

WIDTH = 128
"""Of one sensor's projection."""


def write_side(path: Path, size: int, seed: int) -> None:
    """Write one feature file of random unit-like vectors."""
    generator = np.random.default_rng(seed)
    name = "{sensor}_20180101T000000_T33UUP_{place}_0".format
    places = range(seed * 10**7, seed * 10**7 + size)
    pairs = [PatchPair(s2=name(sensor="S2", place=place), s1=name(sensor="S1", place=place)) for place in places]
    often = 0.35 / (1 + np.arange(len(CLASSES)))
    with write_features(path, pairs, CLASSES, {}) as writer:
        for start in range(0, size, 8192):
            rows = min(8192, size - start)
            one, two = (generator.standard_normal((rows, WIDTH), dtype=np.float32) for _ in range(2))
            label = (generator.random((rows, len(CLASSES))) < often).astype(np.uint8)
            label[:, 0] |= label.sum(axis=1) == 0
            writer.append(
                {FUSED_FEATURE: np.concatenate((one, two), axis=1), S1_FEATURE: one, S2_FEATURE: two, "label": label}
            )


class Memory(threading.Thread):
    """Samples the memory of this process and all its children: shared pages counted once (PSS)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        while not self.stopped.wait(1.0):
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                with suppress(psutil.Error):
                    total += process.memory_full_info().pss
            self.highest = max(self.highest, total)


def measure(arguments: argparse.Namespace, folder: RunFolder) -> dict[str, Any]:
    """Search and score once; return a line of the table."""
    root = Path(__file__).resolve().parents[1]
    config = replace(
        load_config(root / "project" / "config" / "args.yaml"),
        num_cpu=arguments.num_cpu, distance=arguments.distance, top_k=1000,
    )  # fmt: skip
    source = FeatureExtractor({"checkpoint": "none, random features"}, lambda batch: {}, tuple(arguments.directions))
    memory = Memory()
    memory.start()
    start = time.perf_counter()
    search_and_score(config, folder, source, "benchmark")
    seconds = time.perf_counter() - start
    memory.stopped.set()
    pairs = arguments.queries * arguments.archive * len(source.directions)
    mean_ap = read_results(folder.retrieval).directions[source.directions[0]].curves["average_precision"][-1]
    return {
        "distance": arguments.distance, "directions": " ".join(source.directions), "queries": f"{arguments.queries:,}",
        "archive": f"{arguments.archive:,}", "k": 1000, "num_cpu": arguments.num_cpu, "s": f"{seconds:.0f}",
        "pairs/s": f"{pairs / seconds:.3g}", "GiB, all processes": f"{memory.highest / 2**30:.2f}",
        "mAP@1000": f"{mean_ap:.4f}",
    }  # fmt: skip


def main() -> None:
    """Measure and write benchmarks/results/retrieval.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=123_723)
    parser.add_argument("--archive", type=int, default=125_866)
    parser.add_argument("--num_cpu", type=int, default=2)
    parser.add_argument("--distance", default="cosine")
    parser.add_argument("--directions", nargs="+", default=list(DIRECTIONS))
    arguments = parser.parse_args()
    configure_logging()
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary))
        write_side(folder.query, arguments.queries, 1)
        write_side(folder.archive, arguments.archive, 2)
        write_results("retrieval", [measure(arguments, folder)])


if __name__ == "__main__":
    main()
