"""DataLoaders of patch pairs: reproducible order, stores opened in each worker process, one-line errors."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from bigearthnet_cbir.data.dataset import BigEarthNetMM, PairBatch, collate
from bigearthnet_cbir.errors import CbirError, DataError

_Told = CbirError | OSError | MemoryError
"""Errors that the user can resolve; all others are bugs and keep their traceback."""

_DIED: Final = ("DataLoader worker (pid", "Pin memory thread exited", "Too many open files")
"""How PyTorch's messages begin if a worker process or one of its resources is lost."""


class _ErrorsAsValues(Dataset[PairBatch]):
    """Returns errors as values, because PyTorch would add a worker's traceback (36 lines) to the message."""

    def __init__(self, dataset: BigEarthNetMM) -> None:
        self.pairs = dataset.pairs
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, indices: Sequence[int]) -> PairBatch | _Told:
        try:
            return self._dataset.__getitems__(indices)
        except (CbirError, OSError, MemoryError) as error:
            return error


def _collate(samples: PairBatch | list[PairBatch] | _Told) -> PairBatch | _Told:
    return samples if isinstance(samples, Exception) else collate(samples)


class PairLoader(DataLoader[PairBatch]):
    """A DataLoader that re-raises the errors of its workers, and raises a one-line error if a worker dies.

    Args:
        dataset: dataset of pairs.
        options: options of torch.utils.data.DataLoader.
    """

    def __init__(self, dataset: BigEarthNetMM, *, num_workers: int, **options: Any) -> None:
        given: Dataset[PairBatch] = _ErrorsAsValues(dataset) if num_workers else dataset
        super().__init__(given, num_workers=num_workers, collate_fn=_collate, **options)

    def __iter__(self) -> Iterator[PairBatch]:  # type: ignore[override]
        """Yield the batches.

        Raises:
            CbirError: a worker raised it, or died.
            OSError, MemoryError: a worker raised it.
        """
        if not self.num_workers:
            yield from super().__iter__()
            return
        batches = self._batches()
        while True:
            try:
                batch = next(batches, None)
            except (RuntimeError, EOFError, OSError) as error:  # the latter two if its pipe breaks first
                if isinstance(error, RuntimeError) and not str(error).startswith(_DIED):
                    raise
                raise self._explained(error) from error
            if batch is None:
                return
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def _explained(self, error: Exception) -> CbirError:
        what = str(error).partition(". ")[0] if isinstance(error, RuntimeError) else f"a worker died ({error})"
        return CbirError(
            f"{' '.join(what.split())}: usually memory, shared memory or open files ran out; lower num_workers "
            f"(it is {self.num_workers}), in a container give more shared memory (docker run --shm-size=8g)"
        )

    def _batches(self) -> Iterator[PairBatch | _Told]:
        """Iterate over an epoch; the death of a worker is noticed when its batch is requested.

        PyTorch's SIGCHLD handler would raise immediately, at an arbitrary line of the program.
        """
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGCHLD) if in_main and hasattr(signal, "SIGCHLD") else None
        batches: Iterator[PairBatch | _Told] = super().__iter__()
        if before is not None:
            signal.signal(signal.SIGCHLD, before)
        return batches


class EpochSampler(Sampler[int]):
    """A permutation of all samples that depends only on the seed and the epoch.

    A resumed run therefore has the same order as an uninterrupted one. Of several processes
    each takes every `num_replicas`-th sample from its `rank` on: their batches together are a batch of one process.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, num_replicas: int = 1) -> None:
        self.size = size
        self.seed = seed
        self.rank = rank
        self.num_replicas = num_replicas
        self.epoch = 0

    def __len__(self) -> int:
        return self.size // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        order = torch.randperm(self.size, generator=generator)[: len(self) * self.num_replicas]
        return iter(order[self.rank :: self.num_replicas].tolist())


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
    rank: int = 0,
    num_replicas: int = 1,
) -> PairLoader:
    """Return a shuffled loader whose order follows `loader.sampler.epoch`.

    The last incomplete batch is dropped, because the contrastive loss depends on the number of negatives; each epoch
    drops other pairs. If there are fewer pairs than the batch size, they form one batch.

    Raises:
        DataError: there are no pairs, or the batch size is not divisible by the number of processes.
    """
    if len(dataset) < num_replicas:
        raise DataError(
            f"the training list has {len(dataset)} pairs; {num_replicas} processes need at least one each: use fewer "
            "processes or a longer list"
        )
    if batch_size % num_replicas:
        raise DataError(f"batch_size is {batch_size}; give a multiple of the {num_replicas} training processes")
    sampler = EpochSampler(len(dataset), seed, rank, num_replicas)
    return PairLoader(
        dataset,
        batch_size=min(batch_size // num_replicas, len(sampler)),
        sampler=sampler,
        drop_last=True,
        **_worker_options(num_workers, pin_memory),
    )


def ordered_loader(
    dataset: BigEarthNetMM,
    batch_size: int,
    num_workers: int,
    *,
    pin_memory: bool = False,
    rows: Sequence[int] | None = None,
) -> PairLoader:
    """Return a loader over all samples in order, or over some rows, including the last incomplete batch.

    A single batch is read in this process, which is faster than starting others.
    """
    order = range(len(dataset)) if rows is None else rows
    workers = num_workers if len(order) > batch_size else 0
    return PairLoader(dataset, batch_size=batch_size, sampler=order, **_worker_options(workers, pin_memory))


def _worker_options(num_workers: int, pin_memory: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory}
    # Its own generator, because the default one would advance the global random state in every epoch.
    options["generator"] = torch.Generator().manual_seed(0)
    if num_workers:
        options |= {"persistent_workers": True, "prefetch_factor": 4}
    return options
