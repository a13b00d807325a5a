"""Gradient of a large batch from small forward passes, so that its memory is that of a micro-batch (GradCache).

Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
https://arxiv.org/abs/2101.06983. A first pass without graph computes all embeddings. The loss of the whole batch gives
the gradient of each embedding. A second pass with graph computes each micro-batch again and carries these gradients to
the weights. The cost is one additional forward pass.

The result is the exact gradient of the loss of the joined embeddings. Batch norms are the one difference to a step
over the whole batch: their statistics are those of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from bigearthnet_cbir.models.dual_encoder import DualOutput
from bigearthnet_cbir.training.distributed import average_gradients
from bigearthnet_cbir.training.objectives import TrainingStep


class GradientCache:
    """Adds the gradient of a batch to the weights of an encoder and its objective, one micro-batch at a time.

    Args:
        step: encoder and objective; the objective is computed once per batch, from all embeddings.
        size: pairs of a micro-batch in this process; >= 1.
        autocast: returns the context of the arithmetic. Each pass has its own, because autocast reuses converted
            weights, and those of the first pass have no graph.
        compile: whether the encoder uses torch.compile.

    Raises:
        ValueError: the size is less than one pair.
    """

    def __init__(
        self, step: TrainingStep, size: int, autocast: Callable[[], AbstractContextManager[None]], compile: bool = False
    ) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; give a whole number >= 1")
        self.step = step
        self.size = size
        self.autocast = autocast
        self._encode: Callable[[Tensor, Tensor], DualOutput] = torch.compile(step.model) if compile else step.model

    def backward(self, s1: Tensor, s2: Tensor, label: Tensor, pair_index: Tensor) -> Tensor:
        """Add the gradients of a batch to the weights' gradients and return the loss, a detached float32 scalar.

        The gradients are averaged over the processes, as DistributedDataParallel does.

        Args:
            s1: (B, 2, H, W), augmented.
            s2: (B, 10, H, W), augmented.
            label: (B, 19) of 0 and 1.
            pair_index: (B,) number of each pair in its list.
        """
        parts = list(zip(torch.split(s1, self.size), torch.split(s2, self.size), strict=True))
        before = _State(self.step.model, s1.device)
        joined = self._embeddings(parts)
        with self.autocast():
            loss = self.step.loss(joined, label, pair_index)
        loss.backward()  # type: ignore[no-untyped-call]
        # The second pass draws the same random numbers (dropout), and updates the running statistics of batch norms,
        # which the first pass leaves as they were.
        before.restore()
        for number, part in enumerate(parts):
            self._carry(part, joined, number * self.size)
        average_gradients(self.step.parameters())
        return loss.detach()

    @torch.no_grad()
    def _embeddings(self, parts: list[tuple[Tensor, Tensor]]) -> DualOutput:
        outputs = []
        for part in parts:
            with self.autocast():
                outputs.append(self._encode(*part))
        return DualOutput(*(torch.cat(values).requires_grad_() for values in zip(*outputs, strict=True)))

    def _carry(self, part: tuple[Tensor, Tensor], joined: DualOutput, first: int) -> None:
        """Compute the embeddings from row `first` on again and carry their gradients to the weights."""
        with self.autocast():
            output = self._encode(*part)
        rows = slice(first, first + len(part[0]))
        used = [
            (value, whole.grad[rows]) for value, whole in zip(output, joined, strict=True) if whole.grad is not None
        ]
        torch.autograd.backward([value for value, _ in used], [gradient for _, gradient in used])


class _State:
    """What a forward pass changes: the buffers of a module and the random state of CPU and device."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.device = device
        self.buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
        self.random = torch.get_rng_state()
        self.device_random = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @torch.no_grad()
    def restore(self) -> None:
        for buffer, value in self.buffers:
            buffer.copy_(value)
        torch.set_rng_state(self.random)
        if self.device_random is not None:
            torch.cuda.set_rng_state(self.device_random, self.device)
