"""Exact search on Ray workers, on one machine or a cluster; results equal those of `knn`."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.search.archive_shards import SHARD_BYTES
from bigearthnet_cbir.search.kernels.int16_dot import has_pair_products
from bigearthnet_cbir.search.kernels.int16_screen import Panels, make_panels
from bigearthnet_cbir.search.kernels.merge import merge
from bigearthnet_cbir.search.knn import concat_neighbours, search_slice
from bigearthnet_cbir.search.parallel_session import TASKS_PER_WORKER, fetched, ray_session, require_head
from bigearthnet_cbir.search.partition import (
    QUERY_TILE,
    SearchRequest,
    archive_bytes,
    check_request,
    exclude_block,
    query_block,
    shard_rows,
    shards_of,
)
from bigearthnet_cbir.search.rows import Sliceable, batched_ranges
from bigearthnet_cbir.search.shards import FeatureShard, Shard, without_panels
from bigearthnet_cbir.types import IntArray, Neighbours

__all__ = ["RayArchive", "iter_search_on_ray", "ray_session", "search_on_ray"]

PAIRS_PER_TASK: Final = 1 << 27
"""Distances per task: about a second of work, so that starting a task or repeating a lost one is cheap."""


class _Cut(NamedTuple):
    """Partition of a search into tasks: queries per task, archive rows per shard."""

    queries: int
    rows: int


def _cut_for(job: SearchRequest, start: int, num_cpu: int) -> _Cut:
    size = job.archive.shape[0]
    shards = max(1, -(-archive_bytes(job.archive, job.distance) // SHARD_BYTES))
    tiles = -(-(job.queries.shape[0] - start) // QUERY_TILE)
    if tiles < TASKS_PER_WORKER * num_cpu:  # too few queries for all workers: divide the archive instead
        shards = max(shards, min(num_cpu, -(-size // QUERY_TILE)))
    rows = shard_rows(size, shards)
    fair = max(1, tiles // (TASKS_PER_WORKER * num_cpu))
    return _Cut(QUERY_TILE * max(1, min(PAIRS_PER_TASK // (rows * QUERY_TILE), fair)), rows)


def _prepare(shard: FeatureShard) -> Panels:
    """Return the integer panels of a shard, computed on a worker for its processor."""
    return make_panels(shard.rows, shard.lengths, threads=1)


_own_panels: dict[tuple[str, int], Panels] = {}
"""Panels that this worker computed itself, by archive and first row; of the latest archive only."""


def _fitting(panels: Panels, shard: FeatureShard, archive_id: str) -> Panels:
    """Return panels for this worker's processor: the given ones, or its own if another type of processor made them."""
    if bool(len(panels.values)) == has_pair_products() or not has_pair_products():
        return panels
    for key in [key for key in _own_panels if key[0] != archive_id]:
        del _own_panels[key]
    key = archive_id, shard.offset
    if key not in _own_panels:
        _own_panels[key] = _prepare(shard)
    return _own_panels[key]


def _work(
    shard: Shard,
    panels: Panels | None,
    archive_id: str,
    queries: npt.NDArray[Any],
    distance: str,
    k: int,
    exclude: IntArray,
) -> tuple[IntArray, npt.NDArray[np.float32]]:
    if isinstance(shard, FeatureShard) and panels is not None:
        shard = shard._replace(panels=_fitting(panels, shard, archive_id))
    found = search_slice(queries, shard, distance, k, exclude)
    return found.indices, found.distances


