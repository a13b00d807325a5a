"""Training on several processes as if it were one: gathered batches, shared batch norms, one writer.

Started by torchrun, which sets RANK, WORLD_SIZE and LOCAL_RANK. Without it everything here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bigearthnet_cbir.errors import TrainingError


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the group that torchrun set up (nccl on CUDA, gloo on CPU), and leave it at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's number; 0 is the writer."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_gather_with_grad(part: Tensor) -> Tensor:
    """Return the parts (B, ...) of all processes in rank order, (W B, ...), with gradients to each part."""
    if world_size() == 1:
        return part
    joined: Tensor = _Gather.apply(part)  # type: ignore[no-untyped-call]
    return joined


class _Gather(torch.autograd.Function):
    """The parts of all processes; each part's gradient is the sum over what every process made of it."""

    @staticmethod
    def forward(_context: Any, part: Tensor) -> Tensor:
        parts = [torch.empty_like(part) for _ in range(world_size())]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


class _Sum(torch.autograd.Function):
    """The sum over all processes; a value's gradient is the sum over what every process made of that."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def mean_over_processes(value: Tensor) -> float:
    """Return the mean of every process's scalar; all parts of a batch are equally large."""
    if world_size() == 1:
        return float(value)
    total = value.detach().clone()
    dist.all_reduce(total)
    return float(total) / world_size()


def wait_for_all() -> None:
    """Return once every process is here."""
    if world_size() > 1:
        dist.barrier()


def broadcast_number(value: float) -> float:
    """Return process 0's number on every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batch of all processes; PyTorch's SyncBatchNorm does this on CUDA only.

    Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, with sums added over the processes.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the mean and variance of every process's images together."""
        if not self.training or world_size() == 1:
            return super().forward(images)
        wide = images.float()
        sums = torch.stack((wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))))
        count = images.numel() / images.shape[1] * world_size()
        mean, square = _Sum.apply(sums) / count  # type: ignore[no-untyped-call]
        variance = (square - mean.square()).clamp(min=0)
        self._track(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = self.weight / (variance + self.eps).sqrt()
        normalised = wide * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        result: Tensor = normalised.to(images.dtype)
        return result

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def convert_sync_batchnorm(module: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch norm of a module see the batches of all processes; weights and their names stay."""
    if world_size() == 1:
        return module
    known = nn.BatchNorm2d, GlobalBatchNorm
    others = {type(child).__name__ for child in module.modules() if isinstance(child, nn.BatchNorm2d)}
    others -= {kind.__name__ for kind in known}
    if others:
        raise TrainingError(
            f"the backbone has batch norms of another kind ({', '.join(sorted(others))}), which several processes do "
            "not share; train it in one process"
        )
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = GlobalBatchNorm
    return module


def wrap_ddp(step: nn.Module, device: torch.device) -> Any:
    """Return the module wrapped so that its gradients are averaged over all processes."""
    if world_size() == 1 or not any(weight.requires_grad for weight in step.parameters()):
        return step
    devices = [device] if device.type == "cuda" else None
    wrap: Any = nn.parallel.DistributedDataParallel
    # Statistics are shared by share_batch_norms. Earlier releases of PyTorch know the option by its earlier name.
    named = "forward_sync_buffers" if "forward_sync_buffers" in signature(wrap).parameters else "broadcast_buffers"
    return wrap(step, device_ids=devices, **{named: False})
