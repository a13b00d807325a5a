"""The same exact search on Ray workers, of this machine or of a cluster."""

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
from bigearthnet_cbir.search.parallel_session import fetched, ray_session, require_head
from bigearthnet_cbir.search.partition import (
    QUERY_TILE,
    SearchRequest,
    check_request,
    exclude_block,
    query_block,
    row_bytes,
    shard_rows,
    shards_of,
)
from bigearthnet_cbir.search.rows import Sliceable, batched_ranges
from bigearthnet_cbir.search.shards import FeatureShard, Shard, without_panels
from bigearthnet_cbir.types import IntArray, Neighbours

__all__ = ["iter_search_on_ray", "ray_session", "search_on_ray"]

PAIRS_PER_TASK: Final = 1 << 27
"""Distances of one task: about a second of work, so that a task's start does not count and a lost one costs little."""

TASKS_PER_WORKER: Final = 2
"""Tasks in flight per worker: one runs while the next one's queries travel."""


class _Cut(NamedTuple):
    """How a search is cut into tasks: queries of a task, archive rows of a shard."""

    queries: int
    rows: int


def _cut_for(job: SearchRequest, start: int, num_cpu: int) -> _Cut:
    size = job.archive.shape[0]
    shards = max(1, -(-size * row_bytes(job) // SHARD_BYTES))
    tiles = -(-(job.queries.shape[0] - start) // QUERY_TILE)
    if tiles < TASKS_PER_WORKER * num_cpu:  # too few queries to go round: cut the archive instead
        shards = max(shards, min(num_cpu, -(-size // QUERY_TILE)))
    rows = shard_rows(size, shards)
    fair = max(1, tiles // (TASKS_PER_WORKER * num_cpu))
    return _Cut(QUERY_TILE * max(1, min(PAIRS_PER_TASK // (rows * QUERY_TILE), fair)), rows)


def _prepare(shard: FeatureShard) -> Panels:
    """Return the panels of a shard, made where they will be used, for the processor there."""
    return make_panels(shard.rows, shard.lengths, threads=1)


_own_panels: dict[tuple[str, int], Panels] = {}
"""What this worker prepared itself, by search and first row: only of the latest search."""


def _fitting(panels: Panels, shard: FeatureShard, search_id: str) -> Panels:
    """Return panels for this worker's processor: those given, or its own where another kind of machine made them."""
    if bool(len(panels.values)) == has_pair_products() or not has_pair_products():
        return panels
    for key in [key for key in _own_panels if key[0] != search_id]:
        del _own_panels[key]
    key = search_id, shard.offset
    if key not in _own_panels:
        _own_panels[key] = _prepare(shard)
    return _own_panels[key]


def _work(
    shard: Shard,
    panels: Panels | None,
    search_id: str,
    queries: npt.NDArray[Any],
    distance: str,
    k: int,
    exclude: IntArray,
) -> tuple[IntArray, npt.NDArray[np.float32]]:
    if isinstance(shard, FeatureShard) and panels is not None:
        shard = shard._replace(panels=_fitting(panels, shard, search_id))
    found = search_slice(queries, shard, distance, k, exclude)
    return found.indices, found.distances


def iter_search_on_ray(
    queries: Sliceable,
    archive: Sliceable,
    k: int,
    distance: str,
    num_cpu: int,
    exclude: Sliceable | None = None,
    *,
    start: int = 0,
) -> Iterator[tuple[int, Neighbours]]:
    """Yield what knn.iter_search yields, computed by Ray workers inside a ray_session.

    A task is a slice of the queries against a shard of the archive. Every shard is put into the object store once,
    and prepared once, by a worker; few tasks are in flight at a time, and a task's lists are merged as they arrive, so
    that memory does not grow with the number of queries. A task whose worker or node dies is run again: it has no side
    effects, so the result is the same to the last bit.

    Args:
        queries: see knn.search; read slice by slice.
        archive: see knn.search; read once, shard by shard.
        k: see knn.search.
        distance: see knn.search.
        num_cpu: workers to keep busy.
        exclude: see knn.search.
        start: first query to search.
    """
    return _blocks(check_request(queries, archive, k, distance, exclude), start, max(num_cpu, 1))


def _blocks(job: SearchRequest, start: int, num_cpu: int) -> Iterator[tuple[int, Neighbours]]:
    import ray

    sizes, search_id = _cut_for(job, start, num_cpu), uuid.uuid4().hex
    require_head()
    remote = ray.remote(num_cpus=1, max_retries=-1)
    work, prepare = remote(_work), remote(_prepare)
    # No machine but a worker's own knows what that worker's kernels are compiled for.
    shards: list[Any] = [ray.put(without_panels(shard)) for shard in shards_of(job, sizes.rows)]
    panels: list[Any] = [prepare.remote(shard) if job.distance == "cosine" else None for shard in shards]
    waiting: deque[tuple[int, list[Any]]] = deque()
    for first, stop in batched_ranges(job.queries.shape[0], sizes.queries, start):
        rows, exclude = ray.put(query_block(job, first, stop)), exclude_block(job, first, stop)
        waiting.append((first, [
            work.remote(shard, own, search_id, rows, job.distance, job.k, exclude)
            for shard, own in zip(shards, panels, strict=True)
        ]))  # fmt: skip
        if len(waiting) * len(shards) >= TASKS_PER_WORKER * num_cpu:
            yield _collected(*waiting.popleft())
    while waiting:
        yield _collected(*waiting.popleft())


def _collected(first: int, references: list[Any]) -> tuple[int, Neighbours]:
    """Return a block's results, each shard's merged as it arrives and then dropped from the object store."""
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
    """Return what knn.search returns, computed by Ray workers; Ray is started and stopped around it."""
    job = check_request(queries, archive, k, distance, exclude)
    with ray_session(num_cpu, job.archive.shape[0] * row_bytes(job), ray_address):
        blocks = iter_search_on_ray(queries, archive, k, distance, num_cpu, exclude)
        return concat_neighbours([found for _, found in blocks], k)
