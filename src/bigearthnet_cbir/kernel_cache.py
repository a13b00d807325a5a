"""Compiled kernels on disk, found again only while every source that they were compiled from is the same.

Numba knows a cached kernel by its own source file. A kernel holds more than that: the functions that it calls, the
constants that it reads and the fields of the named tuples that it takes may all stand in other files. So here the key
is a digest of all of them, and each compiled signature is a file of its own, so that two processes never write into
one another's entries.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import llvmlite  # type: ignore[import-untyped]
import numba
import numpy as np
from numba.core import compiler as untyped_compiler
from numba.core import config as untyped_config
from numba.core import serialize as untyped_serialize
from numba.core.caching import _Cache

from bigearthnet_cbir import __version__
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.provenance import PACKAGE

compiler: Any = untyped_compiler
config: Any = untyped_config
serialize: Any = untyped_serialize

ROOMS: Final = ("search", "evaluation")
"""Folders whose modules define kernels; the modules beside this one are what such modules may take from elsewhere."""

PREFIX: Final = "bigearthnet-kernels-"
KEPT_FOLDERS: Final = 3
KEPT_SECONDS: Final = 28 * 24 * 3600
"""Folders of other digests that stay, and for how long after their last use: a second checkout may still need them."""

DIGEST_BYTES: Final = 32


def sources_digest(package: Path = PACKAGE) -> str | None:
    """Return the SHA-256 of all that kernels are compiled from and with, or None where the sources cannot be read."""
    digest = hashlib.sha256()
    versions = (__version__, numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    digest.update(repr(versions).encode())
    files = sorted([*package.glob("*.py"), *(file for room in ROOMS for file in (package / room).rglob("*.py"))])
    for file in files:
        try:
            text = file.read_bytes()
        except OSError:
            return None
        digest.update(f"{file.relative_to(package).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest() if files else None


def _places() -> Iterator[Path]:
    """Yield the folders that may hold our cache, best first."""
    if config.CACHE_DIR:  # NUMBA_CACHE_DIR: whoever sets it wants nothing elsewhere
        yield Path(config.CACHE_DIR)
        return
    yield PACKAGE / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):
        yield Path(home) / "bigearthnet-cbir"
    if hasattr(os, "getuid"):
        # Other users may have made a folder of this name: what is loaded from there is run, so it must be ours alone.
        private = Path(tempfile.gettempdir()) / f"bigearthnet-cbir-{os.getuid()}"
        private.mkdir(mode=0o700, exist_ok=True)
        state = private.lstat()
        if private.is_dir() and not private.is_symlink() and state.st_uid == os.getuid() and not state.st_mode & 0o077:
            yield private


@lru_cache(maxsize=1)
def kernel_folder() -> Path | None:
    """Return this process's cache folder, made where it was missing, or None where no place can be written."""
    digest = sources_digest()
    if digest is None:
        return None
    with suppress(OSError):
        for place in _places():
            folder = place / f"{PREFIX}{digest[:20]}"
            with suppress(OSError):
                new = not folder.exists()
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
                os.utime(folder)
                if new:
                    drop_old_folders(place, folder)
                return folder
    return None


def drop_old_folders(place: Path, current: Path) -> None:
    """Remove the folders of other digests, but for the few used last, none of them longer ago than some weeks."""
    others = []
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process may be removing it too
            if folder != current:
                others.append((folder.stat().st_mtime, folder))
    for rank, (used, folder) in enumerate(sorted(others, reverse=True)):
        if rank >= KEPT_FOLDERS or used < time.time() - KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


class KernelCache(_Cache):
    """The compiled signatures of one function: what a numba dispatcher asks before it compiles, and tells after."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Prepare for a function; no file is touched before the first call."""
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._line = function.__code__.co_firstlineno
        # What a closure holds is not in the sources: such a function is compiled anew in every process.
        self._enabled = function.__closure__ is None

    @property
    def cache_path(self) -> str | None:
        """The folder as numba's statistics show it."""
        folder = kernel_folder()
        return None if folder is None else str(folder)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for a signature, or None where there is none that is whole."""
        target_context.refresh()
        file = self._file(sig, target_context.codegen())
        if file is None:
            return None
        try:
            content = file.read_bytes()
        except OSError:
            return None
        kept, packed = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(packed).digest() != kept:  # a machine that stopped while it wrote
            return None
        key, reduced = pickle.loads(packed)
        if key != self._key(sig, target_context.codegen()):
            return None
        return compiler.CompileResult._rebuild(target_context, *reduced)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function; a disk that is full or read-only costs the next process time and nothing else."""
        file = self._file(sig, data.codegen)
        if file is None or data.library.has_dynamic_globals or any(not part.can_cache for part in data.lifted):
            return
        packed = serialize.dumps((self._key(sig, data.codegen), data._reduce()))
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary:
                temporary.write_bytes(hashlib.sha256(packed).digest() + packed)

    def enable(self) -> None:
        """Use the disk from now on."""
        self._enabled = True

    def disable(self) -> None:
        """Leave the disk alone from now on."""
        self._enabled = False

    def flush(self) -> None:
        """Remove what this function has on disk."""
        folder = kernel_folder()
        if folder is not None:
            for file in folder.glob(f"{self._name}-*"):
                file.unlink(missing_ok=True)

    def _key(self, sig: Any, codegen: Any) -> tuple[str, int, str, str]:
        """Return what tells entries apart: function, argument types, and the processor that they are compiled for."""
        return self._name, self._line, str(sig), repr(codegen.magic_tuple())

    def _file(self, sig: Any, codegen: Any) -> Path | None:
        folder = kernel_folder() if self._enabled else None
        if folder is None:
            return None
        return folder / f"{self._name}-{hashlib.sha256(repr(self._key(sig, codegen)).encode()).hexdigest()[:24]}"
