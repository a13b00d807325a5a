"""Disk cache of compiled kernels, keyed by the content of all kernel sources.

Numba's own cache checks only the source file of a kernel. A kernel also depends on functions, constants and named
tuples of other files, so the key here is a digest of all sources. Each compiled signature is a separate file, so that
processes do not write to the same files.
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
from bigearthnet_cbir.checkout import PACKAGE
from bigearthnet_cbir.files import atomic_write

compiler: Any = untyped_compiler
config: Any = untyped_config
serialize: Any = untyped_serialize

ROOMS: Final = ("search", "evaluation")
"""Folders whose modules define kernels; they may also use the modules beside this one."""

PREFIX: Final = "bigearthnet-kernels-"
KEPT_FOLDERS: Final = 3
KEPT_SECONDS: Final = 28 * 24 * 3600
"""Number of older folders to keep, and for how long after their last use; a second checkout may need them."""

DIGEST_BYTES: Final = 32


def sources_digest(package: Path = PACKAGE) -> str | None:
    """Return the SHA-256 of all kernel sources and compiler versions, or None if the sources cannot be read."""
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
    """Yield the candidate folders of the cache, in order of preference."""
    if config.CACHE_DIR:  # NUMBA_CACHE_DIR: if set, use no other folder
        yield Path(config.CACHE_DIR)
        return
    yield PACKAGE / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):
        yield Path(home) / "bigearthnet-cbir"
    if hasattr(os, "getuid"):
        # Cached code is executed, so the folder must belong to this user: other users could create one of this name.
        private = Path(tempfile.gettempdir()) / f"bigearthnet-cbir-{os.getuid()}"
        private.mkdir(mode=0o700, exist_ok=True)
        state = private.lstat()
        if private.is_dir() and not private.is_symlink() and state.st_uid == os.getuid() and not state.st_mode & 0o077:
            yield private


@lru_cache(maxsize=1)
def kernel_folder() -> Path | None:
    """Return the cache folder of this process (created if missing), or None if no folder is writable."""
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
    """Remove the folders of other digests, except the most recently used ones of the last weeks."""
    others = []
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process may be removing it too
            if folder != current:
                others.append((folder.stat().st_mtime, folder))
    for rank, (used, folder) in enumerate(sorted(others, reverse=True)):
        if rank >= KEPT_FOLDERS or used < time.time() - KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


class KernelCache(_Cache):
    """Cache of the compiled signatures of one function, used by a numba dispatcher."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Prepare for a function; no file is accessed before the first call."""
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._line = function.__code__.co_firstlineno
        # Values of a closure are not in the sources, so such a function is compiled in every process.
        self._enabled = function.__closure__ is None

    @property
    def cache_path(self) -> str | None:
        """The folder, for numba's statistics."""
        folder = kernel_folder()
        return None if folder is None else str(folder)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for a signature, or None if there is no intact one."""
        target_context.refresh()
        file = self._file(sig, target_context.codegen())
        if file is None:
            return None
        try:
            content = file.read_bytes()
        except OSError:
            return None
        kept, packed = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(packed).digest() != kept:  # the machine stopped during a write
            return None
        key, reduced = pickle.loads(packed)
        if key != self._key(sig, target_context.codegen()):
            return None
        return compiler.CompileResult._rebuild(target_context, *reduced)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store a compiled function; write errors are ignored, and the next process compiles again."""
        file = self._file(sig, data.codegen)
        if file is None or data.library.has_dynamic_globals or any(not part.can_cache for part in data.lifted):
            return
        packed = serialize.dumps((self._key(sig, data.codegen), data._reduce()))
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as temporary:
                temporary.write_bytes(hashlib.sha256(packed).digest() + packed)

    def enable(self) -> None:
        """Enable the disk cache."""
        self._enabled = True

    def disable(self) -> None:
        """Disable the disk cache."""
        self._enabled = False

    def flush(self) -> None:
        """Remove the files of this function."""
        folder = kernel_folder()
        if folder is not None:
            for file in folder.glob(f"{self._name}-*"):
                file.unlink(missing_ok=True)

    def _key(self, sig: Any, codegen: Any) -> tuple[str, int, str, str]:
        """Return the key of an entry: function, argument types, and target processor."""
        return self._name, self._line, str(sig), repr(codegen.magic_tuple())

    def _file(self, sig: Any, codegen: Any) -> Path | None:
        folder = kernel_folder() if self._enabled else None
        if folder is None:
            return None
        return folder / f"{self._name}-{hashlib.sha256(repr(self._key(sig, codegen)).encode()).hexdigest()[:24]}"
