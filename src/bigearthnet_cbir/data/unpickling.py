"""Reads the arrays in people's pickles without unpickling: no name is imported, nothing is called or allocated for it.

A pickle is a program for a stack machine. This one knows the operations that archives of patches need, and runs a
bounded number of them. Names resolve to constants of this module or are refused; a length that a pickle claims is
compared with the bytes that are there before anything is made of it; of its values only text is hashed and printed.
Arrays come out as views of the pickled bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_MODULES: Final = frozenset(f"bigearthnet_patch_interface.{name}_interface" for name in ("merged", "s1", "s2", "band"))
_DTYPES: Final = frozenset({"f4", "f8", "u1", "u2", "i8"})
_MOST_OPERATIONS: Final = 20_000
"""The largest records known, of both sensors with metadata, take some 1,000."""

_MOST_ARRAYS: Final = 100
_MOST_PLACES: Final = 20_000


class _RefusedError(ValueError):
    """The pickle wants what no archive of patches needs."""


class StoredArray:
    """What stands for an array while its pickle is read; `array` is None until its state has arrived."""

    def __init__(self, array: npt.NDArray[np.generic] | None = None) -> None:
        self.array = array


class StandIn:
    """What stands for an object of another package: its attributes, none of its behaviour."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


class _StoredDtype:
    def __init__(self, code: Any) -> None:
        if type(code) is not str or code not in _DTYPES:
            raise _RefusedError("its arrays are of another data type than patches have")
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


def unpickle(content: bytes) -> Any:
    """Return what a pickle of protocol 2 to 5 holds, with StoredArray and StandIn where objects stood.

    Raises:
        ValueError: the pickle is truncated, malformed, or asks for anything but arrays and patch objects.
    """
    try:
        return _Machine(content).run()
    except _RefusedError:
        raise
    except (IndexError, KeyError, TypeError, ValueError) as error:  # what a malformed program meets
        raise ValueError(f"it is malformed or cut short ({type(error).__name__})") from error


