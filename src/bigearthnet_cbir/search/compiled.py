"""What every compiled search kernel shares: the typed decorator, population count, read-only views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile with numba; the result is cached on disk and runs without Python's global lock."""
    return cast(F, numba.njit(cache=True, nogil=True)(function))


def compiled_loosely(function: F) -> F:
    """Like `compiled`, with sums in any order, so that they vectorise: for bounds and screens, never for results."""
    return cast(F, numba.njit(cache=True, nogil=True, fastmath=True)(function))


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
