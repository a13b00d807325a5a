"""What a GPU does: training and extraction with the loader in the loop, search, and whether the results are equal.

    python benchmarks/gpu.py                        # on a machine with a GPU; writes 5 GB to a temporary folder
    python benchmarks/gpu.py --device cpu --small   # tiny sizes on CPU tensors, with gloo in place of nccl

Goals on a card of the class of an H100: training with at least 6,000 pairs/s; the loader never the limit, that is at
least 0.95 of the rate of batches that are in memory already; search and metrics of validation x test (seven directions,
cosine, k = 1000) in less than 60 s. The peak of the card is that of a large bf16 matrix product in the same run. The
archive is read from the page cache. The script exits with 1 if a result of the device differs from that of the CPU
(benchmarks/gpu_equality.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
import torch.distributed as dist
from gpu_equality import equality_rows
from gpu_search import best_seconds, retrieval_row, row, search_rows
from hardware import write_results
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bigearthnet_cbir.config import Config, parse_config
from bigearthnet_cbir.config.loader import read_mapping
from bigearthnet_cbir.data.dataset import BigEarthNetMM, PairBatch
from bigearthnet_cbir.data.loaders import ordered_loader, training_loader
from bigearthnet_cbir.data.patch_store_writing import PatchWriter
from bigearthnet_cbir.data.split_writing import write_split
from bigearthnet_cbir.data.synthetic import acquisition_of, make_pair
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.pipelines.builders import build_dataset, build_trainer
from bigearthnet_cbir.pipelines.extract import EXTRACTION_BATCH
from bigearthnet_cbir.pipelines.feature_extractors import encoder_extractor
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.objectives import TrainingStep
from bigearthnet_cbir.training.precision import choose_precision
from bigearthnet_cbir.types import Patch

ROOT = Path(__file__).resolve().parents[1]
CONTENTS = 64
"""Different synthetic patches; further pairs of the archive repeat them under other names."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a run; `turns` is how often each part is timed after a first time that is not counted."""

    pairs: int = 16_384
    batch: int = 1024
    backbone: str = "resnet50"
    product: int = 8192
    queries: int = 123_723
    archive: int = 125_866
    k: int = 1000
    published: tuple[int, int] = (10_000, 1_000_000)
    turns: int = 3
    precision: str = "bf16"
    window: int = 120


SMALL = Sizes(4, 2, "resnet10", 64, 24, 130, 10, (8, 500), 1, "fp32", 32)


class InMemory(list[PairBatch]):
    """Batches that are in memory already, in place of a loader."""

    sampler = None


def write_archive(folder: Path, sizes: Sizes) -> None:
    """Write a patch store of synthetic pairs, and split lists that all name them."""
    contents = [make_pair(0, index) for index in range(min(CONTENTS, sizes.pairs))]
    pairs = [acquisition_of(index).names for index in range(sizes.pairs)]
    with PatchWriter(folder / "store") as writer:
        for index, pair in enumerate(pairs):
            made = contents[index % len(contents)]
            writer.write(pair.s1, Patch(made.s1, made.labels))
            writer.write(pair.s2, Patch(made.s2, made.labels))
    for split in ("train", "val", "test"):
        write_split(folder / f"{split}.csv", pairs)


def config_of(folder: Path, sizes: Sizes, device: str, workers: int) -> Config:
    """Return the recommended configuration on the archive, without a learning rate schedule."""
    given = read_mapping(ROOT / "project" / "config" / "args.yaml")
    del given["n_features"]
    given |= {f"{split}_csv": str(folder / f"{split}.csv") for split in ("train", "val", "test")}
    given |= {f"bigEarthPthLMDB_{sensor}": str(folder / "store") for sensor in ("S1", "S2")}
    return parse_config({
        **given, "backbone": sizes.backbone, "batch_size": sizes.batch, "num_workers": workers, "device": device,
        "precision": sizes.precision, "window": sizes.window, "scheduler": False, "num_cpu": 0, "top_k": sizes.k,
    })  # fmt: skip


def product_rate(device: torch.device, sizes: Sizes) -> float:
    """Return the FLOP/s of a large bf16 matrix product."""
    a = torch.randn(sizes.product, sizes.product, device=device, dtype=torch.bfloat16)
    return 2 * sizes.product**3 / best_seconds(lambda: a @ a, device, 5 * sizes.turns)


def step_flop(trainer: Trainer, batch: PairBatch) -> int:
    """Return the floating-point operations of a training step."""
    counter = FlopCounterMode(display=False)
    with counter:
        trainer.train_epoch(InMemory([batch]))
    return counter.get_total_flops()


