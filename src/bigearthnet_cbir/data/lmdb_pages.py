"""Parser of the pages of an LMDB data file, with validation.

The layout is that of LMDB 0.9 on 64-bit machines (its mdb.c): two meta pages, then the pages of a tree of records and
of a tree of free pages. A page has a number, a type, the offsets of its nodes in key order, and the nodes.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.lmdb_head import CURE, PAGE_HEADER, Head, Tree
from bigearthnet_cbir.errors import DataError

_OVERFLOW_PAGE: Final = struct.Struct("<QHHI")  # number, padding, flags, pages
_NODE_SIZE: Final = 8  # 2-byte words; leaf: size in two, flags; branch: page in three; both: length of the key
_BRANCH, _LEAF, _OVERFLOW, _DIRTY = 1, 2, 4, 16
_ELSEWHERE: Final = 1
"""Flag of a node whose value is on overflow pages."""

_MAX_KEY: Final = 511


class Branch(NamedTuple):
    """Child pages of a branch page; keys in `pages[i]` are >= `keys[i]`, except that the first has no lower bound."""

    keys: list[bytes]
    pages: list[int]


class Leaf(NamedTuple):
    """Entries of a leaf page.

    Attributes:
        keys: keys in order; integer keys are byte-reversed.
        sizes: (n,) sizes of the values in bytes.
        pages: (n,) first overflow page of each value, 0 for a value on this page.
        values: values on this page, by entry number.
    """

    keys: list[bytes]
    sizes: npt.NDArray[np.int64]
    pages: npt.NDArray[np.int64]
    values: dict[int, bytes]


class Pages:
    """Reads and validates single pages of a tree.

    Args:
        file: descriptor of the data.mdb.
        path: path of the file, for messages.
        head: meta page of the file.
        tree: tree of the meta page.
    """

    def __init__(self, file: int, path: Path, head: Head, tree: Tree) -> None:
        self._file = file
        self._path = path
        self._head = head
        self._tree = tree

    def branch(self, page: int, low: bytes, high: bytes) -> Branch:
        """Return a branch page.

        Args:
            page: page number.
            low: lower bound of its keys (inclusive).
            high: upper bound of its keys (exclusive); empty for no bound.

        Raises:
            DataError: the page is damaged.
        """
        content, offsets, words = self._read(page, _BRANCH)
        pages = words[0] | words[1] << 16 | words[2] << 32
        if pages.min() < 2 or pages.max() > self._head.last_stored:
            self.refuse(page, "it refers to a page beyond the end of the file")
        # The first key is not read: the first child has all keys below the second key.
        keys = self._keys(page, content, offsets[1:], words[3, 1:], low, high)
        return Branch([b"", *keys], pages.tolist())

    def leaf(self, page: int, low: bytes, high: bytes) -> Leaf:
        """Return the entries of a leaf page; arguments and errors as for `branch`."""
        content, offsets, words = self._read(page, _LEAF)
        keys = self._keys(page, content, offsets, words[3], low, high)
        sizes, is_here = words[0] | words[1] << 16, words[2] == 0
        starts = offsets + _NODE_SIZE + words[3]
        if (words[2] & ~_ELSEWHERE).any() or (starts + np.where(is_here, sizes, 8)).max() > len(content):
            self.refuse(page, "an entry is not a record, or exceeds the page")
        values = {int(i): content[starts[i] : starts[i] + sizes[i]] for i in np.flatnonzero(is_here)}
        first = np.frombuffer(content, np.uint8)[np.minimum(starts[:, None] + np.arange(8), len(content) - 1)]
        pages = np.where(is_here, 0, first.view("<i8")[:, 0])
        leaf = Leaf(keys, sizes, pages, values)
        if ((pages < 2) | (pages > self._head.last_stored + 1 - self.counts(leaf)))[~is_here].any():
            self.refuse(page, "a record exceeds the end of the file")
        return leaf

    def value(self, leaf: Leaf, entry: int) -> bytes:
        """Return the value of an entry, after validating its first overflow page."""
        if not leaf.pages[entry]:
            return leaf.values[entry]
        self.held(leaf, entry)
        start = int(leaf.pages[entry]) * self._head.page_size + _OVERFLOW_PAGE.size
        return os.pread(self._file, int(leaf.sizes[entry]), start)

    def held(self, leaf: Leaf, entry: int) -> range:
        """Return the overflow pages of an entry; there may be more than needed if its value was longer before."""
        first = int(leaf.pages[entry])
        if not first:
            return range(0)
        content = os.pread(self._file, _OVERFLOW_PAGE.size, first * self._head.page_size)
        number, _, flags, count = _OVERFLOW_PAGE.unpack(content)
        last = first + count - 1
        if number != first or flags & ~_DIRTY != _OVERFLOW or count < self.counts(leaf)[entry]:
            self.refuse(first, "it is not the start of a record")
        if last > self._head.last_stored:
            self.refuse(first, "its record exceeds the end of the file")
        return range(first, last + 1)

    def counts(self, leaf: Leaf) -> npt.NDArray[np.int64]:
        """Return the number of overflow pages of each value."""
        return np.where(leaf.pages == 0, 0, -(-(leaf.sizes + _OVERFLOW_PAGE.size) // self._head.page_size))

    def refuse(self, page: int, why: str) -> NoReturn:
        """Raise DataError for a page."""
        raise DataError(f"{self._path}: page {page:,} is damaged ({why}); {CURE}")

    def _keys(
        self, page: int, content: bytes, offsets: npt.NDArray[Any], lengths: npt.NDArray[Any], low: bytes, high: bytes
    ) -> list[bytes]:
        """Return the keys at these offsets, which must be increasing and in [low, high)."""
        starts = offsets + _NODE_SIZE
        ends = starts + lengths
        if lengths.min() < 1 or lengths.max() > _MAX_KEY or ends.max() > len(content):
            self.refuse(page, "the length of a key is wrong")
        step = -1 if self._tree.integer_keys else 1
        keys = [content[start:end][::step] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        ordered = all(one < other for one, other in pairwise(keys))
        if not ordered or keys[0] < low or (high and keys[-1] >= high):
            self.refuse(page, "its keys are not in order")
        return keys

    def _read(self, page: int, kind: int) -> tuple[bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return a page, the (n,) offsets of its nodes, and (4, n) the 2-byte words that a node begins with."""
        size = self._head.page_size
        content = os.pread(self._file, size, page * size)
        if len(content) < size:
            self.refuse(page, "it is beyond the end of the file")
        number, _, flags, lower, upper = PAGE_HEADER.unpack_from(content)
        if number != page or flags & ~_DIRTY != kind:
            self.refuse(page, "it has another page number or type")
        count = (lower - PAGE_HEADER.size) // 2
        if lower % 2 or not lower <= upper <= size or count < (2 if kind == _BRANCH else 1):
            self.refuse(page, "its number of entries is wrong")
        offsets = np.frombuffer(content, "<u2", count, PAGE_HEADER.size).astype(np.int64)
        if offsets.min() < upper or offsets.max() > size - _NODE_SIZE or (offsets % 2).any():
            self.refuse(page, "an entry starts outside the page")
        words = np.frombuffer(content, "<u2")[offsets // 2 + np.arange(4)[:, None]].astype(np.int64)
        return content, offsets, words