class _Machine:
    """The stack, the memory and the place in the program."""

    __slots__ = ("_arrays", "at", "content", "marks", "memory", "stack")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}
        self._arrays = 0

    def run(self) -> Any:
        """Return what is on top of the stack when the program stops."""
        content, stack, memory, operations = self.content, self.stack, self.memory, _OPERATIONS
        for _ in range(_MOST_OPERATIONS):
            at = self.at
            code = content[at]
            self.at = at + 1
            # Four of five operations are one of these; called like the others they would take twice the time.
            if code == _MEMOIZE:
                memory[len(memory)] = stack[-1]
            elif code == _GET:
                stack.append(memory[content[at + 1]])
                self.at = at + 2
            elif code == _SHORT_TEXT:
                self.at = at + 2 + content[at + 1]
                stack.append(content[at + 2 : self.at].decode())
            elif code == _BYTE:
                stack.append(content[at + 1])
                self.at = at + 2
            elif code == _STOP:
                return stack.pop()
            else:
                operations[code](self)
        raise _RefusedError(f"it takes more than {_MOST_OPERATIONS:,} operations")

    def take(self, length: int) -> bytes:
        """Return the next bytes of the program."""
        start, self.at = self.at, self.at + length
        if self.at > len(self.content):
            raise _RefusedError("it is cut short")
        return self.content[start : self.at]

    def number(self, width: int) -> int:
        """Return the next unsigned number of the program."""
        return int.from_bytes(self.take(width), "little")

    def to_mark(self) -> list[Any]:
        """Take what was put on the stack since the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        """Return the top of the stack, which must be of a type."""
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"{kind.__name__} is expected")
        return self.stack[-1]

    def new_array(self, array: npt.NDArray[np.generic] | None = None) -> StoredArray:
        """Return one of a limited number of arrays."""
        self._arrays += 1
        if self._arrays > _MOST_ARRAYS:
            raise _RefusedError(f"it makes more than {_MOST_ARRAYS} arrays")
        return StoredArray(array)


def _named(module: Any, name: Any) -> _Name:
    if type(module) is not str or type(name) is not str:
        raise TypeError("a name is expected")
    known = _KNOWN.get((module, name))
    if known is not None:
        return known
    if module in _MODULES and name.isidentifier():
        return _OBJECT
    asked = f"{module[:60]}.{name[:60]}"
    raise _RefusedError(f"it asks for {asked if asked.isprintable() else 'a name'}, which no archive of patches needs")


def _reduce(machine: _Machine) -> None:
    arguments = machine.top(tuple)
    machine.stack.pop()
    called = machine.stack[-1]
    if called is _RECONSTRUCT:
        machine.stack[-1] = machine.new_array()
    elif called is _FROM_BUFFER:
        content, dtype, shape, order = arguments
        machine.stack[-1] = machine.new_array(_view(content, dtype, shape, order))
    elif called is _DTYPE:
        machine.stack[-1] = _StoredDtype(arguments[0])
    elif called is _ENCODE and len(arguments) == 2 and arguments[1] == "latin1" and type(arguments[0]) is str:
        machine.new_array()  # as costly as an array
        machine.stack[-1] = arguments[0].encode("latin1")
    else:
        raise _RefusedError("it calls what no archive of patches needs")


def _new_object(machine: _Machine) -> None:
    machine.top(tuple)
    machine.stack.pop()
    if machine.stack[-1] is not _OBJECT:
        raise _RefusedError("it makes an object that no archive of patches needs")
    machine.stack[-1] = StandIn()


def _build(machine: _Machine) -> None:
    """Give an object its state."""
    state, target = machine.stack.pop(), machine.stack[-1]
    if type(target) is StoredArray:
        _, shape, dtype, is_fortran, content = state
        target.array = _view(content, dtype, shape, "F" if is_fortran is True else "C")
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
        raise _RefusedError("it gives a state to what is neither an array nor an object")


def _view(content: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[np.generic]:
    if type(content) not in (bytes, bytearray) or type(dtype) is not _StoredDtype or type(shape) is not tuple:
        raise _RefusedError("an array of plain numbers is expected")
    if len(shape) > 4 or any(type(side) is not int or not 0 <= side <= len(content) for side in shape):
        raise _RefusedError("it has an array of a shape that does not exist")
    if len(content) != math.prod(shape) * dtype.dtype.itemsize:
        raise _RefusedError(f"an array of shape {shape} and {dtype.dtype} does not fit {len(content)} bytes")
    if type(order) is not str or order not in ("C", "F"):
        raise _RefusedError("an array in rows or columns is expected")
    array = np.frombuffer(bytes(content), dtype.dtype).reshape(shape, order=order)  # type: ignore[call-overload]
    return array.astype(dtype.dtype.newbyteorder("="), copy=False)  # type: ignore[no-any-return]


def _memorize(machine: _Machine, place: int) -> None:
    if place > _MOST_PLACES:
        raise _RefusedError("it wants more memory than any archive of patches needs")
    machine.memory[place] = machine.stack[-1]


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.top(dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str:
            raise TypeError("text is expected as a key")
        target[key] = value


def _extend(machine: _Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)


def _pack(machine: _Machine, count: int) -> None:
    """Make a tuple of the top of the stack."""
    items = tuple(machine.stack[-count:])
    if len(items) < count:
        raise IndexError("the stack is empty")
    machine.stack[-count:] = [items]


def _pop_pair(machine: _Machine) -> list[Any]:
    value, key = machine.stack.pop(), machine.stack.pop()
    return [key, value]


def _global(machine: _Machine) -> None:
    """Read a name as two lines of text."""
    parts = []
    for _ in range(2):
        end = machine.content.index(b"\n", machine.at, machine.at + 200)
        parts.append(machine.take(end - machine.at).decode())
        machine.at += 1
    machine.stack.append(_named(*parts))


def _stack_global(machine: _Machine) -> None:
    machine.stack.append(_named(*_pop_pair(machine)))


def _get(width: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.memory[machine.number(width)])


def _put(width: int) -> Callable[[_Machine], None]:
    return lambda machine: _memorize(machine, machine.number(width))


def _text(width: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.take(machine.number(width)).decode("utf-8", "surrogatepass"))


def _bytes(width: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.take(machine.number(width)))


def _integer(width: int, *, signed: bool) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(int.from_bytes(machine.take(width), "little", signed=signed))


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(value)


def _unknown(machine: _Machine) -> None:
    code = machine.content[machine.at - 1]
    raise _RefusedError(f"it has the operation {code:#04x}, which no archive of patches needs")


def _frame(machine: _Machine) -> None:
    if machine.number(8) > len(machine.content) - machine.at:
        raise _RefusedError("it is cut short")


_SET: Final = _Name()  # what is in a set is not needed
_STOP, _BYTE, _SHORT_TEXT, _MEMOIZE, _GET = ord("."), ord("K"), 0x8C, 0x94, ord("h")
_OPERATIONS: Final[list[Callable[[_Machine], Any]]] = [_unknown] * 256
_BY_CODE: Final[dict[int | bytes, Callable[[_Machine], Any]]] = {
    0x80: lambda machine: machine.take(1),  # protocol
    0x95: _frame,
    b"(": lambda machine: machine.marks.append(len(machine.stack)),
    b"0": lambda machine: machine.stack.pop(),
    b"1": lambda machine: machine.to_mark(),
    b"N": _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    b"M": _integer(2, signed=False),
    b"J": _integer(4, signed=True),
    0x8A: lambda machine: machine.stack.append(
        int.from_bytes(machine.take(machine.number(1)), "little", signed=True)
    ),
    b"G": lambda machine: machine.stack.append(struct.unpack(">d", machine.take(8))[0]),
    b"X": _text(4),
    0x8D: _text(8),
    b"C": _bytes(1),
    b"B": _bytes(4),
    0x8E: _bytes(8),
    0x96: _bytes(8),  # a bytearray
    b")": _constant(()),
    0x85: lambda machine: _pack(machine, 1),
    0x86: lambda machine: _pack(machine, 2),
    0x87: lambda machine: _pack(machine, 3),
    b"t": lambda machine: machine.stack.append(tuple(machine.to_mark())),
    b"]": lambda machine: machine.stack.append([]),
    b"a": lambda machine: _extend(machine, [machine.stack.pop()]),
    b"e": lambda machine: _extend(machine, machine.to_mark()),
    b"}": lambda machine: machine.stack.append({}),
    b"s": lambda machine: _set_items(machine, _pop_pair(machine)),
    b"u": lambda machine: _set_items(machine, machine.to_mark()),
    0x8F: _constant(_SET),
    0x90: lambda machine: machine.to_mark(),  # into the set
    b"q": _put(1),
    b"r": _put(4),
    b"j": _get(4),
    b"c": _global,
    0x93: _stack_global,
    b"R": _reduce,
    0x81: _new_object,
    b"b": _build,
}
for _code, _operation in _BY_CODE.items():
    _OPERATIONS[_code if isinstance(_code, int) else _code[0]] = _operation
