"""Extraction of features on a CPU: PyTorch, ONNX Runtime and Ray workers, same pairs, same run.

    python benchmarks/extraction.py [--backbone resnet50] [--batch 64] [--rounds 5] [--blocks 12] [--skip-ray]
    python benchmarks/extraction.py --threads 1 --processor-time --skip-ray

The plain way is the original scripts': torchvision ResNets in float32 with the default memory layout. All ways start
from values as stored, so each includes normalisation and interpolation. They take turns, one batch each, and the median
of the rounds counts. A pair has two images. Then the blocks of a small archive are embedded by one process with all
threads, and by Ray workers with one thread each that have loaded the network before; these take turns, too.

With --processor-time the seconds are those that this process computed, which other work on the machine hardly changes;
that is meaningful for one thread only, because threads that wait for each other count as computing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

# Ray's default, 15, would favour the one process on a machine with other work.
os.environ.update(RAY_worker_niceness="0")

import torch
from hardware import write_results
from loader import write_archives
from train import Plain, stored_batch

from bigearthnet_cbir.config import Config, parse_config
from bigearthnet_cbir.data.dataset import BigEarthNetMM, PairBatch
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.pipelines import extract
from bigearthnet_cbir.pipelines.calibration import CALIBRATION_PAIRS, Calibration
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor, encoder_extractor
from bigearthnet_cbir.storage.features import FUSED_FEATURE

CPU = torch.device("cpu")
WAYS = {
    "PyTorch, float32, channels last": (torch.float32, "torch"),
    "PyTorch, bfloat16, channels last": (torch.bfloat16, "torch"),
    "ONNX Runtime, float32": (torch.float32, "onnxruntime"),
    "ONNX Runtime, 8 bits": (torch.int8, "onnxruntime"),
}
"""Ours: data type and program."""


def seconds_of(
    calls: Iterable[Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the median seconds of each call; they take turns, and the first turn is not counted."""
    calls = list(calls)
    found: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for at, call in enumerate(calls):
            start = clock()
            call()
            if turn:
                found[at].append(clock() - start)
    medians = [statistics.median(some) for some in found]
    print("median seconds:", *(f"{median:.3f}" for median in medians), file=sys.stderr, flush=True)
    return medians


def plain_way(type: str, backbone: str, batch: PairBatch) -> Callable[[], Any]:
    model, transform = Plain(type, backbone).eval(), BatchTransform()

    def call() -> None:
        with torch.no_grad():
            model(*(images.contiguous() for images in transform(batch)))

    return call


def extractor(type: str, backbone: str, way: str) -> FeatureExtractor:
    torch.manual_seed(0)
    precision, backend = WAYS[way]
    model = DualEncoder(type=type, backbone=backbone)
    return encoder_extractor(
        model, {}, device=CPU, precision=precision, feature="projection", fusion="concat", backend=backend,
        calibration=StoredPatches() if precision == torch.int8 else None,
    )  # fmt: skip


class StoredPatches(Calibration):
    """The patches of the other measurements, for the ranges of the network in 8 bits."""

    identity: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        """Keep nothing."""

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images."""
        return BatchTransform()(stored_batch(CALIBRATION_PAIRS))

    def __str__(self) -> str:
        return "stored patches"


def programs(type: str, options: argparse.Namespace) -> list[dict[str, str]]:
    """Return a row per program: images a second, and how far its vectors are from those of PyTorch in float32."""
    batch = stored_batch(options.batch)
    ours = {way: extractor(type, options.backbone, way) for way in WAYS}
    vectors = {way: source.compute(batch)[FUSED_FEATURE] for way, source in ours.items()}
    exact = vectors["PyTorch, float32, channels last"]
    calls = [plain_way(type, options.backbone, batch), *(lambda s=source: s.compute(batch) for source in ours.values())]
    seconds = seconds_of(calls, options.rounds, time.process_time if options.processor_time else time.perf_counter)
    rows = []
    for way, found in zip(("PyTorch, float32, plain", *ours), seconds, strict=True):
        apart = ((vectors[way] - exact).norm(dim=1) / exact.norm(dim=1)).max() if way in vectors else None
        cosine = torch.cosine_similarity(vectors[way], exact).min() if way in vectors else None
        rows.append({
            "what": f"{type} {options.backbone}, batch {options.batch}, threads: {options.threads}", "way": way,
            "images/s": f"{2 * options.batch / found:.1f}", "x plain": f"{seconds[0] / found:.2f}",
            "x ours in float32": f"{seconds[1] / found:.2f}",
            "largest relative difference of a vector": "" if apart is None else f"{apart:.1g}",
            "lowest cosine": "" if cosine is None else f"{cosine:.5f}",
        })  # fmt: skip
    return rows


def workers(folder: Path, options: argparse.Namespace) -> list[dict[str, str]]:
    """Return a row per program: Ray workers with one thread against one process with as many threads."""
    count, threads = options.blocks * options.batch, torch.get_num_threads()
    pairs = write_archives(folder, count)
    store = PatchStore(folder / "store")
    dataset = BigEarthNetMM(pairs, store, store, require_labels=False)
    extract.EXTRACTION_BATCH, extract.BLOCK_BATCHES = options.batch, 1
    alone, spread = (configuration(folder, number) for number in (0, threads))
    rows = []
    with extract.extraction_session(spread):
        for way in WAYS:
            source = extractor("joint", options.backbone, way)
            calls = [lambda c=config, s=source: embed_all(c, s, dataset) for config in (alone, spread)]
            seconds = seconds_of(calls, max(2, options.rounds // 2))
            for name, found in zip(
                (f"1 process, {threads} threads", f"{threads} workers, 1 thread"), seconds, strict=True
            ):
                rows.append({
                    "what": f"{count} pairs in {options.blocks} blocks, joint {options.backbone}, {way}", "way": name,
                    "images/s": f"{2 * count / found:.1f}", "x one process": f"{seconds[0] / found:.2f}",
                })  # fmt: skip
    store.close()
    return rows


def embed_all(config: Config, source: FeatureExtractor, dataset: BigEarthNetMM) -> None:
    for _ in extract.embedded_blocks(config, source, dataset, extract.block_spans(len(dataset))):
        pass


def configuration(folder: Path, workers: int) -> Config:
    lists = {f"{split}_csv": "pairs.csv" for split in ("train", "val", "test")}
    stores = {f"bigEarthPthLMDB_{sensor}": str(folder) for sensor in ("S1", "S2")}
    logging = {"save_dir": str(folder), "name": "run"}
    return parse_config({
        **lists, **stores, "name": "g", "logging_params": logging, "device": "cpu", "num_workers": 0,
        "extract_workers": workers,
    })  # fmt: skip


def main() -> None:
    """Measure and write benchmarks/results/extraction.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--skip-ray", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    rows = [row for type in ("joint", "separate") for row in programs(type, options)]
    if not options.skip_ray:
        with tempfile.TemporaryDirectory() as temporary:
            rows += workers(Path(temporary), options)
    rows.append({"what": "load average before and after", "way": f"{load:.1f}, {os.getloadavg()[0]:.1f}"})
    columns = dict.fromkeys(name for row in rows for name in row)
    rows[0] = {name: rows[0].get(name, "") for name in columns}
    write_results("extraction", rows)


if __name__ == "__main__":
    main()
