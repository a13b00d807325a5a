"""Memory and time of a training step with gradient caching, and without it where the memory suffices.

    python benchmarks/grad_cache.py [--backbone resnet10] [--steps 2] [--threads 1]

Each row is a process of its own, so that its peak memory is its own. Time is processor time, all threads together.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from hardware import peak_memory, write_results
from torch.utils.data import DataLoader
from train import stored_batch

from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.objectives import ContrastiveObjective
from bigearthnet_cbir.training.optimizers import build_optimizer

SIZES = ((32, 0), (128, 0), (128, 32), (512, 32))
"""Batch size and micro-batch size; 0: the whole batch."""


def measure(job: tuple[str, int, int, int, int]) -> dict[str, str]:
    """Return one row: the fastest of some steps, in float32."""
    backbone, size, micro_batch, steps, threads = job
    torch.set_num_threads(threads)
    model = DualEncoder(backbone=backbone).to(memory_format=torch.channels_last)
    optimizer = build_optimizer("adamw", model.parameters(), 1e-4, 1e-4)
    objective = ContrastiveObjective(NTXentLoss(0.1))
    trainer = Trainer(
        model, objective, optimizer, None, BatchTransform(), None, torch.float32, 0, {}, micro_batch=micro_batch
    )
    batch, least = stored_batch(size), float("inf")
    for _ in range(steps):
        start = time.process_time()
        trainer.train_epoch(DataLoader([batch], batch_size=None))
        least = min(least, time.process_time() - start)
    return {
        "backbone": backbone, "batch": str(size), "negatives": f"{2 * size - 2:,}",
        "micro-batch": str(micro_batch or "-"),
        "threads": str(threads), "peak memory": peak_memory(), "CPU seconds a pair": f"{least / size:.3f}",
    }  # fmt: skip


def main() -> None:
    """Measure and write benchmarks/results/grad_cache.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet10")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rows = []
    for size, micro_batch in SIZES:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            job = (options.backbone, size, micro_batch, options.steps, options.threads)
            rows.append(pool.submit(measure, job).result())
    write_results("grad_cache", rows)


if __name__ == "__main__":
    main()
