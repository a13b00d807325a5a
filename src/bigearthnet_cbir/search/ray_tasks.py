"""A function of many independent tasks on Ray workers: results in order, lost tasks run again."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.parallel_session import TASKS_PER_WORKER, fetched, require_head

RETRIES: Final = 10
"""How often a task runs again after its worker or machine died; more often, the task itself is the likely cause."""

_shared: dict[str, Any] = {}
"""What the tasks of the latest call share, as this worker unpickled it."""


def run_in_order(
    function: Callable[..., Any],
    shared: Any,
    tasks: Sequence[tuple[Any, ...]],
    workers: int,
    *,
    on_gpu: bool = False,
) -> Iterator[Any]:
    """Yield function(shared, *task) of each task in order, computed by Ray workers inside a ray_session.

    Each worker unpickles `shared` once. Few tasks are in flight at a time, so memory does not grow with their number.

    Args:
        function: of a module of this package; it must have no side effects, because a lost task runs again.
        shared: first argument of all tasks.
        tasks: further arguments.
        workers: number of workers.
        on_gpu: give each worker a GPU besides its core.

    Raises:
        SearchError: the cluster has no GPU, or its head node is gone.
    """
    import ray

    require_head()
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if on_gpu and not resources.get("GPU"):  # Ray would wait for one for ever
        raise SearchError("device is a GPU, but no machine of the Ray cluster has one; use device: cpu")
    remote = ray.remote(num_cpus=1, num_gpus=int(on_gpu), max_retries=RETRIES)(_run)
    key, kept = uuid.uuid4().hex, ray.put(shared)
    waiting: deque[Any] = deque()
    for task in tasks:
        # Inside a list Ray hands over the reference itself, not a new copy of the object for each task.
        waiting.append(remote.remote(function, key, [kept], task))
        if len(waiting) >= TASKS_PER_WORKER * workers:
            yield fetched(waiting.popleft())
    while waiting:
        yield fetched(waiting.popleft())


def _run(function: Callable[..., Any], key: str, kept: list[Any], task: tuple[Any, ...]) -> Any:
    """Run a task on a worker."""
    import ray

    if key not in _shared:
        _shared.clear()
        try:
            _shared[key] = ray.get(kept[0])
        except ray.exceptions.RaySystemError as error:  # unpickling raised
            cause = getattr(error, "client_exc", None)
            raise (cause if isinstance(cause, Exception) else error) from None
    return function(_shared[key], *task)
