"""DataLoaders over pairs: reproducible order, patch stores opened inside each worker, errors of one line."""

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
"""Errors that are the user's to mend; all others are defects, and keep their traceback."""

_DIED: Final = ("DataLoader worker (pid", "Pin memory thread exited", "Too many open files")
"""How PyTorch's messages begin where a worker process or what it needs is gone."""


class _ErrorsAsValues(Dataset[PairBatch]):
    """A dataset for worker processes: PyTorch would put the traceback of 36 lines into a raised error's message."""

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
    """A DataLoader that ends in the error that a worker met, or in one line where a worker died.

    Args:
        dataset: of pairs.
        options: of torch.utils.data.DataLoader.
    """

    def __init__(self, dataset: BigEarthNetMM, *, num_workers: int, **options: Any) -> None:
        given: Dataset[PairBatch] = _ErrorsAsValues(dataset) if num_workers else dataset
        super().__init__(given, num_workers=num_workers, collate_fn=_collate, **options)

    def __iter__(self) -> Iterator[PairBatch]:  # type: ignore[override]
        """Yield the batches.

        Raises:
            CbirError: a worker met it, or died.
            OSError, MemoryError: a worker met it.
        """
        if not self.num_workers:
            yield from super().__iter__()
            return
        batches = self._batches()
        while True:
            try:
                batch = next(batches, None)
            except (RuntimeError, EOFError, OSError) as error:  # the latter two where its pipe broke first
                if isinstance(error, RuntimeError) and not str(error).startswith(_DIED):
                    raise
                raise self._explained(error) from error
            if batch is None:
                return
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def _explained(self, error: Exception) -> CbirError:
        what = str(error).partition(". ")[0] if isinstance(error, RuntimeError) else f"a worker is gone ({error})"
        return CbirError(
            f"{' '.join(what.split())}: most often memory ran out, or shared memory or open files; lower num_workers "
            f"(it is {self.num_workers}), in a container give more shared memory (docker run --shm-size=8g)"
        )

    def _batches(self) -> Iterator[PairBatch | _Told]:
        """Begin an epoch; a worker that dies is noticed when its batch is due.

        PyTorch's handler of SIGCHLD would raise at once, in whatever line the program has come to.
        """
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGCHLD) if in_main and hasattr(signal, "SIGCHLD") else None
        batches: Iterator[PairBatch | _Told] = super().__iter__()
        if before is not None:
            signal.signal(signal.SIGCHLD, before)
        return batches


class EpochSampler(Sampler[int]):
    """A permutation of all samples that depends on the seed and the epoch alone.

    A resumed run therefore sees the order that it would have seen without the interruption. Of several processes
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

    A last short batch is left out, since the contrastive loss depends on the number of negatives; another
    epoch's order leaves out other pairs. Where all pairs are fewer than one batch, they are one short batch.

    Raises:
        DataError: there are no pairs, or the batch does not divide among the processes.
    """
    if len(dataset) < num_replicas:
        raise DataError(
            f"the list of training pairs has {len(dataset)}; each of {num_replicas} processes needs one at least"
        )
    if batch_size % num_replicas:
        raise DataError(f"batch_size is {batch_size}; give a multiple of the {num_replicas} processes that train")
    sampler = EpochSampler(len(dataset), seed, rank, num_replicas)
    return PairLoader(
        dataset,
        batch_size=min(batch_size // num_replicas, len(sampler)),
        sampler=sampler,
        drop_last=True,
        **_worker_options(num_workers, pin_memory),
    )


def ordered_loader(
    dataset: BigEarthNetMM, batch_size: int, num_workers: int, *, pin_memory: bool = False
) -> PairLoader:
    """Return a loader over all samples in their order, a last short batch included."""
    return PairLoader(dataset, batch_size=batch_size, shuffle=False, **_worker_options(num_workers, pin_memory))


def _worker_options(num_workers: int, pin_memory: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin_memory}
    # A generator of the loader's own: without it every epoch would draw from the global one.
    options["generator"] = torch.Generator().manual_seed(0)
    if num_workers:
        options |= {"persistent_workers": True, "prefetch_factor": 4}
    return options
