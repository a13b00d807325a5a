"""Common tools of the compiled kernels: decorators, integer operations, and conversion of arrays.

All numba kernels use these decorators, whose cache is keyed by all kernel sources (`kernel_cache`). Numba's own cache
would keep using a kernel that contains an outdated function of another file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils as untyped_cgutils
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from bigearthnet_cbir.kernel_cache import KernelCache

F = TypeVar("F", bound=Callable[..., Any])

cgutils: Any = untyped_cgutils
"""Numba's helpers that write LLVM IR; it ships no types for them."""


def _compile(function: F, **options: Any) -> F:
    dispatcher = numba.njit(nogil=True, error_model="numpy", **options)(function)
    dispatcher._cache = KernelCache(function)
    return cast(F, dispatcher)


def compiled(function: F) -> F:
    """Compile with numba; the result is cached on disk and runs without the GIL."""
    return _compile(function)


def compiled_inline(function: F) -> F:
    """Like `compiled`, but always inlined into the callers; for the body of loops over pairs."""
    return _compile(function, forceinline=True)


def compiled_loosely(function: F) -> F:
    """Like `compiled`, with reordered sums (vectorised); for bounds and screens, never for results."""
    return _compile(function, fastmath=True)


def kernel_array(array: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """Return an array for the kernels: C-contiguous, aligned, in native byte order, and read-only.

    Every array that a kernel only reads is converted here, because the intrinsics access raw memory and would misread
    another layout. Arrays are read-only so that numba compiles one signature for them and for Ray's shared arrays.
    Returns a view of the input if possible, otherwise a copy.

    Args:
        array: array of any layout.
        dtype: target type; None keeps the type.
    """
    given = np.asarray(array)
    wanted = (given.dtype if dtype is None else np.dtype(dtype)).newbyteorder("=")
    view: npt.NDArray[Any] = np.require(given, wanted, ["C_CONTIGUOUS", "ALIGNED"]).view()
    view.flags.writeable = False
    return view


def require_contiguous(*arrays: Any) -> None:
    """Refuse to compile an intrinsic that accesses raw memory for an array type that is not contiguous.

    Args:
        arrays: numba types of the arguments.

    Raises:
        TypingError: an argument is not a C-contiguous, aligned array, as returned by `kernel_array`.
    """
    for kind in arrays:
        if not (isinstance(kind, numba.types.Array) and kind.layout == "C" and kind.aligned):
            raise TypingError(f"a kernel reads {kind} as raw memory; convert it with kernel_array first")


def compiles_for(feature: str) -> bool:
    """Return whether the target processor of the kernels has a feature, for example "avx2".

    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES can select a target with fewer features than the actual processor.
    """
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    told = [word for word in features.split(",") if word[1:] == feature]
    return bool(told) and told[-1].startswith("+")


def available_cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
