"""An archive distributed over Ray actors on the machines of a cluster, for one query at a time.

Each actor holds consecutive rows and returns the exact nearest of them. The lists are then merged. Distances are
computed row by row in double precision, so the result is identical to that of `single_query`, including the order of
ties. Ray restarts a lost actor, on another machine if its own is gone. Its rows are then sent again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.kernels.merge import merge
from bigearthnet_cbir.search.parallel_session import PATIENCE, require_head
from bigearthnet_cbir.search.partition import shard_rows
from bigearthnet_cbir.search.rows import batched_ranges
from bigearthnet_cbir.search.single_query import nearest_code, nearest_rows
from bigearthnet_cbir.types import Neighbours

SECONDS_TO_RECOVER: Final = 300.0
"""Time limit in seconds for restarting a lost actor and sending its rows."""

_PAUSE: Final = 0.5
_LOST: Final = (
    "a Ray actor that holds part of the index failed and did not restart within {:.0f} s; add a machine, or cores, to "
    "the Ray cluster"
)


class ShardHolder:
    """The class of the actors: holds rows of an archive by key and searches them exactly."""

    def __init__(self) -> None:
        self._rows: dict[str, npt.NDArray[Any]] = {}

    def process(self) -> int:
        """Return the id of the process."""
        return os.getpid()

    def load(self, key: str, rows: npt.NDArray[Any]) -> None:
        """Copy rows into this process, because the argument from Ray is a view of its object store."""
        self._rows[key] = np.array(rows)

    def nearest(
        self, key: str, query: npt.NDArray[Any], distance: str, k: int, allowed: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None:
        """Return (1, k) positions and distances, -1 and infinity if too few rows are allowed; None without rows.

        Args:
            key: of `load`.
            query: (D,) float32, or (B,) uint8 for hamming.
            distance: cosine, euclidean, chi2 or hamming.
            k: number of neighbours.
            allowed: packed mask, one bit per row.
        """
        rows = self._rows.get(key)
        if rows is None:
            return None
        mask = np.unpackbits(allowed, count=len(rows)).astype(np.bool_)
        indices, distances = np.full((1, k), -1, np.int32), np.full((1, k), np.inf, np.float32)
        some = min(k, int(mask.sum()))
        if some and distance == "hamming":
            indices[:, :some], distances[:, :some] = nearest_code(query, rows, some, mask)
        elif some:
            positions = np.flatnonzero(mask).astype(np.int32)
            indices[:, :some], distances[:, :some] = nearest_rows(query, rows, positions, some, distance)
        return indices, distances


class RayIndex:
    """An archive of N rows on the machines of the Ray cluster that this process has joined, one actor per machine."""

    def __init__(self, size: int, read: Callable[[str], npt.NDArray[Any]], shards: int | None = None) -> None:
        """Start the actors.

        Args:
            size: N.
            read: key -> (N, D) float32 or (N, B) uint8, memory-mapped; called again after an actor was lost.
            shards: number of actors; None for the number of machines in the cluster.
        """
        import ray

        self._read = read
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        alive = sum(bool(node["Alive"]) for node in nodes)
        self._spans = list(batched_ranges(size, shard_rows(size, max(1, min(shards or alive, size)))))
        remote = ray.remote(num_cpus=1, max_restarts=-1, scheduling_strategy="SPREAD")(ShardHolder)
        self._actors: list[Any] = [remote.remote() for _ in self._spans]

    @property
    def actors(self) -> tuple[Any, ...]:
        """The handles of the actors, in the order of their rows."""
        return tuple(self._actors)

    def nearest(
        self, key: str, query: npt.NDArray[Any], distance: str, k: int, allowed: npt.NDArray[np.bool_]
    ) -> Neighbours:
        """Return the k nearest of the allowed rows, as (1, k), nearest first, ties by position.

        Args:
            key: of the rows, for `read`.
            query: (D,) float32, or (B,) uint8 for hamming.
            distance: cosine, euclidean, chi2 or hamming.
            k: number of neighbours, at most the number of allowed rows.
            allowed: (N,) mask of the rows that may be found.

        Raises:
            SearchError: a lost actor was not restarted in time, or the head node of the cluster is gone.
        """
        tasks = [
            (key, query, distance, k, np.packbits(allowed[first:stop])) for first, stop in self._spans
        ]  # fmt: skip
        waiting = [actor.nearest.remote(*task) for actor, task in zip(self._actors, tasks, strict=True)]
        parts = []
        for number, (reference, task) in enumerate(zip(waiting, tasks, strict=True)):
            indices, distances = self._answer(number, reference, task)
            parts.append(Neighbours(np.where(indices < 0, -1, indices + self._spans[number][0]), np.array(distances)))
        return merge([Neighbours(np.asarray(part.indices, np.int32), part.distances) for part in parts])

    def _answer(self, number: int, reference: Any, task: tuple[Any, ...]) -> Any:
        """Return an actor's result. Rows are sent first to an actor without them, new or restarted."""
        from ray.exceptions import RayActorError

        end = time.monotonic() + SECONDS_TO_RECOVER
        while time.monotonic() < end:
            try:
                found = _wait_for(reference, end)
                if found is not None:
                    return found
                first, stop = self._spans[number]
                rows = np.asarray(self._read(task[0])[first:stop])
                _wait_for(self._actors[number].load.remote(task[0], rows), end)
            except RayActorError:  # the actor is lost or is being restarted
                time.sleep(_PAUSE)
            reference = self._actors[number].nearest.remote(*task)
        raise SearchError(_LOST.format(SECONDS_TO_RECOVER))


def _wait_for(reference: Any, end: float) -> Any:
    """Return a task's result. Check the head node during a long wait, because an actor may stay unscheduled."""
    import ray
    from ray.exceptions import GetTimeoutError

    while True:
        try:
            return ray.get(reference, timeout=max(0.1, min(PATIENCE, end - time.monotonic())))
        except GetTimeoutError:
            require_head()
            if time.monotonic() >= end:
                raise SearchError(_LOST.format(SECONDS_TO_RECOVER)) from None
