"""Ray session of a search or an extraction: start or join, clean shutdown, one-line errors."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from bigearthnet_cbir.checkout import PACKAGE
from bigearthnet_cbir.errors import CbirError, SearchError

LEAST_STORE: Final = 128 << 20
"""Bytes of the object store for queries and results in flight, besides the archive. Ray needs at least 75 MiB."""

PATIENCE: Final = 10.0
"""Seconds without a result before the head node is checked; Ray ends the process 60 s after losing it."""

TASKS_PER_WORKER: Final = 2
"""Tasks in flight per worker: one runs while the input of the next is transferred."""

_TRIES: Final = 3

_AGAIN: Final = "run the same command again; it continues where it stopped"

_DIED: Final = f"this command was killed, or ended by Ray because the cluster's head or this node died; {_AGAIN}"


@contextmanager
def ray_session(
    num_cpu: int, archive_bytes: int, ray_address: str | None = None, *, key: str = "num_cpu"
) -> Iterator[None]:
    """Start Ray, or join a running cluster, and always shut down cleanly.

    If the process already uses Ray, that session is used and left running.

    Args:
        num_cpu: workers with one core each, if Ray is started here.
        archive_bytes: size of the largest archive to search, which determines the size of the object store.
        ray_address: "auto" or host:port of a running cluster; None starts Ray on this machine.
        key: configuration key that sets the number of workers, for messages.

    Raises:
        SearchError: there is no cluster at the address, an essential part of Ray died, or the object store is full.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        with _one_line(key):
            yield
        return
    with _last_words():
        yield from _session(num_cpu, archive_bytes, ray_address, key)


def _session(num_cpu: int, archive_bytes: int, ray_address: str | None, key: str) -> Iterator[None]:
    import ray

    try:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}
        if ray_address is None:
            _start_here(num_cpu, archive_bytes, quiet, key)
        else:
            _join(ray_address, quiet)
        with _one_line(key):
            yield
    finally:
        ray.shutdown()


@contextmanager
def _last_words() -> Iterator[None]:
    """Let a shell report the death of this process inside the block.

    Ray ends the process without a message if its node dies during a transfer.
    """
    shell = shutil.which("sh")
    if shell is None:
        yield
        return
    command = [shell, "-c", 'read -r word || echo "$0" >&2', f"error: {_DIED}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as listener:
        assert listener.stdin is not None
        try:
            yield
        finally:
            with suppress(OSError):  # the shell was ended from outside
                listener.stdin.write(b"alive\n")
                listener.stdin.close()


@contextmanager
def _one_line(key: str) -> Iterator[None]:
    """Convert Ray's exceptions to this package's errors; errors raised by workers are passed on."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, CbirError | OSError | MemoryError):
            raise cause from error
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise SearchError(
            f"Ray failed ({type(error).__name__}: {reason}); {_AGAIN}, with {key}: 0 if it happens again"
        ) from error


def _join(address: str, quiet: dict[str, Any]) -> None:
    """Join a running cluster; Ray ships the package to its machines, which need no installation of it."""
    import ray

    if ":" in address and "//" not in address:
        # Ray itself would retry for many minutes.
        _reach(address, "no Ray cluster answers at this ray_address", "start one with `ray start --head`")
    try:
        ray.init(address=address, runtime_env={"py_modules": [str(PACKAGE)]}, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SearchError(f"ray_address is {address!r}: {reason}; start one with `ray start --head`") from error


def _start_here(num_cpu: int, archive_bytes: int, quiet: dict[str, Any], key: str) -> None:
    """Start Ray on this machine; its workers use the same package files, including compiled kernels."""
    import ray

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    before = os.environ.get("PYTHONPATH")
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)  # Ray 2.60 warns at every start that this cluster has token authentication
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), *([before] if before else [])])
    try:
        ray.init(
            address="local",
            num_cpus=num_cpu,
            include_dashboard=False,
            # Ray spills what does not fit to disk.
            object_store_memory=LEAST_STORE + min(archive_bytes * 7 // 4, memory // 2),
            **quiet,
        )
    except Exception as error:  # Ray raises many types, and plain Exception where its processes are slow to answer
        reason = " ".join(str(error).split())
        raise SearchError(f"Ray cannot be started ({reason}); {_AGAIN}, or give {key}: 0") from error
    finally:
        logger.setLevel(level)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def fetched(reference: Any) -> Any:
    """Return the result of a task; check the head node of the cluster during long waits."""
    import ray

    while True:
        try:
            return ray.get(reference, timeout=PATIENCE)
        except ray.exceptions.GetTimeoutError:
            require_head()


def require_head() -> None:
    """Raise SearchError if the head node of the cluster does not answer for some seconds.

    Without the head node Ray waits for a minute in calls that cannot be interrupted, and then ends the process.
    """
    import ray

    _reach(ray.get_runtime_context().gcs_address, "the head of the Ray cluster is gone", _AGAIN)


def _reach(address: str, problem: str, cure: str) -> None:
    host, _, port = address.rpartition(":")
    for attempt in range(_TRIES):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE / _TRIES).close()
            return
        except (OSError, ValueError) as error:
            if attempt == _TRIES - 1:
                raise SearchError(f"{address}: {problem} ({error}); {cure}") from error
        time.sleep(1)
