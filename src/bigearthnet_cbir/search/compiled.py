"""What every compiled search kernel shares: the typed decorator, cores, population count, read-only views."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])


def _drop_stale_caches() -> None:
    """Remove kernels compiled before the newest of these files.

    Numba compares a cached kernel with its own source file only, and would go on using one that has an older version
    of another file's function inside.
    """
    folder = Path(__file__).parent
    newest = max(file.stat().st_mtime for file in folder.glob("*.py"))
    for index in (folder / "__pycache__").glob("*.nbi"):
        with suppress(OSError):  # another process may have removed it just now, or the folder is not ours to write
            if index.stat().st_mtime < newest:
                index.unlink()


_drop_stale_caches()


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compiled(function: F) -> F:
    """Compile with numba; the result is cached on disk and runs without Python's global lock."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def compiled_inline(function: F) -> F:
    """Like `compiled`, and always put into the callers: for what stands inside a loop over pairs."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)(function))


def compiled_loosely(function: F) -> F:
    """Like `compiled`, with sums in any order, so that they vectorise: for bounds and screens, never for results."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)(function))


def _popcount(_context: Any, word: Any) -> Any:
    def generate(_inner: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


popcount = cast(Callable[[Any], Any], intrinsic(_popcount))
"""Number of set bits of an integer, by LLVM's ctpop, which vectorises."""


def _trailing_zeros(_context: Any, word: Any) -> Any:
    def generate(_inner: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return word(word), generate


trailing_zeros = cast(Callable[[Any], Any], intrinsic(_trailing_zeros))
"""Position of the lowest set bit of an integer that is not 0."""


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a C-contiguous read-only view: numba compiles once for our arrays and for Ray's shared ones."""
    view: npt.NDArray[Any] = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
