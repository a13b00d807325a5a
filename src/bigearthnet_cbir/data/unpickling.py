"""An unpickler that reads the arrays in people's archives and cannot run code.

A pickle is a program: whatever it names is imported and called. Here every name resolves to an object of this module
or is refused, so NumPy itself never sees a hostile state either. Arrays come out as views of the pickled bytes.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_MODULES: Final = frozenset(f"bigearthnet_patch_interface.{name}_interface" for name in ("merged", "s1", "s2", "band"))
_DTYPES: Final = frozenset({"f4", "f8", "u1", "u2", "i8"})


class StoredArray:
    """What stands for an array while its pickle is read; `array` is None until its state has arrived."""

    def __init__(self, array: npt.NDArray[np.generic] | None = None) -> None:
        self.array = array

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if type(content) is not bytes or type(dtype) is not _StoredDtype or fortran not in (False, True):
            raise pickle.UnpicklingError("an array of plain numbers is expected")
        self.array = _view(content, dtype, shape, "F" if fortran else "C")


class StandIn:
    """What stands for an object of another package: its attributes, none of its behaviour."""

    attributes: dict[str, Any]

    def __new__(cls, *_: Any) -> StandIn:
        """Return a stand-in without attributes; a pickle makes objects without calling __init__."""
        made = super().__new__(cls)
        made.attributes = {}
        return made

    def __setstate__(self, state: Any) -> None:
        # Objects of these packages pickle as their __dict__, or as a dict that holds it under that very name.
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                inner = part.get("__dict__")
                self.attributes.update(inner if isinstance(inner, dict) else part)


class _StoredDtype:
    def __init__(self, code: Any = None, *_: Any) -> None:
        if code not in _DTYPES:
            raise pickle.UnpicklingError(f"arrays of data type {code!r} are not read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Function:
    """A callable that can hold no attribute, so that a pickle cannot leave anything behind in it."""

    __slots__ = ()


class _Reconstruct(_Function):
    """Stands for numpy.core.multiarray._reconstruct."""

    __slots__ = ()

    def __call__(self, *_: Any) -> StoredArray:
        return StoredArray()


class _FromBuffer(_Function):
    """Stands for numpy.core.numeric._frombuffer, which protocol 5 uses."""

    __slots__ = ()

    def __call__(self, content: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
        if type(dtype) is not _StoredDtype or order not in ("C", "F"):
            raise pickle.UnpicklingError("an array of plain numbers is expected")
        return StoredArray(_view(bytes(content), dtype, shape, order))


class _Latin1(_Function):
    """Stands for _codecs.encode, by which old pickle protocols store bytes."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if type(text) is not str or encoding != "latin1":
            raise pickle.UnpicklingError("bytes are expected")
        return text.encode("latin1")


def _view(content: bytes, dtype: _StoredDtype, shape: Any, order: Any) -> npt.NDArray[np.generic]:
    sides = tuple(shape)
    if any(type(side) is not int or side < 0 for side in sides):
        raise pickle.UnpicklingError(f"an array of shape {sides} does not exist")
    if len(content) != math.prod(sides) * dtype.dtype.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {sides} and {dtype.dtype} does not fit {len(content)} bytes")
    array = np.frombuffer(content, dtype.dtype).reshape(sides, order=order)
    return array.astype(dtype.dtype.newbyteorder("="), copy=False)


_KNOWN: Final[dict[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): StoredArray,
    ("numpy", "dtype"): _StoredDtype,
    ("_codecs", "encode"): _Latin1(),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct() for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer() for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return this module's stand-in for a name, or refuse it.

        Raises:
            pickle.UnpicklingError: the name is not one that an archive of patches needs.
        """
        known = _KNOWN.get((module_name, global_name))
        if known is not None:
            return known
        if module_name in _MODULES and global_name.isidentifier():
            return StandIn
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no archive of patches needs")


def unpickle(content: bytes | memoryview) -> Any:
    """Return what a pickle holds, with StoredArray and StandIn where objects stood.

    Raises:
        ValueError: the pickle is truncated, malformed, or asks for anything but arrays and patch objects.
    """
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # a malformed program can fail in any way the pickle machine knows
        raise ValueError(str(error) or type(error).__name__) from error
