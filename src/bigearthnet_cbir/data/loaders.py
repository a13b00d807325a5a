"""DataLoaders over pairs: reproducible order, patch stores opened inside each worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from bigearthnet_cbir.data.dataset import BigEarthNetMM, PairBatch, collate
from bigearthnet_cbir.errors import DataError


class EpochSampler(Sampler[int]):
    """A permutation of all samples that depends on the seed and the epoch alone.

    A resumed run therefore sees the order that it would have seen without the interruption. Of several processes
    each takes every `parts`-th sample from its `part` on: their batches together are a batch of one process.
    """

    def __init__(self, size: int, seed: int, part: int = 0, parts: int = 1) -> None:
        self.size = size
        self.seed = seed
        self.part = part
        self.parts = parts
        self.epoch = 0

    def __len__(self) -> int:
        return self.size // self.parts

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        order = torch.randperm(self.size, generator=generator)[: len(self) * self.parts]
        return iter(order[self.part :: self.parts].tolist())


def mixed_seed(seed: int, *parts: int) -> int:
    """Return a 63-bit seed that differs for every combination of the parts (FNV-1a over the numbers)."""
    state = 0xCBF29CE484222325
    for number in (seed, *parts):
        for byte in int(number).to_bytes(8, "little"):
            state = ((state ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return state >> 1


def training_loader(
    dataset: BigEarthNetMM,
    batch_size: int,
    seed: int,
    num_workers: int,
    *,
    pin_memory: bool = False,
    part: int = 0,
    parts: int = 1,
) -> DataLoader[PairBatch]:
    """Return a shuffled loader whose order follows `loader.sampler.epoch`.

    A last short batch is left out, since the contrastive loss depends on the number of negatives; another
    epoch's order leaves out other pairs. Where all pairs are fewer than one batch, they are one short batch.

    Raises:
        DataError: there are no pairs, or the batch does not divide among the processes.
    """
    if len(dataset) < parts:
        raise DataError(f"the list of training pairs has {len(dataset)}; each of {parts} processes needs one at least")
    if batch_size % parts:
        raise DataError(f"batch_size is {batch_size}; give a multiple of the {parts} processes that train")
    sampler = EpochSampler(len(dataset), seed, part, parts)
    return DataLoader(
        dataset,
        batch_size=min(batch_size // parts, len(sampler)),
        sampler=sampler,
        drop_last=True,
        **_worker_options(num_workers, pin_memory),
    )


def ordered_loader(
    dataset: BigEarthNetMM, batch_size: int, num_workers: int, *, pin_memory: bool = False
) -> DataLoader[PairBatch]:
    """Return a loader over all samples in their order, a last short batch included."""
    return DataLoader(dataset, batch_size=batch_size, shuffle=False, **_worker_options(num_workers, pin_memory))


def _worker_options(num_workers: int, pin_memory: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory, "collate_fn": collate}
    # A generator of the loader's own: without it every epoch would draw from the global one.
    options["generator"] = torch.Generator().manual_seed(0)
    if num_workers:
        options |= {"persistent_workers": True, "prefetch_factor": 4}
    return options
