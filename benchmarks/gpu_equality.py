"""Whether results of a device equal those of the CPU: search, vectors, loss, gradients, collective operations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.data.dataset import BigEarthNetMM, PairBatch
from bigearthnet_cbir.data.loaders import ordered_loader
from bigearthnet_cbir.pipelines.builders import build_encoder, build_trainer
from bigearthnet_cbir.pipelines.feature_extractors import encoder_extractor
from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.torch_backend import search_on_device
from bigearthnet_cbir.storage.features import FUSED_FEATURE
from bigearthnet_cbir.training import distributed
from bigearthnet_cbir.training.objectives import TrainingStep

PAIRS = 4
Group = Callable[[torch.device], AbstractContextManager[str]]


def equality_rows(config: Config, data: BigEarthNetMM, device: torch.device, group: Group) -> list[dict[str, Any]]:
    """Return a line for each check, with "yes" or "NO".

    Args:
        config: of an encoder; its weights are those of its seed.
        data: pairs, of which the first few are used.
        device: compared with the CPU.
        group: joins a process group of one.
    """
    batch = next(iter(ordered_loader(data, PAIRS, 0)))
    found = {f"search, {distance}: indices and distances": same_search(distance, device)
             for distance in ("cosine", "euclidean", "chi2", "hamming")}  # fmt: skip
    with FullFloat32():
        exact, there = (vectors(config, batch, where, torch.float32) for where in (torch.device("cpu"), device))
        found["vectors in float32: cosine above 0.99999"] = least_cosine(exact, there) > 0.99999
        found["loss and gradients of a step in float32: within 1e-3"] = same_step(config, batch, device)
        found["the same in a process group of one: within 1e-3"] = same_group(config, batch, device, group)
    rounded = vectors(config, batch, device, torch.bfloat16)
    found["vectors in bf16: cosine to float32 above 0.999"] = least_cosine(exact, rounded) > 0.999
    return [
        {"measurement": f"equal on {device.type}: {what}", "value": "yes" if equal else "NO", "goal": "yes"}
        for what, equal in found.items()
    ]


class FullFloat32:
    """Context without TF32, whose mantissa has ten bits."""

    def __enter__(self) -> None:
        self._before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self._before


def same_search(distance: str, device: torch.device) -> bool:
    """Search an archive with ties and excluded rows on the device and by the compiled kernels."""
    generator = np.random.default_rng(1)
    if distance == "hamming":
        archive = generator.integers(0, 256, (3000, 5), dtype=np.uint8)
    else:
        archive = generator.random((3000, 24), dtype=np.float32)
        archive[2000:] = archive[:1000]
    exclude = np.array([[i, (7 * i) % 3000, -1] for i in range(50)], np.int32)
    found = search_on_device(archive[:50], archive, 90, distance, exclude, str(device))
    expected = search(archive[:50], archive, 90, distance, exclude)
    same = np.array_equal(found.indices, expected.indices) and np.array_equal(found.distances, expected.distances)
    return bool(same)


def vectors(config: Config, batch: PairBatch, device: torch.device, precision: torch.dtype) -> Tensor:
    """Return the (B, F) fused vectors of a batch."""
    model = build_encoder(config)
    source = encoder_extractor(
        model, {}, device=device, precision=precision, feature=config.feature, fusion=config.fusion
    )
    return source.compute(batch)[FUSED_FEATURE]


def least_cosine(one: Tensor, other: Tensor) -> float:
    """Return the least cosine between the rows of two matrices."""
    return float(nn.functional.cosine_similarity(one.double(), other.double()).min())


def step_of(config: Config, batch: PairBatch, device: torch.device, wrap: Callable[[Any], Any] = lambda m: m) -> Any:
    """Return loss and gradients of one step in float32, on the CPU."""
    settings = replace(config, device=str(device), precision="fp32", augment=False)
    trainer = build_trainer(settings, [], 1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # build_trainer allows it
    trainer._forward = wrap(TrainingStep(trainer.model, trainer.objective))
    trainer.model.train()
    loss = trainer._gradients(batch, 0, 0)
    gradients = [weight.grad.flatten().cpu() for weight in trainer.model.parameters() if weight.grad is not None]
    return float(loss), torch.cat(gradients)


def same_step(config: Config, batch: PairBatch, device: torch.device) -> bool:
    """Compare a step on the device with one on the CPU."""
    return agree(step_of(config, batch, torch.device("cpu")), step_of(config, batch, device))


def same_group(config: Config, batch: PairBatch, device: torch.device, group: Group) -> bool:
    """Compare a step with DistributedDataParallel in a group of one with one outside, and gather with gradients."""
    alone = step_of(config, batch, device)
    with group(device):
        joined = step_of(config, batch, device, nn.parallel.DistributedDataParallel)
        part = torch.arange(6.0, device=device).view(3, 2).requires_grad_()
        whole = distributed._Gather.apply(part)
        whole.square().sum().backward()
        gathered = torch.equal(whole, part) and torch.equal(part.grad, 2 * part)
    return agree(alone, joined) and bool(gathered)


def agree(one: Any, other: Any) -> bool:
    """Return whether two losses, and two gradients relative to their length, differ by less than 1e-3."""
    distance = float((one[1] - other[1]).norm() / one[1].norm())
    return abs(one[0] - other[0]) < 1e-3 * max(abs(one[0]), 1) and distance < 1e-3
