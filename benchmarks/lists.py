"""A split list of all of BigEarthNet: the time to read it, and the memory of each worker that has it.

    python benchmarks/lists.py [--pairs 590000]

Objects: a list of pairs and a dictionary of labels, read line by line, as this project did before and as most data sets
do. Arrays: what read_split and read_split_labels return. Seconds are those of one core, since machines are shared. A
worker's memory is what it alone has (USS) after two passes over pairs and labels of a metadata.parquet in random order,
less that of a worker with ten pairs.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from hardware import write_results
from torch.utils.data import DataLoader, Dataset

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.loaders import EpochSampler
from bigearthnet_cbir.data.metadata import read_metadata
from bigearthnet_cbir.data.splits import read_split, read_split_labels
from bigearthnet_cbir.types import PatchPair

WORKERS = 2
PASSES = 2
PREFIX = re.compile(r"S[12][A-D]_")


def write_lists(folder: Path, count: int) -> None:
    """Write the same pairs, with names of version 1, as train.csv and as metadata.parquet."""
    places = [f"{number % 90}_{number // 90 % 90}" for number in range(count)]
    s2 = [f"S2A_MSIL2A_2017{number // 8100:06d}T101031_{place}" for number, place in enumerate(places)]
    s1 = [f"S1A_IW_GRDH_1SDV_2017{number // 8100:06d}T165043_33UUP_{place}" for number, place in enumerate(places)]
    (folder / "train.csv").write_text("".join(f"{one},{other}\n" for one, other in zip(s2, s1, strict=True)))
    labels = [list(CLASSES[number % 17 : number % 17 + 3]) for number in range(count)]
    table = pa.table({"patch_id": s2, "s1_name": s1, "labels": labels, "split": ["train"] * count})
    pq.write_table(table, folder / "metadata.parquet")


def list_of_objects(folder: Path) -> list[PatchPair]:
    """Read train.csv line by line into a list."""
    pairs: list[PatchPair] = []
    seen: dict[str, int] = {}
    for number, cells in enumerate(csv.reader((folder / "train.csv").read_text().splitlines())):
        s2, s1 = (cell.strip() for cell in cells)
        for name in (s2, s1):
            if name in seen or not PREFIX.match(name):
                raise SystemExit(f"{name}: the benchmark wrote it wrongly")
            seen[name] = number
        pairs.append(PatchPair(s2, s1))
    return pairs


def table_of_objects(folder: Path) -> tuple[list[PatchPair], dict[str, tuple[str, ...]]]:
    """Read metadata.parquet row by row into a list and a dictionary."""
    rows = read_metadata(folder / "metadata.parquet")
    return [PatchPair(row.s2, row.s1) for row in rows], {row.s2: row.labels for row in rows}


def list_of_arrays(folder: Path) -> Sequence[PatchPair]:
    """Read train.csv as the project does."""
    return read_split(folder / "train.csv")


def table_of_arrays(folder: Path) -> tuple[Sequence[PatchPair], Mapping[str, tuple[str, ...]]]:
    """Read metadata.parquet as the project does."""
    source = f"{folder / 'metadata.parquet'}:train"
    labels = read_split_labels(source)
    assert labels is not None
    return read_split(source), labels


WAYS = {"objects": (list_of_objects, table_of_objects), "arrays": (list_of_arrays, table_of_arrays)}


class LookUps(Dataset[int]):
    """What a sample asks of the lists, without the pixels."""

    def __init__(self, pairs: Sequence[PatchPair], labels: Mapping[str, tuple[str, ...]]) -> None:
        self.pairs = pairs
        self.labels = labels

    def __getitems__(self, indices: Sequence[int]) -> int:
        return sum(len(self.labels[self.pairs[index].s2]) for index in indices)


def measure(folder: Path, way: str, method: str) -> dict[str, float]:
    """Return seconds of reading, and MB that each worker has alone after the passes."""
    read_list, read_table = WAYS[way]
    start = time.process_time()
    read_list(folder)
    middle = time.process_time()
    pairs, labels = read_table(folder)
    seconds = {"list": middle - start, "table": time.process_time() - middle}
    gc.collect()
    loader = DataLoader(
        LookUps(pairs, labels), batch_size=256, sampler=EpochSampler(len(pairs), 0), num_workers=WORKERS,
        collate_fn=int, persistent_workers=True, multiprocessing_context=method,
    )  # fmt: skip
    for _ in range(PASSES):
        for _ in loader:
            pass
    own = [worker for worker in psutil.Process().children() if "resource_tracker" not in " ".join(worker.cmdline())]
    return {**seconds, "own": sum(worker.memory_full_info().uss for worker in own) / len(own) / 1e6}


def measured_apart(folder: Path, way: str, method: str) -> dict[str, float]:
    """Return what `measure` does, from a fresh process."""
    command = [sys.executable, __file__, "--measure", str(folder), way, method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and write benchmarks/results/lists.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=590_000)
    parser.add_argument("--measure", nargs=3, metavar=("FOLDER", "WAY", "METHOD"), help="used by the script itself")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(Path(given.measure[0]), *given.measure[1:])))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        full, tiny = Path(temporary) / "full", Path(temporary) / "tiny"
        for folder, count in ((full, given.pairs), (tiny, 10)):
            folder.mkdir()
            write_lists(folder, count)
        for way in WAYS:
            found = {method: measured_apart(full, way, method) for method in ("fork", "spawn")}
            row = {
                "way": way,
                "split list, s": f"{min(one['list'] for one in found.values()):.2f}",
                "metadata.parquet, s": f"{min(one['table'] for one in found.values()):.2f}",
            }
            for method, one in found.items():
                more = one["own"] - measured_apart(tiny, way, method)["own"]
                row[f"MB a worker ({method})"] = f"{more:,.0f}"
            rows.append(row)
    write_results("lists", rows)


if __name__ == "__main__":
    main()
