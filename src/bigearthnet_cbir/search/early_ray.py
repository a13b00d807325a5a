"""Start of Ray in another thread, while this one imports and computes what comes before a search."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bigearthnet_cbir.search.parallel_session import STARTING, last_words, start_ray

logger = logging.getLogger(__name__)


def load_kernels(distance: str) -> None:
    """Load the compiled kernels of a search into this process, a new worker."""
    import numpy as np  # imported here: only workers run this

    from bigearthnet_cbir.search.knn import search_slice
    from bigearthnet_cbir.search.shards import make_shard

    rows = np.ones((2, 8), np.uint8 if distance == "hamming" else np.float32)
    search_slice(rows, make_shard(rows, 0, len(rows), distance), distance, 1, np.full((2, 1), -1, np.int32))


class _EarlyStart:
    """A thread that starts Ray, and stops it when it is told to.

    The thread lives as long as Ray's processes: their death signal is that of the thread that started them.
    """

    def __init__(self, num_cpu: int, archive_bytes: int, ray_address: str | None, distance: str) -> None:
        self._arguments = num_cpu, archive_bytes, ray_address
        self._distance = distance
        self._started, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray")
        self._thread.start()

    def _run(self) -> None:
        import ray

        # Ray warns that this is not the main thread, which handles SIGTERM (_exits_on_sigterm).
        logging.getLogger("ray").setLevel(logging.ERROR)
        loading: list[Any] = []
        try:
            start_ray(*self._arguments)
            num_cpu, _, ray_address = self._arguments
            if ray_address is None:
                load = ray.remote(num_cpus=1)(load_kernels)
                loading = [load.remote(self._distance) for _ in range(num_cpu)]
        except Exception as error:
            logger.debug("the early start of Ray failed", exc_info=error)
            self._stopping.set()
        self._started.set()
        self._stopping.wait()
        loading.clear()
        ray.shutdown()

    def wait(self) -> bool:
        """Wait until Ray has started; False if that failed, or if it was stopped again."""
        self._started.wait()
        if self._stopping.is_set():
            self._thread.join()
            return False
        return True

    def stop(self) -> None:
        """Let the thread stop Ray, while this one goes on."""
        self._stopping.set()

    def end(self) -> None:
        """Stop Ray, and wait until its processes have ended."""
        self.stop()
        self._thread.join()


@contextmanager
def early_ray(
    num_cpu: int, archive_bytes: int, ray_address: str | None = None, distance: str = "cosine"
) -> Iterator[None]:
    """Start Ray, or join a cluster, while the block does something else first.

    A ray_session inside the block waits for the start; if it failed, for want of time on a busy machine say, the
    session starts Ray itself. When the session ends, Ray is stopped in the other thread. The end of the block waits for
    that, but an exception is passed on at once, and the process then ends after Ray's processes. If this process uses
    Ray already, nothing is done.

    No process may be forked before the session begins, because a fork would copy the locks of the other thread.

    Args:
        num_cpu: see ray_session.
        archive_bytes: see ray_session.
        ray_address: see ray_session.
        distance: of the search, whose kernels the workers load meanwhile.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # imported here: two threads that import the same modules could wait for each other

    while STARTING and not STARTING[-1].wait():
        STARTING.pop()
    if STARTING or ray.is_initialized():
        yield
        return
    with last_words(), _exits_on_sigterm():
        start = _EarlyStart(num_cpu, archive_bytes, ray_address, distance)
        STARTING.append(start)
        try:
            yield
        except BaseException:
            start.stop()
            raise
        STARTING.remove(start)
        start.end()


@contextmanager
def _exits_on_sigterm() -> Iterator[None]:
    """Let a SIGTERM leave all blocks, as Ray does where the main thread starts it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
