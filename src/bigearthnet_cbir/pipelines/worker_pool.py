"""Worker processes that always end with their parent; a killed worker gives a one-line error."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection

from bigearthnet_cbir.errors import CbirError


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of new processes; at the end of the block pending tasks are dropped and the processes end.

    Processes are spawned, because a fork would inherit the threads and open files of the caller.

    Raises:
        CbirError: a worker process died, for example without memory.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise CbirError("a worker process died, possibly out of memory; run again with fewer --workers") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """Ignore interrupts, and exit when the parent ends, because a killed parent cannot stop its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    # Waiting for the sentinel works on every system. Linux's PR_SET_PDEATHSIG would end a worker already with the
    # thread that started it.
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
