"""Validation of the pages of an LMDB archive before LMDB reads them.

LMDB has no checksums. An offset beyond a page or a page number beyond the file kills the process, and keys out of
order hide records. Each page of the tree is validated once, at the first lookup of a key on it, so that an archive of
any size opens immediately.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.lmdb_head import CURE, Tree, read_head
from bigearthnet_cbir.data.lmdb_pages import Branch, Leaf, Pages
from bigearthnet_cbir.errors import DataError


class PageChecker:
    """Validates the pages of one data.mdb, each page once.

    Args:
        path: path of the data.mdb.

    Raises:
        DataError: a meta page is damaged or has another layout, or the file is truncated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._start()
        except BaseException:
            os.close(self._file)
            raise

    def _start(self) -> None:
        self.head = read_head(self._file, self._path)
        self._pages = Pages(self._file, self._path, self.head, self.head.records)
        self._branches: dict[int, Branch] = {}
        self._leaves: set[int] = set()
        self._is_whole = False
        if self.head.last_stored < self.head.last_page:
            self._check_end()

    def _check_end(self) -> None:
        """Raise DataError if a page beyond the end of the file is in use: LMDB would die of it.

        LMDB does not write the pages that one transaction takes and gives back. Those at the end of the file are free,
        but not in the file.
        """
        try:
            free = np.concatenate([np.empty(0, np.int64), *self._free_lists()])
        except DataError:  # the list itself may be beyond the end
            free = np.empty(0, np.int64)
        free = np.unique(free[(free > self.head.last_stored) & (free <= self.head.last_page)])
        if len(free) < self.head.last_page - self.head.last_stored:
            size, needed = os.fstat(self._file).st_size, (self.head.last_page + 1) * self.head.page_size
            raise DataError(f"{self._path}: truncated ({size:,} of {needed:,} bytes); {CURE}")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def refresh(self, transaction: int) -> None:
        """Forget the checked pages if the file has a new transaction."""
        if transaction != self.head.transaction:
            self._start()

    def check_key(self, key: bytes) -> None:
        """Validate the pages on the path to a key, which need not exist; raise DataError if one is damaged."""
        if not self._is_whole:
            self._leaf_of(key)

    def check_value(self, key: bytes) -> None:
        """Also validate the first overflow page of the value, which has the number of pages that LMDB frees with it.

        Raises:
            DataError: a page is damaged, or one of the pages to be freed is in use elsewhere.
        """
        leaf = self._leaf_of(key, again=True)
        if leaf is None or key not in leaf.keys:
            return
        entry = leaf.keys.index(key)
        held, needed = self._pages.held(leaf, entry), int(self._pages.counts(leaf)[entry])
        if len(held) > needed and np.isin(held[needed:], self._used_pages()).any():
            self._pages.refuse(held[0], "it claims pages that are used elsewhere")

    def check_all(self) -> None:
        """Validate every page of the tree of records; raises DataError as `every_key` does."""
        if not self._is_whole:
            for _ in self.every_key():
                pass

    def check_for_writing(self) -> None:
        """Validate both trees, and that no page is used twice, because LMDB would overwrite existing records.

        Raises:
            DataError: a page is damaged or used twice.
        """
        numbers = self._used_pages()
        if len(np.unique(numbers)) < len(numbers) or int(numbers.max()) > self.head.last_page:
            raise DataError(f"{self._path}: one of its pages is used twice; {CURE}")

    def _used_pages(self) -> npt.NDArray[np.int64]:
        """Return the numbers of all pages in a tree, with a value or in the free list; one entry per use."""
        used: list[npt.NDArray[np.int64]] = [np.array([0, 1])]
        for tree in (self.head.records, self.head.free):
            pages = Pages(self._file, self._path, self.head, tree)
            visited: set[int] = set()
            for leaf in self._walk(tree, pages, visited):
                counts = pages.counts(leaf)
                starts = np.repeat(leaf.pages - np.cumsum(counts) + counts, counts)
                used.append(starts + np.arange(len(starts)))
            used.append(np.fromiter(visited, np.int64))
        return np.concatenate([*used, *self._free_lists()])

    def _free_lists(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the page numbers of each entry of the tree of free pages; raises DataError where it is damaged."""
        pages = Pages(self._file, self._path, self.head, self.head.free)
        for leaf in self._walk(self.head.free, pages, set()):
            yield from (self._free_pages(pages.value(leaf, entry)) for entry in range(len(leaf.keys)))

    def every_key(self) -> Iterator[bytes]:
        """Yield every key in order, after validating its page.

        Raises:
            DataError: a page is damaged, or the number of keys differs from the meta page.
        """
        number = 0
        for leaf in self._walk(self.head.records, self._pages, set()):
            number += len(leaf.keys)
            yield from leaf.keys
        if number != self.head.records.entries:
            wanted = self.head.records.entries
            raise DataError(f"{self._path}: {number:,} records, but its meta page has {wanted:,}; {CURE}")
        self._is_whole = True

    def _walk(self, tree: Tree, pages: Pages, visited: set[int]) -> Iterator[Leaf]:
        """Yield the entries of every leaf of a tree, in order."""
        left = [] if tree.root is None else [(tree.root, b"", b"", tree.depth)]
        while left:
            page, low, high, level = left.pop()
            if page in visited:
                pages.refuse(page, "the tree refers to it twice")
            visited.add(page)
            if level == 1:
                yield pages.leaf(page, low, high)
                continue
            branch = pages.branch(page, low, high)
            starts, ends = [low, *branch.keys[1:]], [*branch.keys[1:], high]
            left += [(*part, level - 1) for part in zip(branch.pages, starts, ends, strict=True)][::-1]

    def _leaf_of(self, key: bytes, *, again: bool = False) -> Leaf | None:
        """Validate the pages on the path to a key; return the leaf if it was read (again)."""
        page, low, high = self.head.records.root, b"", b""
        if page is None:
            return None
        for _ in range(self.head.records.depth - 1):
            branch = self._branches.get(page)
            if branch is None:
                branch = self._branches[page] = self._pages.branch(page, low, high)
            child = bisect_right(branch.keys, key) - 1
            low = branch.keys[child] or low
            high = branch.keys[child + 1] if child + 1 < len(branch.keys) else high
            page = branch.pages[child]
        if page in self._leaves and not again:
            return None
        leaf = self._pages.leaf(page, low, high)
        self._leaves.add(page)
        return leaf

    def _free_pages(self, content: bytes) -> npt.NDArray[np.int64]:
        """Return the page numbers of an entry of the free list: a count, then the numbers in descending order."""
        numbers = np.frombuffer(content[: len(content) // 8 * 8], np.int64)
        count = int(numbers[0]) if len(numbers) else -1
        listed = numbers[1 : max(count, 0) + 1]
        if count != len(listed) or (listed[1:] >= listed[:-1]).any() or (listed < 2).any():
            raise DataError(f"{self._path}: its list of free pages is damaged; {CURE}")
        return listed