def training_rows(config: Config, device: torch.device, sizes: Sizes, peak: float) -> tuple[list[Any], Trainer]:
    """Training: the loader alone, steps on batches in memory, and both together; also in a process group of one."""
    data = build_dataset(config, "train", require_labels=False)
    pinned = device.type == "cuda"
    loader = training_loader(data, config.batch_size, config.seed, config.num_workers, pin_memory=pinned)
    count, memory = len(loader) * config.batch_size, InMemory([next(iter(loader))] * len(loader))
    trainer = build_trainer(config, data.pairs, len(loader))
    reading = count / best_seconds(lambda: sum(1 for _ in loader), torch.device("cpu"), sizes.turns)
    steps = count / best_seconds(lambda: trainer.train_epoch(memory), device, sizes.turns)
    both = count / best_seconds(lambda: trainer.train_epoch(loader), device, sizes.turns)
    flop = step_flop(trainer, memory[0]) / config.batch_size
    with process_group(device) as backend:
        alone = trainer._forward
        trainer._forward = nn.parallel.DistributedDataParallel(TrainingStep(trainer.model, trainer.objective))
        grouped = count / best_seconds(lambda: trainer.train_epoch(loader), device, sizes.turns)
        trainer._forward = alone
    title = f"{config.type} {config.backbone}, batch {config.batch_size}, {config.precision}"
    return [
        row(f"loader alone, {config.num_workers} workers", f"{reading:,.0f}", "pairs/s"),
        row(f"training steps, batch in memory: {title}", f"{steps:,.0f}", "pairs/s", share(steps * flop, peak)),
        row("training with the loader", f"{both:,.0f}", "pairs/s", share(both * flop, peak), "at least 6,000"),
        row("training with the loader / in memory", f"{both / steps:.2f}", "", "", "at least 0.95"),
        row(f"the same in a process group of one, {backend}", f"{grouped:,.0f}", "pairs/s", f"{grouped / both:.2f} x"),
    ], trainer


def share(rate: float, peak: float) -> str:
    """Return FLOP/s and their share of the peak."""
    return f"{rate / 1e12:.3g} TFLOP/s, {rate / peak:.0%} of the peak"


@contextmanager
def process_group(device: torch.device) -> Iterator[str]:
    """Join a process group of this process alone; give its backend."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            yield backend
        finally:
            dist.destroy_process_group()


def extraction_row(config: Config, model: DualEncoder, device: torch.device, sizes: Sizes, peak: float) -> Any:
    """Extraction of the whole archive with the loader, as in retrieval."""
    data = build_dataset(config, "val", require_labels=False)
    source = encoder_extractor(
        model,
        {},
        device=device,
        precision=choose_precision(config.precision, device),
        feature=config.feature,
        fusion=config.fusion,
    )
    loader = ordered_loader(
        data, min(EXTRACTION_BATCH, len(data)), config.num_workers, pin_memory=device.type == "cuda"
    )
    counter = FlopCounterMode(display=False)
    with counter:
        source.compute(next(iter(loader)))
    flop = counter.get_total_flops() / min(EXTRACTION_BATCH, len(data))
    seconds = best_seconds(lambda: [source.compute(batch) for batch in loader], device, sizes.turns)
    rate = len(data) / seconds
    return row("extraction with the loader", f"{2 * rate:,.0f}", "images/s", share(rate * flop, peak))


def measure(device: torch.device, sizes: Sizes, workers: int, folder: Path) -> list[dict[str, Any]]:
    """Return all lines of the table."""
    write_archive(folder, sizes)
    config = config_of(folder, sizes, str(device), workers)
    peak = product_rate(device, sizes)
    rows = [row(f"matrix product in bf16, {sizes.product:,} x {sizes.product:,}", f"{peak / 1e12:.3g}", "TFLOP/s")]
    training, trainer = training_rows(config, device, sizes, peak)
    rows += [*training, extraction_row(config, trainer.model, device, sizes, peak)]
    rows += [*search_rows(device, sizes), retrieval_row(config, RunFolder(folder / "run"), sizes)]
    data: BigEarthNetMM = build_dataset(config, "val", require_labels=False)
    return rows + equality_rows(config, data, device, process_group)


def main() -> int:
    """Measure, write benchmarks/results/gpu.* (nothing with --small), and return 1 if a result is not equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else None)
    parser.add_argument("--small", action="store_true", help="tiny sizes, only to check that everything starts")
    parser.add_argument("--batch", type=int, help=f"pairs per training step (default {Sizes.batch:,})")
    parser.add_argument("--workers", type=int, help="processes of the loader (default: 12, or 0 with --small)")
    options = parser.parse_args()
    if options.device is None:
        parser.error("there is no GPU; --device cpu --small checks that everything starts")
    sizes = SMALL if options.small else Sizes()
    if options.batch:
        sizes = replace(sizes, batch=options.batch)
    device = torch.device(options.device)
    workers = options.workers if options.workers is not None else 0 if options.small else 12
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(device, sizes, workers, Path(temporary))
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU: no GPU was measured"
    rows.insert(0, row("device", card, ""))
    write_results("gpu", rows, keep=not options.small)
    return int(any(line["value"] == "NO" for line in rows))


if __name__ == "__main__":
    sys.exit(main())
