"""Long lists of names, pairs and labels as arrays, which forked worker processes share.

Half a million pairs as Python objects take 135 MB. Reading an object changes its reference count, so a forked worker
that iterates over such a list copies every memory page. Arrays are shared and take only the bytes of the names.
"""

from __future__ import annotations

import zlib
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import index as as_index
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.labels import CLASS_INDEX, CLASSES
from bigearthnet_cbir.types import IntArray, PatchPair


class Names(Sequence[str]):
    """An immutable sequence of names, stored as one block of UTF-8 bytes and the end position of each name."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        encoded = [name.encode() for name in names]
        self._block = b"".join(encoded)
        self._ends: npt.NDArray[np.int64] = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = _checked_row(index, len(self))
        start = self._ends[row - 1] if row else 0
        return self._block[start : self._ends[row]].decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends.tolist():
            yield self._block[start:end].decode()
            start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return self._block == other._block and np.array_equal(self._ends, other._ends)
        return _equal(self, other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Names({len(self):,} names)"


class PairList(Sequence[PatchPair]):
    """An immutable sequence of pairs; it equals a list of the same pairs, and slicing returns a list.

    Attributes:
        s2: the Sentinel-2 names.
        s1: the Sentinel-1 names, of the same length.
    """

    def __init__(self, s2: Iterable[str] = (), s1: Iterable[str] = ()) -> None:
        self.s2 = s2 if isinstance(s2, Names) else Names(s2)
        self.s1 = s1 if isinstance(s1, Names) else Names(s1)

    @classmethod
    def of(cls, pairs: Iterable[PatchPair]) -> PairList:
        """Return the pairs as a PairList, without a copy if they already are one."""
        if isinstance(pairs, PairList):
            return pairs
        kept = list(pairs)
        return cls((pair.s2 for pair in kept), (pair.s1 for pair in kept))

    def __len__(self) -> int:
        return len(self.s2)

    @overload
    def __getitem__(self, index: int) -> PatchPair: ...
    @overload
    def __getitem__(self, index: slice) -> list[PatchPair]: ...
    def __getitem__(self, index: int | slice) -> PatchPair | list[PatchPair]:
        if isinstance(index, slice):
            return list(map(PatchPair, self.s2[index], self.s1[index]))
        return PatchPair(self.s2[index], self.s1[index])

    def __iter__(self) -> Iterator[PatchPair]:
        return map(PatchPair, self.s2, self.s1)

    def __add__(self, other: Iterable[PatchPair]) -> list[PatchPair]:
        return [*self, *other]

    def __radd__(self, other: Iterable[PatchPair]) -> list[PatchPair]:
        return [*other, *self]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PairList):
            return self.s2 == other.s2 and self.s1 == other.s1
        return _equal(self, other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PairList({len(self):,} pairs)"


class LabelTable(Mapping[str, tuple[str, ...]]):
    """Patch name -> 19-class names in column order, as arrays.

    Args:
        names: unique patch names.
        masks: (N,) int32; bit c is set if the patch has class c.
    """

    def __init__(self, names: Names, masks: IntArray) -> None:
        self._names = names
        self._masks = masks
        hashes = np.fromiter((zlib.crc32(name.encode()) for name in names), np.uint32, len(names))
        self._order = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._order]

    @classmethod
    def of(cls, labels: Mapping[str, Iterable[str]]) -> LabelTable:
        """Return a mapping of 19-class names as a table."""
        masks = [sum(1 << CLASS_INDEX[label] for label in set(found)) for found in labels.values()]
        return cls(Names(labels), np.array(masks, np.int32))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> tuple[str, ...]:
        hashed = np.uint32(zlib.crc32(name.encode()))
        for slot in range(int(np.searchsorted(self._hashes, hashed)), len(self)):
            if self._hashes[slot] != hashed:
                break
            row = int(self._order[slot])
            if self._names[row] == name:
                return _classes(int(self._masks[row]))
        raise KeyError(name)

    def items(self) -> ItemsView[str, tuple[str, ...]]:
        """Return names and labels; iterating over them needs no lookup by name."""
        return _Items(self)


class _Items(ItemsView[str, tuple[str, ...]]):
    _mapping: LabelTable

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        table = self._mapping
        return zip(table._names, map(_classes, table._masks.tolist()), strict=True)


@lru_cache(maxsize=8192)
def _classes(mask: int) -> tuple[str, ...]:
    return tuple(name for column, name in enumerate(CLASSES) if mask >> column & 1)


def _checked_row(index: Any, length: int) -> int:
    row = as_index(index)
    if not -length <= row < length:
        raise IndexError(f"index {row} in a list of {length:,}")
    return row % length


def _equal(ours: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(ours) == len(other) and all(one == two for one, two in zip(ours, other, strict=True))
