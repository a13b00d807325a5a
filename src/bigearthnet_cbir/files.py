"""Atomic file writes, folder locks, memory maps, and removal of temporary files of dead processes."""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bigearthnet_cbir.errors import LockedError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_READS: Final = 100
"""Attempts to read who holds a lock, 20 ms apart."""

LOCK_NAME: Final = ".lock"
_TEMPORARY: Final = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")
_LEGACY_TEMPORARY: Final = frozenset(
    {".query.h5.tmp", ".archive.h5.tmp", ".parameters.yaml.tmp", ".retrieval.h5.progress.tmp", ".report.html.tmp",
     ".checkpoints_model_best.pth.tar.tmp", ".checkpoints_model_last.pth.tar.tmp"}
)  # fmt: skip
"""Names of the temporary files of version 0.1."""

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def read_file(path: Path | str) -> bytes:
    """Return the content of a small file; four times as fast as Path.read_bytes, which matters for millions of files.

    Raises:
        OSError: the file cannot be opened or read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def release_pages(array: Any) -> None:
    """Release the resident pages of a memory-mapped array. The next access reads them from the file again."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` (synced, atomically) if the block succeeds.

    The name is unique to the process. If the block raises, the temporary file is removed and `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, if the file system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of dead processes in a folder and its sub-folders.

    The caller must hold the lock of the folder, so that no temporary file is in use.
    """
    with suppress(OSError):
        folders = [folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())]
        for file in (file for parent in folders for file in parent.iterdir()):
            if _TEMPORARY.fullmatch(file.name) or file.name in _LEGACY_TEMPORARY:
                logger.info("removed %s, left by a process that died", file)
                file.unlink(missing_ok=True)


@dataclass
class _Lock:
    """A lock held by this process: its open file, the process that took it, and the nesting depth."""

    descriptor: int
    process: int
    depth: int = 1


_held: dict[str, _Lock] = {}
_guard = threading.RLock()


@contextmanager
def folder_lock(folder: Path, command: str) -> Iterator[None]:
    """Hold the exclusive lock of a folder, so that no other process writes to it.

    The lock is a POSIX record lock on the file .lock. It is released when the process ends, is not inherited by worker
    processes, and works on NFS. Locks can be nested in one process. Temporary files of dead processes are removed when
    the lock is taken. A file system without locks causes a warning; a read-only folder needs no lock.

    Args:
        folder: folder; created if missing.
        command: command of the holder ("train", "retrieve"), for the message in other processes.

    Raises:
        LockedError: another process holds it; the message has host, process, command and start time.
    """
    key = os.path.realpath(folder)
    with _guard:
        lock = _held.get(key)
        if lock is not None and lock.process == os.getpid():
            lock.depth += 1
        else:
            lock = _held[key] = _Lock(_acquire(Path(key), command), os.getpid())
    try:
        yield
    finally:
        with _guard:
            lock.depth -= 1
            if lock.depth == 0:
                del _held[key]
                _release(lock.descriptor)


def _acquire(folder: Path, command: str) -> int:
    """Return the descriptor of the locked file, or -1 if locking is not possible."""
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in _READ_ONLY and folder.is_dir() and not os.access(folder, os.W_OK):
            return -1
        raise
    if fcntl is None:
        os.close(descriptor)
        logger.warning("%s cannot be locked on this system; do not run a second command on it meanwhile", folder)
        return -1
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        taken = error.errno in (errno.EACCES, errno.EAGAIN)
        holder = _describe_holder(descriptor) if taken else ""
        os.close(descriptor)
        if error.errno in _NO_LOCKS:
            logger.warning(
                "%s: its file system offers no locks (%s); do not run a second command on this folder meanwhile",
                folder, error.strerror,
            )  # fmt: skip
            return -1
        if taken:
            raise LockedError(f"{folder}: in use by {holder}; wait until it has ended, or stop it") from None
        raise
    _name_holder(descriptor, command)
    remove_leftovers(folder)
    return descriptor


def _name_holder(descriptor: int, command: str) -> None:
    """Write the holder of the lock into its file; errors such as a full disk are ignored."""
    holder = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "command": command,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _describe_holder(descriptor: int) -> str:
    """Return who holds the lock; a holder that has just taken it needs a moment to write that."""
    for _ in range(_READS):
        try:
            holder: Any = json.loads(os.pread(descriptor, 4096, 0))
            return f"{holder['command']} (process {holder['process']} on {holder['host']}, since {holder['since']})"
        except (OSError, ValueError, TypeError, KeyError):
            time.sleep(0.02)
    return "another process"


def _release(descriptor: int) -> None:
    if descriptor < 0:
        return
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
