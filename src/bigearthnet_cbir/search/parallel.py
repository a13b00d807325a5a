"""The same exact search on Ray workers, of this machine or of a cluster."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from bigearthnet_cbir.search.knn import joined, search
from bigearthnet_cbir.search.plan import Sliceable, check_job, cut, exclude_block, query_block
from bigearthnet_cbir.types import IntArray, Neighbours

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

logger = logging.getLogger(__name__)

QUERY_BLOCK: Final = 512
"""Queries per task: coarse enough that a task's start does not count, fine enough for a progress bar."""

LEAST_STORE: Final = 128 << 20
"""Bytes of the object store below which Ray works badly."""


@contextmanager
def ray_session(num_cpu: int, archive_bytes: int, ray_address: str | None = None) -> Iterator[None]:
    """Start Ray, or join a running cluster, and leave it cleanly whatever happens inside.

    Args:
        num_cpu: workers of one core each, where Ray is started here.
        archive_bytes: size of the largest archive that will be searched; the object store is made for it.
        ray_address: "auto" or host:port of a running cluster; None starts Ray on this machine.
    """
    package = Path(__file__).resolve().parents[1]
    if ray_address is not None:
        # The cluster's machines need no installation: the package travels with the job.
        options: dict[str, Any] = {"address": ray_address, "runtime_env": {"py_modules": [str(package)]}}
    else:
        # On this machine the workers read the very files that run here, compiled kernels included.
        options = {
            "address": "local",
            "num_cpus": num_cpu,
            "include_dashboard": False,
            "object_store_memory": LEAST_STORE + 2 * archive_bytes,
            "runtime_env": {"env_vars": {"PYTHONPATH": str(package.parent)}},
        }
    ray.init(**options, logging_level=logging.ERROR, log_to_driver=False, configure_logging=False)
    try:
        yield
    finally:
        ray.shutdown()


def _search_block(
    queries: Any, archive: Any, k: int, distance: str, exclude: IntArray | None
) -> tuple[IntArray, Any]:
    found = search(queries, archive, k, distance, exclude, threads=1)
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

    The archive is put into the object store once. At most two tasks per worker are in flight. A task whose worker
    dies is run again; since tasks have no side effects, the result is the same.

    Args:
        queries: see knn.search.
        archive: see knn.search.
        k: see knn.search.
        distance: see knn.search.
        num_cpu: workers.
        exclude: see knn.search.
        start: first query to search.
    """
    job = check_job(queries, archive, k, distance, exclude)
    remote = ray.remote(num_cpus=1, max_retries=-1)(_search_block)
    shared = ray.put(np.ascontiguousarray(archive[0 : archive.shape[0]]))
    in_flight: deque[tuple[int, Any]] = deque()
    for first, stop in cut(queries.shape[0], QUERY_BLOCK, start):
        if len(in_flight) >= 2 * num_cpu:
            yield _collect(*in_flight.popleft())
        block = exclude_block(job, first, stop) if exclude is not None else None
        in_flight.append((first, remote.remote(query_block(job, first, stop), shared, k, distance, block)))
    while in_flight:
        yield _collect(*in_flight.popleft())


def _collect(first: int, reference: Any) -> tuple[int, Neighbours]:
    indices, distances = ray.get(reference)
    return first, Neighbours(np.array(indices), np.array(distances))


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
    size = int(np.prod(archive.shape)) * 4
    with ray_session(num_cpu, size, ray_address):
        return joined([found for _, found in iter_search_on_ray(queries, archive, k, distance, num_cpu, exclude)])
