"""Interpreter of the pickle operations that patch archives use; it imports, calls and executes nothing.

Time and memory are bounded for any input: lengths are compared with the available bytes before memory is allocated, the
number of operations is limited, and only text is hashed. Byte strings are not copied. data/safe_pickle.py resolves the
names in a pickle.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

_MOST_OPERATIONS: Final = 20_000
"""The largest known records (both sensors with metadata) need about 1,000."""

_MOST_ARRAYS: Final = 100
_MOST_PLACES: Final = 20_000
_STOP, _BYTE, _SHORT_TEXT, _MEMOIZE, _GET = ord("."), ord("K"), 0x8C, 0x94, ord("h")


Operation = Callable[["Machine"], Any]


class RefusedError(ValueError):
    """The pickle uses something that no patch archive needs."""


class Bytes(NamedTuple):
    """Position of a byte string in the pickle."""

    content: bytes | memoryview
    start: int
    stop: int


class Machine:
    """Stack, memo and position of the interpreter.

    Args:
        content: the pickle.
        operations: 256 operations by code, from `operations`.
    """

    __slots__ = ("_arrays", "_operations", "at", "content", "marks", "memory", "stack")

    def __init__(self, content: bytes | memoryview, operations: list[Operation]) -> None:
        self.content = content
        self._operations = operations
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}
        self._arrays = 0

    def run(self) -> Any:
        """Return the top of the stack when the pickle stops.

        Raises:
            RefusedError: the pickle is truncated, too long, or has an unsupported operation.
            IndexError, KeyError, TypeError, ValueError: it is malformed in another way.
        """
        content, stack, memory, operations = self.content, self.stack, self.memory, self._operations
        for _ in range(_MOST_OPERATIONS):
            at = self.at
            code = content[at]
            self.at = at + 1
            # Four of five operations are among these; inlining them halves the time.
            if code == _MEMOIZE:
                memory[len(memory)] = stack[-1]
            elif code == _GET:
                stack.append(memory[content[at + 1]])
                self.at = at + 2
            elif code == _SHORT_TEXT:
                self.at = at + 2 + content[at + 1]
                stack.append(str(content[at + 2 : self.at], "utf-8"))
            elif code == _BYTE:
                stack.append(content[at + 1])
                self.at = at + 2
            elif code == _STOP:
                return stack.pop()
            else:
                operations[code](self)
        raise RefusedError(f"it has more than {_MOST_OPERATIONS:,} operations")

    def skip(self, length: int) -> int:
        """Advance by a length and return the position before."""
        start, self.at = self.at, self.at + length
        if self.at > len(self.content):
            raise RefusedError("it is truncated")
        return start

    def take(self, length: int) -> bytes:
        """Return the next bytes of the pickle."""
        start = self.skip(length)
        return bytes(self.content[start : self.at])

    def number(self, width: int) -> int:
        """Return the next unsigned number of the pickle."""
        return int.from_bytes(self.take(width), "little")

    def to_mark(self) -> list[Any]:
        """Pop all values above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        """Return the top of the stack, which must have this type."""
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"{kind.__name__} is expected")
        return self.stack[-1]

    def count_array(self) -> None:
        """Refuse more arrays than any record has, because each may need a copy."""
        self._arrays += 1
        if self._arrays > _MOST_ARRAYS:
            raise RefusedError(f"it has more than {_MOST_ARRAYS} arrays")


def _memorize(machine: Machine, index: int) -> None:
    if index > _MOST_PLACES:
        raise RefusedError("it needs more memory than any patch archive")
    machine.memory[index] = machine.stack[-1]


def _set_items(machine: Machine, items: list[Any]) -> None:
    target = machine.top(dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str:
            raise TypeError("text is expected as a key")
        target[key] = value


def _extend(machine: Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)


def _pack(machine: Machine, count: int) -> None:
    """Replace the top values of the stack by a tuple."""
    items = tuple(machine.stack[-count:])
    if len(items) < count:
        raise IndexError("the stack is empty")
    machine.stack[-count:] = [items]


def pop_pair(machine: Machine) -> list[Any]:
    """Pop two values, in the order in which they were pushed."""
    value, key = machine.stack.pop(), machine.stack.pop()
    return [key, value]


def _get(width: int) -> Operation:
    return lambda machine: machine.stack.append(machine.memory[machine.number(width)])


def _put(width: int) -> Operation:
    return lambda machine: _memorize(machine, machine.number(width))


def _text(width: int) -> Operation:
    return lambda machine: machine.stack.append(machine.take(machine.number(width)).decode())


def _bytes(width: int) -> Operation:
    def operation(machine: Machine) -> None:
        start = machine.skip(machine.number(width))
        machine.stack.append(Bytes(machine.content, start, machine.at))

    return operation


def _integer(width: int, *, signed: bool) -> Operation:
    return lambda machine: machine.stack.append(int.from_bytes(machine.take(width), "little", signed=signed))


def _constant(value: Any) -> Operation:
    return lambda machine: machine.stack.append(value)


def _unknown(machine: Machine) -> None:
    code = machine.content[machine.at - 1]
    raise RefusedError(f"it has the operation {code:#04x}, which no patch archive needs")


def _frame(machine: Machine) -> None:
    if machine.number(8) > len(machine.content) - machine.at:
        raise RefusedError("it is truncated")


_SET: Final = object()  # the content of sets is not used
_BY_CODE: Final[dict[int | bytes, Operation]] = {
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
    0x8A: lambda machine: machine.stack.append(int.from_bytes(machine.take(machine.number(1)), "little", signed=True)),
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
    b"s": lambda machine: _set_items(machine, pop_pair(machine)),
    b"u": lambda machine: _set_items(machine, machine.to_mark()),
    0x8F: _constant(_SET),
    0x90: lambda machine: machine.to_mark(),  # into the set
    b"q": _put(1),
    b"r": _put(4),
    b"j": _get(4),
}


def operations(more: Mapping[int, Operation]) -> list[Operation]:
    """Return the operations of this module and the given ones, by code; any other code is refused."""
    by_code = {code if isinstance(code, int) else code[0]: operation for code, operation in _BY_CODE.items()} | {**more}
    return [by_code.get(code, _unknown) for code in range(256)]
