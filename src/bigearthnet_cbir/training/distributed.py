"""Training on several processes, equivalent to one: gathered batches, synchronised batch norms, one writer.

torchrun sets RANK, WORLD_SIZE and LOCAL_RANK. Without torchrun these functions have no effect.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bigearthnet_cbir.errors import TrainingError


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the process group of torchrun (nccl on CUDA, gloo on CPU), and leave it at the end."""
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
    """Return the rank of this process; rank 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of training processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_gather_with_grad(part: Tensor) -> Tensor:
    """Return the batches (B, ...) of all processes in rank order, (W B, ...), with gradients to each of them."""
    if world_size() == 1:
        return part
    joined: Tensor = _Gather.apply(part)  # type: ignore[no-untyped-call]
    return joined


class _Gather(torch.autograd.Function):
    """All-gather; the gradient of each batch is the sum of its gradients over all processes."""

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
    """All-reduce sum; the gradient of each value is the sum of its gradients over all processes."""

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
    """Return the mean of a scalar over all processes, whose batches have equal sizes."""
    if world_size() == 1:
        return float(value)
    total = value.detach().clone()
    dist.all_reduce(total)
    return float(total) / world_size()


def average_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their means over all processes, as DistributedDataParallel does in a backward pass."""
    if world_size() == 1:
        return
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    means = torch.split(joined / world_size(), [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def wait_for_all() -> None:
    """Wait until every process has called this (barrier)."""
    if world_size() > 1:
        dist.barrier()


def broadcast_number(value: float) -> float:
    """Return the value of rank 0 on every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batch of all processes; PyTorch's SyncBatchNorm supports CUDA only.

    Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167, with sums added over the processes.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the mean and variance over all processes."""
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
    """Synchronise every batch norm of a module over all processes; weights and their names are unchanged."""
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
    """Return the module wrapped in DistributedDataParallel, which averages gradients over all processes."""
    if world_size() == 1 or not any(weight.requires_grad for weight in step.parameters()):
        return step
    devices = [device] if device.type == "cuda" else None
    wrap: Any = nn.parallel.DistributedDataParallel
    # convert_sync_batchnorm synchronises the statistics. Older PyTorch releases use another name of the option.
    named = "forward_sync_buffers" if "forward_sync_buffers" in signature(wrap).parameters else "broadcast_buffers"
    return wrap(step, device_ids=devices, **{named: False})
