"""The whole way from GeoTIFF folders to the report, stage by stage: what a user waits for.

    python benchmarks/stages.py [--folder logs/stages]

Demo: the commands of `make demo`, from the folders to the report, measured as a whole. BEN-14K and all of BigEarthNet:
the recommended configuration (project/config/args.yaml: ResNet-50, 120 x 120 pixels), extrapolated. Each stage is run
with two numbers of pairs; the difference gives the time per pair. The search of BEN-14K is measured at its real size
with random features; that of BigEarthNet is the last measurement of benchmarks/retrieval.py. Memory is that of all
processes of a command together, pages that they share counted once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import psutil
import retrieval
import yaml
from hardware import RESULTS, write_results

from bigearthnet_cbir.storage.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
SMALL, LARGE = 64, 192
"""Pairs of a split with which the recommended configuration is measured."""


@dataclass(frozen=True)
class Spent:
    """Seconds and peak memory (GiB) of a command."""

    seconds: float
    gib: float


@dataclass(frozen=True)
class Rate:
    """Seconds that each pair takes, and the peak memory (GiB) of the larger measurement."""

    each: float
    gib: float

    @classmethod
    def of(cls, small: Spent, large: Spent, more: int) -> Rate:
        """Return the rate of a stage from two runs of it, one with `more` pairs than the other."""
        return cls(max(large.seconds - small.seconds, 0.0) / more, max(small.gib, large.gib))


@dataclass(frozen=True)
class Size:
    """Pairs of an archive and its splits, and epochs of training."""

    name: str
    archive: int
    train: int
    val: int
    test: int
    epochs: int


BEN14K = Size("BEN-14K", 14_832, 7_761, 3_508, 3_563, 200)
BIGEARTHNET = Size("BigEarthNet", 590_326, 269_695, 123_723, 125_866, 100)


def command(*words: str | Path) -> Spent:
    """Run a command of the project; return its seconds and the peak of the memory of all its processes (PSS)."""
    start, highest = time.perf_counter(), 0
    process = psutil.Popen(
        [sys.executable, *map(str, words)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None:
        highest = max(highest, memory_of(process))
        time.sleep(0.1)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))}: exit code {process.returncode}\n{process.stderr.read()}")
    return Spent(time.perf_counter() - start, highest / 2**30)


def memory_of(process: psutil.Process) -> int:
    """Return the memory of a process and its children, shared pages counted once."""
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().pss
    except psutil.Error:
        pass
    return total


def demo(folder: Path) -> list[dict[str, Any]]:
    """Measure the stages of the demo: 1,050 pairs, 5 epochs, 150 queries in 300 patches."""
    world, run = folder / "demo_data", folder / "runs" / "demo" / "default"
    command("project/make_demo.py", "--output", world)
    configuration = folder / "demo.yaml"
    write_configuration(configuration, ROOT / "project/config/demo.yaml", folder, world, {})
    shutil.rmtree(run, ignore_errors=True)
    spent = {
        "encode": encode(world, world / "patches.lmdb"),
        "train": command("project/train.py", "--filepath", configuration),
        "extract, search, score": command("project/retrieval.py", "--filepath", run, "--no-report"),
        "report": command("project/report.py", "--filepath", run),
        "index": command("project/index.py", "--filepath", run),
        "print": command("utils/utils.py", "--filepath", run),
    }
    return rows_of("demo", {stage: (one.seconds, one.gib) for stage, one in spent.items()}, "measured")


def encode(world: Path, archive: Path) -> Spent:
    """Encode a demo world anew."""
    shutil.rmtree(archive, ignore_errors=True)
    return command(
        "project/encode_patches.py", "--s2-root", world / "BigEarthNet-v1.0", "--s1-root",
        world / "BigEarthNet-S1-v1.0", "--output", archive, "--split-from", world,
    )  # fmt: skip


def write_configuration(path: Path, like: Path, folder: Path, world: Path, changes: Mapping[str, Any]) -> None:
    """Write a configuration like another one, on this world's archive and lists."""
    values = {**yaml.safe_load(like.read_text()), **changes}
    values |= {f"{split}_csv": str(world / f"{split}.csv") for split in ("train", "val", "test")}
    values |= {key: str(world / "patches.lmdb") for key in ("bigEarthPthLMDB_S2", "bigEarthPthLMDB_S1")}
    values["logging_params"] = {**values["logging_params"], "save_dir": str(folder / "runs")}
    path.write_text(yaml.safe_dump(values))


def rates(folder: Path) -> tuple[dict[str, Rate], Spent]:
    """Measure the stages of the recommended configuration with two numbers of pairs; return rates and the report."""
    world, few = folder / "demo_data", folder / "few_data"
    command("project/make_demo.py", "--output", few, "--train", "50", "--val", "10", "--test", "10")
    found = {"encode": Rate.of(encode(few, few / "patches.lmdb"), encode(world, world / "patches.lmdb"), 1050 - 70)}
    small, large = (one_size(folder, world, size) for size in (SMALL, LARGE))
    more = LARGE - SMALL
    for stage, pairs in {"train": more, "extract": 2 * more, "index": 2 * more}.items():
        found[stage] = Rate.of(small[stage], large[stage], pairs)
    return found, large["report"]


