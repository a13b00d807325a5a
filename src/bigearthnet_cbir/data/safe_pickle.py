"""Reads the arrays in people's pickles without unpickling: nothing is imported or called, whatever a pickle names.

A pickle is a program for a stack machine (data/pickle_machine.py). Names resolve to constants of this module or are
refused. Arrays come out as views of the pickled bytes.
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
    """Where in a pickle the values of an array lie, and what they are; order is "C" or "F"."""

    start: int
    stop: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str

    def view(self, content: bytes | memoryview) -> npt.NDArray[np.generic]:
        """Return the array in the machine's byte order; a view where the values are stored in it."""
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
        """The array, or None where its state never arrived."""
        return None if self.span is None else self.span.view(self.content)


class StandIn:
    """What stands for an object of another package: its attributes, none of its behaviour."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


class _StoredDtype:
    def __init__(self, code: Any) -> None:
        if type(code) is not str or code not in _DTYPES:
            raise RefusedError("its arrays are of another data type than patches have")
        self.dtype = np.dtype(code)


class _Name:
    """A name that pickles may use; what it does is decided here, by identity."""

    __slots__ = ()


_RECONSTRUCT, _FROM_BUFFER, _ENCODE, _NDARRAY, _DTYPE, _OBJECT = (_Name() for _ in range(6))
_KNOWN: Final[dict[tuple[str, str], _Name]] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,  # by which old pickle protocols store bytes
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FROM_BUFFER for core in ("core", "_core")},
}


def unpickle(content: bytes | memoryview) -> Any:
    """Return what a pickle of protocol 2 to 5 holds, with StoredArray and StandIn where objects stood.

    Bytes elsewhere than in an array come out as what says where they are. Whatever else the pickle holds than the bytes
    of arrays decides the course of the program; pickles that agree in it hold the same objects.

    Raises:
        ValueError: the pickle is truncated, malformed, or asks for anything but arrays and patch objects.
    """
    try:
        return Machine(content, _OPERATIONS).run()
    except RefusedError:
        raise
    except (IndexError, KeyError, TypeError, ValueError) as error:  # what a malformed program meets
        raise ValueError(f"it is malformed or cut short ({type(error).__name__})") from error


def _named(module: Any, name: Any) -> _Name:
    if type(module) is not str or type(name) is not str:
        raise TypeError("a name is expected")
    known = _KNOWN.get((module, name))
    if known is not None:
        return known
    if module in _MODULES and name.isidentifier():
        return _OBJECT
    asked = f"{module[:60]}.{name[:60]}"
    raise RefusedError(f"it asks for {asked if asked.isprintable() else 'a name'}, which no archive of patches needs")


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
        raise RefusedError("it calls what no archive of patches needs")


def _new_object(machine: Machine) -> None:
    machine.top(tuple)
    machine.stack.pop()
    if machine.stack[-1] is not _OBJECT:
        raise RefusedError("it makes an object that no archive of patches needs")
    machine.stack[-1] = StandIn()


def _build(machine: Machine) -> None:
    """Give an object its state."""
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
        # Objects of these packages pickle as their __dict__, or as a dict that holds it under that very name.
        for part in state if type(state) is tuple else (state,):
            if type(part) is dict:
                inner = part.get("__dict__")
                target.attributes.update(inner if type(inner) is dict else part)
    else:
        raise RefusedError("it gives a state to what is neither an array nor an object")


def _place(array: StoredArray, content: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
    """Say where the values of an array are and what they mean; return it."""
    if type(content) is not Bytes or type(dtype) is not _StoredDtype or type(shape) is not tuple:
        raise RefusedError("an array of plain numbers is expected")
    length = content.stop - content.start
    if len(shape) > 4 or any(type(side) is not int or not 0 <= side <= length for side in shape):
        raise RefusedError("it has an array of a shape that does not exist")
    if length != math.prod(shape) * dtype.dtype.itemsize:
        raise RefusedError(f"an array of shape {shape} and {dtype.dtype} does not fit {length} bytes")
    if type(order) is not str or order not in ("C", "F"):
        raise RefusedError("an array in rows or columns is expected")
    array.span = ArraySpan(content.start, content.stop, dtype.dtype, shape, order)
    array.content = content.content
    return array


def _global(machine: Machine) -> None:
    """Read a name as two lines of text."""
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
