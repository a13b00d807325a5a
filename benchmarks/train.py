"""Training step and feature extraction, ours against the plain way, same pairs, same run.

    python benchmarks/train.py [--backbone resnet50] [--batch 32] [--steps 6] [--compile]

The plain way is the original scripts': torchvision ResNets in float32 with the default memory layout, an unfused Adam,
and network input that was prepared beforehand (so its slow data path is not counted here: benchmarks/loader.py
measures that). Ours starts from values as stored and includes normalisation and interpolation on the device. It is
measured in float32 and, where `precision: auto` chooses it, in bfloat16; with --compile also through torch.compile,
which the project does not use. What the hardware could do is measured beside it, as a large matrix product.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import torch
from hardware import write_results
from torch import nn

from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.resnet import Backbone
from bigearthnet_cbir.training.optimizers import build_optimizer
from bigearthnet_cbir.training.precision import choose_precision

WIDTH = 128
STEM = 32


def stored_batch(size: int) -> PairBatch:
    """Return a batch of random pairs as the loader hands them out."""
    generator = np.random.default_rng(0)
    shapes = ((4, 120), (6, 60))
    integers = [generator.integers(0, 4000, (size, n, side, side), dtype=np.uint16) for n, side in shapes]
    s1 = generator.normal(-12, 4, (size, 2, 120, 120)).astype(np.float32)
    label = np.zeros((size, 19), np.uint8)
    return PairBatch(*(torch.from_numpy(part) for part in (s1, *integers, label, np.arange(size))))


class Plain(nn.Module):
    """A trunk per sensor, or a 1x1 stem per sensor before a shared trunk; Linear + ReLU heads."""

    def __init__(self, type: str, backbone: str) -> None:
        super().__init__()
        if type == "joint":
            shared = Backbone(backbone, STEM)
            self.trunks = nn.ModuleList([nn.Sequential(nn.Conv2d(bands, STEM, 1), shared) for bands in (2, 10)])
            width = shared.width
        else:
            self.trunks = nn.ModuleList([Backbone(backbone, 2), Backbone(backbone, 10)])
            width = self.trunks[0].width
        self.heads = nn.ModuleList([nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU()) for _ in range(2)])

    def forward(self, s1: torch.Tensor, s2: torch.Tensor) -> tuple[Any, Any]:
        """Return z1, z2."""
        one, two = (head(trunk(x)) for head, trunk, x in zip(self.heads, self.trunks, (s1, s2), strict=True))
        return one, two


def rates(calls: Sequence[Callable[[], Any]], batch: int, steps: int, device: torch.device) -> list[float]:
    """Return pairs a second of each call's fastest step; they take turns, and the first two turns are not counted."""
    least = [float("inf")] * len(calls)
    for turn in range(steps + 2):
        for at, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn > 1:
                least[at] = min(least[at], time.perf_counter() - start)
    return [batch / seconds for seconds in least]


def plain_calls(
    type: str, backbone: str, inputs: Any, device: torch.device
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a training step and an extraction of the plain way."""
    model = Plain(type, backbone).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, foreach=False)
    loss_of = NTXentLoss(0.1).to(device)

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        loss_of(*model(*inputs)).backward()
        optimizer.step()

    def extract() -> None:
        model.eval()
        with torch.no_grad():
            model(*inputs)

    return step, extract


def our_calls(
    type: str, backbone: str, batch: PairBatch, device: torch.device, precision: torch.dtype, compiled: bool
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a training step and an extraction as Trainer and the feature extractors do them."""
    model = DualEncoder(type=type, backbone=backbone, projection_dim=WIDTH, out_channels=STEM)
    model = model.to(device, memory_format=torch.channels_last)
    network = torch.compile(model) if compiled else model
    optimizer = build_optimizer("adamw", model.parameters(), 1e-4, 1e-4)
    loss_of, transform = NTXentLoss(0.1).to(device), BatchTransform(device)

    def forward() -> Any:
        s1, s2 = (images.contiguous(memory_format=torch.channels_last) for images in transform(batch))
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            return network(s1, s2)

    def step() -> None:
        model.train()
        output = forward()
        loss_of(output.z1, output.z2).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def extract() -> None:
        model.eval()
        with torch.inference_mode():
            forward()

    return step, extract


def matmul_peak(device: torch.device, precision: torch.dtype) -> float:
    """Return TFLOP/s of a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=precision)
    return 2 * size**3 * rates([lambda: a @ a], 1, 5, device)[0] / 1e12


def main() -> None:
    """Measure and write benchmarks/results/train.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precisions = dict.fromkeys([torch.float32, choose_precision("auto", device)])
    variants = [(precision, compiled) for compiled in (False, True)[: 1 + options.compile] for precision in precisions]
    batch = stored_batch(options.batch)
    inputs = tuple(images.contiguous() for images in BatchTransform(device)(batch))
    rows = []
    for type in ("joint", "separate"):
        ways = [plain_calls(type, options.backbone, inputs, device)]
        ways += [our_calls(type, options.backbone, batch, device, *variant) for variant in variants]
        for work, calls in zip(("training step", "feature extraction"), zip(*ways, strict=True), strict=True):
            plain, *ours = rates(calls, options.batch, options.steps, device)
            rows += [
                {
                    "work": f"{work}, {type} {options.backbone}, batch {options.batch}",
                    "ours in": str(precision) + (", compiled" if compiled else ""),
                    "plain pairs/s": f"{plain:.1f}", "ours pairs/s": f"{rate:.1f}", "x plain": f"{rate / plain:.2f}",
                }
                for (precision, compiled), rate in zip(variants, ours, strict=True)
            ]  # fmt: skip
    for precision in precisions:
        peak = matmul_peak(device, precision)
        rows.append({"work": "matrix product", "ours in": str(precision), "ours pairs/s": f"{peak:.2f} TFLOP/s"})
    write_results("train", rows)


if __name__ == "__main__":
    main()