def one_size(folder: Path, world: Path, size: int) -> dict[str, Spent]:
    """Measure with `size` pairs in each split; the validation list of the training has SMALL ones."""
    lists = folder / f"lists{size}"
    lists.mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        lines = (world / f"{split}.csv").read_text().splitlines(keepends=True)
        lines = (lines * 2)[:size] if split == "train" else lines[:size]
        (lists / f"{split}.csv").write_text("".join(lines))
    (lists / "few.csv").write_text("".join((lists / "val.csv").read_text().splitlines(keepends=True)[:SMALL]))
    configuration = folder / f"{size}.yaml"
    changes = {"epochs": 1, "batch_size": 32, "num_workers": 0, "num_cpu": 0, "name": "rates", "device": "cpu"}
    write_configuration(configuration, ROOT / "project/config/args.yaml", folder, world, changes)
    values = yaml.safe_load(configuration.read_text())
    values |= {f"{split}_csv": str(lists / f"{split}.csv") for split in ("train", "test")}
    values |= {"val_csv": str(lists / "few.csv"), "logging_params": {**values["logging_params"], "name": str(size)}}
    configuration.write_text(yaml.safe_dump(values))
    run = folder / "runs" / "rates" / str(size)
    shutil.rmtree(run, ignore_errors=True)
    spent = {"train": command("project/train.py", "--filepath", configuration)}
    settings = run / "parameters.yaml"
    settings.write_text(yaml.safe_dump({**yaml.safe_load(settings.read_text()), "val_csv": str(lists / "val.csv")}))
    both = command("project/retrieval.py", "--filepath", run, "--no-report")
    (run / "retrieval.h5").unlink()
    searched = command("project/retrieval.py", "--filepath", run, "--no-report")
    spent["extract"] = Spent(both.seconds - searched.seconds, both.gib)
    spent["report"] = command("project/report.py", "--filepath", run)
    spent["index"] = command("project/index.py", "--filepath", run, "--splits", "val", "test")
    return spent


def search(size: Size) -> tuple[float, float]:
    """Return seconds and GiB of search and scoring at a size, with random features."""
    options = argparse.Namespace(
        queries=size.val, archive=size.test, num_cpu=0, distance="cosine", directions=list(retrieval.DIRECTIONS)
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary))
        retrieval.write_side(folder.query, size.val, 1)
        retrieval.write_side(folder.archive, size.test, 2)
        row = retrieval.measure(options, folder)
    return float(row["s"]), float(row["GiB, all processes"])


def extrapolated(
    size: Size, rate: Mapping[str, Rate], report: Spent, searched: tuple[float, float], how: str
) -> list[dict[str, Any]]:
    """Return the rows of a size that was not run. The index also embeds the training pairs, retrieval the others."""
    seconds = {stage: one.each for stage, one in rate.items()}
    splits = size.train + size.val + size.test
    epoch = seconds["train"] * size.train + seconds["extract"] * size.val
    stages = {
        "encode": (seconds["encode"] * size.archive, rate["encode"].gib),
        "train": (size.epochs * epoch, rate["train"].gib),
        "extract": (seconds["extract"] * (size.val + size.test), rate["extract"].gib),
        "search, score": searched,
        "report": (report.seconds, report.gib),
        "index": (seconds["index"] * splits + seconds["extract"] * size.train, rate["index"].gib),
    }
    return rows_of(size.name, stages, how)


def rows_of(name: str, stages: Mapping[str, tuple[float, float]], how: str) -> list[dict[str, Any]]:
    """Return a row for each stage, with its share of all and of all but training."""
    total = sum(seconds for seconds, _ in stages.values())
    besides = total - stages["train"][0]
    return [
        {
            "size": name, "stage": stage, "time": readable(seconds), "share": f"{100 * seconds / total:.1f} %",
            "share without training": "" if stage == "train" else f"{100 * seconds / besides:.1f} %",
            "peak GiB": f"{gib:.2f}", "how": how,
        }
        for stage, (seconds, gib) in stages.items()
    ]  # fmt: skip


def readable(seconds: float) -> str:
    """Return seconds in the unit that suits them."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def main() -> None:
    """Measure and write benchmarks/results/stages.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("logs/stages"), help="work folder, kept")
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"load average {os.getloadavg()[0]:.1f}")
    rows = demo(folder)
    rate, report = rates(folder)
    whole = json.loads((RESULTS / "retrieval.json").read_text())
    last = whole["rows"][0]
    print("ms per pair: " + ", ".join(f"{stage} {1000 * one.each:.2f}" for stage, one in rate.items()))
    rows += extrapolated(BEN14K, rate, report, search(BEN14K), "extrapolated; search measured")
    full = (float(last["s"]), float(last["GiB, all processes"]))
    rows += extrapolated(BIGEARTHNET, rate, report, full, f"extrapolated; search measured on {whole['hardware']}")
    write_results("stages", rows)


if __name__ == "__main__":
    main()
