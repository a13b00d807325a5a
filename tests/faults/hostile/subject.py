"""What is damaged and read: a reader with sound files, and what must hold of everything that it returns."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from tests.faults.hostile.children import InvalidValueError
from tests.faults.hostile.damage import Spans


def no_spans(_: str, __: bytes) -> Spans:
    """Every byte is structure."""
    return ()


@dataclasses.dataclass(frozen=True)
class Subject:
    """One reader under test.

    Attributes:
        name: in the table.
        build: writes sound files into a folder.
        read: reads all that there is to read in it; raises CbirError where it refuses.
        check: raises InvalidValueError where a value is returned that the format could have told to be wrong.
        targets: glob of the files that are damaged.
        spans: (file name, content) -> where its structure lies.
        edit: changes a sound folder into one that is well formed and wrong, and says how; None where there is none.
        edits: share of the cases that go through `edit`.
        cost: how many cases of other readers take as long as one of this; it gets fewer of them.
    """

    name: str
    build: Callable[[Path], None]
    read: Callable[[Path], Any]
    check: Callable[[Any], None]
    targets: str = "**/*"
    spans: Callable[[str, bytes], Spans] = no_spans
    edit: Callable[[Path, Random], str] | None = None
    edits: float = 0.4
    cost: int = 1


def require(condition: object, what: str) -> None:
    """Raise InvalidValueError where a returned value is wrong."""
    if not condition:
        raise InvalidValueError(what)


def digest(value: Any) -> str:
    """Return a hash of what a reader returned: arrays and tensors by type, shape and bytes."""
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind != "O":
        array = np.ascontiguousarray(value)
        found.update(f"{array.dtype}{np.shape(value)}".encode())
        found.update(array.data)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed(found, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            found.update(repr(key).encode())
            _feed(found, value[key])
    elif isinstance(value, list | tuple | np.ndarray):
        found.update(f"{len(value)}[".encode())
        for item in value:
            _feed(found, item)
    else:
        found.update(f"{type(value).__name__}{value!r}".encode())