class RayArchive:
    """An archive for several searches in one ray_session; pass it to `iter_search_on_ray` instead of the array.

    Each shard is put into the object store once and prepared once by a worker. The store keeps them as long as this
    object exists.

    Attributes:
        given: the archive as it was given.
        archive_id: identifies the shards.
    """

    def __init__(self, archive: Sliceable) -> None:
        self.given = archive
        self.archive_id = ""
        self._shards: list[tuple[Any, Any]] = []
        self._cut: tuple[str, int] | None = None

    def shards(self, job: SearchRequest, rows: int) -> list[tuple[Any, Any]]:
        """Return references to the shards of at most `rows` rows and to their panels, which are None without cosine.

        Args:
            job: a search of `given`.
            rows: rows per shard; another number, or another distance than that of the last search, replaces the shards.
        """
        import ray

        if self._cut != (job.distance, rows):
            self._shards, self._cut = [], None  # the old shards leave the store before new ones are put into it
            self.archive_id = uuid.uuid4().hex
            # Only a worker knows the processor for which its kernels are compiled.
            prepare: Any = ray.remote(num_cpus=1, max_retries=-1)(_prepare)
            for shard in shards_of(job, rows):
                reference = ray.put(without_panels(shard))
                self._shards.append((reference, prepare.remote(reference) if job.distance == "cosine" else None))
            self._cut = job.distance, rows
        return self._shards


def iter_search_on_ray(
    queries: Sliceable,
    archive: Sliceable | RayArchive,
    k: int,
    distance: str,
    num_cpu: int,
    exclude: Sliceable | None = None,
    *,
    start: int = 0,
) -> Iterator[tuple[int, Neighbours]]:
    """Yield the same as knn.iter_search, computed by Ray workers inside a ray_session.

    A task searches a slice of the queries in a shard of the archive. Few tasks are in flight at a time, and their lists
    are merged as they arrive, so that memory does not grow with the number of queries. A task whose worker or node dies
    runs again; tasks have no side effects, so the result is identical.

    Args:
        queries: see knn.search; read slice by slice.
        archive: see knn.search; read once, shard by shard. Or a RayArchive, which is read once for several calls.
        k: see knn.search.
        distance: see knn.search.
        num_cpu: number of workers.
        exclude: see knn.search.
        start: first query to search.
    """
    shared = archive if isinstance(archive, RayArchive) else RayArchive(archive)
    return _blocks(check_request(queries, shared.given, k, distance, exclude), shared, start, max(num_cpu, 1))


def _blocks(job: SearchRequest, archive: RayArchive, start: int, num_cpu: int) -> Iterator[tuple[int, Neighbours]]:
    import ray

    sizes = _cut_for(job, start, num_cpu)
    require_head()
    work = ray.remote(num_cpus=1, max_retries=-1)(_work)
    shards = archive.shards(job, sizes.rows)
    waiting: deque[tuple[int, list[Any]]] = deque()
    for first, stop in batched_ranges(job.queries.shape[0], sizes.queries, start):
        rows, exclude = ray.put(query_block(job, first, stop)), exclude_block(job, first, stop)
        waiting.append((first, [
            work.remote(shard, panels, archive.archive_id, rows, job.distance, job.k, exclude)
            for shard, panels in shards
        ]))  # fmt: skip
        if len(waiting) * len(shards) >= TASKS_PER_WORKER * num_cpu:
            yield _collected(*waiting.popleft())
    while waiting:
        yield _collected(*waiting.popleft())


def _collected(first: int, references: list[Any]) -> tuple[int, Neighbours]:
    """Return the results of a block; each shard is merged as it arrives and then freed in the object store."""
    found = Neighbours(*map(np.array, fetched(references.pop(0))))
    while references:
        found = merge([found, Neighbours(*fetched(references.pop(0)))])
    return first, found


def search_on_ray(
    queries: Sliceable,
    archive: Sliceable,
    k: int,
    distance: str,
    num_cpu: int,
    exclude: Sliceable | None = None,
    ray_address: str | None = None,
) -> Neighbours:
    """Return the same as knn.search, computed by Ray workers; starts and stops Ray."""
    job = check_request(queries, archive, k, distance, exclude)
    with ray_session(num_cpu, archive_bytes(job.archive, distance), ray_address):
        blocks = iter_search_on_ray(queries, archive, k, distance, num_cpu, exclude)
        return concat_neighbours([found for _, found in blocks], k)
