"""The same exact search on Ray workers, of this machine or of a cluster."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.search.knn import SHARD_BYTES, joined, search_slice
from bigearthnet_cbir.search.merging import merge
from bigearthnet_cbir.search.plan import (
    QUERY_TILE,
    Job,
    Sliceable,
    check_job,
    cut,
    exclude_block,
    query_block,
    row_bytes,
    shard_rows,
    shards_of,
)
from bigearthnet_cbir.search.shards import Shard
from bigearthnet_cbir.types import IntArray, Neighbours

logger = logging.getLogger(__name__)

PAIRS_PER_TASK: Final = 1 << 27
"""Distances of one task: about a second of work, so that a task's start does not count and a lost one costs little."""

TASKS_PER_WORKER: Final = 2
"""Tasks in flight per worker: one runs while the next one's queries travel."""

LEAST_STORE: Final = 128 << 20
"""Bytes of the object store beside the archive: queries and results in flight. Ray refuses less than 75 MiB."""

PACKAGE: Final = Path(__file__).resolve().parents[1]


@contextmanager
def ray_session(num_cpu: int, archive_bytes: int, ray_address: str | None = None) -> Iterator[None]:
    """Start Ray, or join a running cluster, and leave it cleanly whatever happens inside.

    Inside a process that uses Ray already, that session is taken and left running.

    Args:
        num_cpu: workers of one core each, where Ray is started here.
        archive_bytes: size of the largest archive that will be searched; the object store is made for it.
        ray_address: "auto" or host:port of a running cluster; None starts Ray on this machine.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}
        if ray_address is None:
            _start_here(num_cpu, archive_bytes, quiet)
        else:
            # The other machines need no installation: the package travels with the job.
            ray.init(address=ray_address, runtime_env={"py_modules": [str(PACKAGE)]}, **quiet)
        yield
    finally:
        ray.shutdown()


def _start_here(num_cpu: int, archive_bytes: int, quiet: dict[str, Any]) -> None:
    """Start Ray on this machine, its workers reading the very files that run here, compiled kernels included."""
    import ray

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), *([before] if before else [])])
    try:
        ray.init(
            address="local",
            num_cpus=num_cpu,
            include_dashboard=False,
            # What does not fit is spilled to disk by Ray.
            object_store_memory=LEAST_STORE + min(archive_bytes * 7 // 4, memory // 2),
            **quiet,
        )
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class _Cut(NamedTuple):
    """How a search is cut into tasks: queries of a task, archive rows of a shard."""

    queries: int
    rows: int


def _cut_for(job: Job, start: int, num_cpu: int) -> _Cut:
    size = job.archive.shape[0]
    shards = max(1, -(-size * row_bytes(job) // SHARD_BYTES))
    tiles = -(-(job.queries.shape[0] - start) // QUERY_TILE)
    if tiles < TASKS_PER_WORKER * num_cpu:  # too few queries to go round: cut the archive instead
        shards = max(shards, min(num_cpu, -(-size // QUERY_TILE)))
    rows = shard_rows(size, shards)
    fair = max(1, tiles // (TASKS_PER_WORKER * num_cpu))
    return _Cut(QUERY_TILE * max(1, min(PAIRS_PER_TASK // (rows * QUERY_TILE), fair)), rows)


def _work(
    shard: Shard, queries: npt.NDArray[Any], distance: str, k: int, exclude: IntArray
) -> tuple[IntArray, npt.NDArray[np.float32]]:
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

    A task is a slice of the queries against a shard of the archive. Every shard is put into the object store once;
    few tasks are in flight at a time, so that memory does not grow with the number of queries. A task whose worker
    or node dies is run again: it has no side effects, so the result is the same to the last bit.

    Args:
        queries: see knn.search; read slice by slice.
        archive: see knn.search; read once, shard by shard.
        k: see knn.search.
        distance: see knn.search.
        num_cpu: workers to keep busy.
        exclude: see knn.search.
        start: first query to search.
    """
    return _blocks(check_job(queries, archive, k, distance, exclude), start, max(num_cpu, 1))


def _blocks(job: Job, start: int, num_cpu: int) -> Iterator[tuple[int, Neighbours]]:
    import ray

    sizes = _cut_for(job, start, num_cpu)
    remote = ray.remote(num_cpus=1, max_retries=-1)(_work)
    shards = [ray.put(shard) for shard in shards_of(job, sizes.rows)]
    waiting: deque[tuple[int, list[Any]]] = deque()
    for first, stop in cut(job.queries.shape[0], sizes.queries, start):
        rows, exclude = ray.put(query_block(job, first, stop)), exclude_block(job, first, stop)
        waiting.append((first, [remote.remote(shard, rows, job.distance, job.k, exclude) for shard in shards]))
        if len(waiting) * len(shards) >= TASKS_PER_WORKER * num_cpu:
            yield _collected(*waiting.popleft())
    while waiting:
        yield _collected(*waiting.popleft())


def _collected(first: int, references: list[Any]) -> tuple[int, Neighbours]:
    """Return a block's results, copied out of the object store so that its memory is free again."""
    import ray

    merged = merge([Neighbours(*part) for part in ray.get(references)])
    return first, Neighbours(np.array(merged.indices), np.array(merged.distances))


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
    job = check_job(queries, archive, k, distance, exclude)
    with ray_session(num_cpu, job.archive.shape[0] * row_bytes(job), ray_address):
        blocks = iter_search_on_ray(queries, archive, k, distance, num_cpu, exclude)
        return joined([found for _, found in blocks], k)
