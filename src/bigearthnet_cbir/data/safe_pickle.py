"""Reader of arrays in pickles without unpickling: nothing is imported or called.

data/pickle_machine.py interprets the operations. Names in the pickle resolve to constants of this module or are
refused. Arrays are returned as views of the pickled bytes.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.pickle_machine import Bytes, Machine, RefusedError, operations, pop_pair

_MODULES: Final = frozenset(f"bigearthnet_patch_interface.{name}_interface" for name in ("merged", "s1", "s2", "band"))
_DTYPES: Final = frozenset({"f4", "f8", "u1", "u2", "i8"})


class ArraySpan(NamedTuple):
    """Position, data type and shape of an array in a pickle; order is "C" or "F"."""

    start: int
    stop: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str

    def view(self, content: bytes | memoryview) -> npt.NDArray[np.generic]:
        """Return the array in native byte order; a view if it is stored in native byte order."""
        count = (self.stop - self.start) // self.dtype.itemsize
        array = np.frombuffer(content, self.dtype, count, self.start).reshape(self.shape, order=self.order)  # type: ignore[call-overload]
        return array.astype(self.dtype.newbyteorder("="), copy=False)  # type: ignore[no-any-return]


class StoredArray:
    """What stands for an array while its pickle is read.

    Attributes:
        span: of its values, None until its state has arrived.
        content: what it is a span of: the pickle, or bytes that old protocols store as text.
    """

    def __init__(self) -> None:
        self.span: ArraySpan | None = None
        self.content: bytes | memoryview = b""

    @property
    def array(self) -> npt.NDArray[np.generic] | None:
        """The array, or None if the pickle has no state for it."""
        return None if self.span is None else self.span.view(self.content)


class StandIn:
    """Placeholder of an object of another package: its attributes without its methods."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


class _StoredDtype:
    def __init__(self, code: Any) -> None:
        if type(code) is not str or code not in _DTYPES:
            raise RefusedError("its arrays have a data type that patches do not have")
        self.dtype = np.dtype(code)


class _Name:
    """A name that pickles may use; this module interprets it by identity."""

    __slots__ = ()


_RECONSTRUCT, _FROM_BUFFER, _ENCODE, _NDARRAY, _DTYPE, _OBJECT = (_Name() for _ in range(6))
_KNOWN: Final[dict[tuple[str, str], _Name]] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,  # used by old pickle protocols to store bytes
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FROM_BUFFER for core in ("core", "_core")},
}


def unpickle(content: bytes | memoryview) -> Any:
    """Return the content of a pickle of protocol 2 to 5, with StoredArray and StandIn in place of objects.

    Byte strings outside arrays are returned as their position. The bytes outside the arrays determine the structure;
    pickles with equal bytes there have the same structure.

    Raises:
        ValueError: the pickle is truncated, malformed, or has anything other than arrays and patch objects.
    """
    try:
        return Machine(content, _OPERATIONS).run()
    except RefusedError:
        raise
    except (IndexError, KeyError, TypeError, ValueError) as error:  # raised for malformed pickles
        raise ValueError(f"it is malformed or truncated ({type(error).__name__})") from error


def _named(module: Any, name: Any) -> _Name:
    if type(module) is not str or type(name) is not str:
        raise TypeError("a name is expected")
    known = _KNOWN.get((module, name))
    if known is not None:
        return known
    if module in _MODULES and name.isidentifier():
        return _OBJECT
    asked = f"{module[:60]}.{name[:60]}"
    raise RefusedError(f"it uses {asked if asked.isprintable() else 'a name'}, which no patch archive needs")


def _reduce(machine: Machine) -> None:
    arguments = machine.top(tuple)
    machine.stack.pop()
    called = machine.stack[-1]
    if called is _DTYPE:
        machine.stack[-1] = _StoredDtype(arguments[0])
        return
    machine.count_array()
    if called is _RECONSTRUCT:
        machine.stack[-1] = StoredArray()
    elif called is _FROM_BUFFER:
        content, dtype, shape, order = arguments
        machine.stack[-1] = _place(StoredArray(), content, dtype, shape, order)
    elif called is _ENCODE and len(arguments) == 2 and arguments[1] == "latin1" and type(arguments[0]) is str:
        encoded = arguments[0].encode("latin1")
        machine.stack[-1] = Bytes(encoded, 0, len(encoded))
    else:
        raise RefusedError("it has a call that no patch archive needs")


def _new_object(machine: Machine) -> None:
    machine.top(tuple)
    machine.stack.pop()
    if machine.stack[-1] is not _OBJECT:
        raise RefusedError("it has an object that no patch archive needs")
    machine.stack[-1] = StandIn()


def _build(machine: Machine) -> None:
    """Set the state of an object."""
    state, target = machine.stack.pop(), machine.stack[-1]
    if type(target) is StoredArray:
        _, shape, dtype, is_fortran, content = state
        if type(is_fortran) is not bool:
            raise TypeError("true or false is expected")
        machine.count_array()
        _place(target, content, dtype, shape, "F" if is_fortran is True else "C")
    elif type(target) is _StoredDtype:
        if type(state) is tuple and type(state[1]) is str and state[1] == ">":
            target.dtype = target.dtype.newbyteorder(">")
    elif type(target) is StandIn:
        # Objects of these packages pickle as their __dict__, or as a dict with the key "__dict__".
        for part in state if type(state) is tuple else (state,):
            if type(part) is dict:
                inner = part.get("__dict__")
                target.attributes.update(inner if type(inner) is dict else part)
    else:
        raise RefusedError("it sets the state of something other than an array or an object")


def _place(array: StoredArray, content: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
    """Set position, data type and shape of an array; return the array."""
    if type(content) is not Bytes or type(dtype) is not _StoredDtype or type(shape) is not tuple:
        raise RefusedError("an array of plain numbers is expected")
    length = content.stop - content.start
    if len(shape) > 4 or any(type(side) is not int or not 0 <= side <= length for side in shape):
        raise RefusedError("it has an array of an invalid shape")
    if length != math.prod(shape) * dtype.dtype.itemsize:
        raise RefusedError(f"an array of shape {shape} and {dtype.dtype} does not fit {length} bytes")
    if type(order) is not str or order not in ("C", "F"):
        raise RefusedError("an array in C or Fortran order is expected")
    array.span = ArraySpan(content.start, content.stop, dtype.dtype, shape, order)
    array.content = content.content
    return array


def _global(machine: Machine) -> None:
    """Read a name stored as two lines of text."""
    parts = []
    for _ in range(2):
        line = bytes(machine.content[machine.at : machine.at + 200]).split(b"\n")[0]
        parts.append(line.decode())
        machine.skip(len(line) + 1)
    machine.stack.append(_named(*parts))


def _stack_global(machine: Machine) -> None:
    machine.stack.append(_named(*pop_pair(machine)))


_OPERATIONS: Final = operations(
    {ord("c"): _global, 0x93: _stack_global, ord("R"): _reduce, 0x81: _new_object, ord("b"): _build}
)
