"""The two heads of an LMDB data file: checked, and the newer one read.

The layout is that of LMDB 0.9 on 64-bit machines (its mdb.c).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from bigearthnet_cbir.errors import DataError

CURE: Final = "copy or download the archive again, or encode it again"
PAGE_HEADER: Final = struct.Struct("<QHHHH")  # number, padding, flags, ends of the offsets and of the free space
_TREE: Final = struct.Struct("<IHHQQQQQ")  # padding, flags, depth, pages of three kinds, entries, root
_HEAD: Final = struct.Struct("<II16x48s48sQQ")  # magic, version, two trees, last page, transaction
_MAGIC: Final = 0xBEEFC0DE
_META: Final = 8
_INTEGER_KEYS: Final = 8
_NO_PAGE: Final = (1 << 64) - 1
_MAX_DEPTH: Final = 16


class Tree(NamedTuple):
    """One of the two trees; root is None if it is empty. In the tree of free pages, keys are 8-byte integers."""

    depth: int
    entries: int
    root: int | None
    integer_keys: bool


class Head(NamedTuple):
    """The newer of the two meta pages, which defines the state of the file.

    Attributes:
        page_size: bytes of a page.
        last_page: largest page number in use or free.
        last_stored: largest number of a page that is completely in the file, at most last_page.
        transaction: number of the last transaction.
        free: tree of the free pages.
        records: tree of the records.
    """

    page_size: int
    last_page: int
    last_stored: int
    transaction: int
    free: Tree
    records: Tree


def read_head(file: int, path: Path) -> Head:
    """Return the newer meta page, after validating all fields that LMDB uses when it opens the file.

    Raises:
        DataError: a meta page is damaged or has another layout.
    """
    first = os.pread(file, PAGE_HEADER.size + _HEAD.size, 0)
    try:
        page_size = int.from_bytes(first[40:44], "little")
        if page_size not in {1 << power for power in range(9, 17)}:
            raise ValueError("it has no LMDB meta page")
        second = os.pread(file, PAGE_HEADER.size + _HEAD.size, page_size)
        transactions = [_transaction_of(content, number) for number, content in enumerate((first, second))]
        if _parse_page_size(first) != _parse_page_size(second):
            raise ValueError("its two meta pages disagree")
        head = _parse_head((first, second)[transactions[0] < transactions[1]], os.fstat(file).st_size)
    except (struct.error, ValueError) as error:
        raise DataError(f"{path.parent}: LMDB cannot open it ({error}); is the file complete and an LMDB?") from error
    return head


def _transaction_of(content: bytes, number: int) -> int:
    """Return the transaction number of one of the two meta pages.

    A process that is killed during a commit may leave the older meta page half written with its old transaction number.
    LMDB then uses the newer one, so only its trees are relevant.
    """
    page, _, flags, _, _ = PAGE_HEADER.unpack_from(content)
    magic, version, _, _, _, transaction = _HEAD.unpack_from(content, PAGE_HEADER.size)
    if page != number or not flags & _META or (magic, version) != (_MAGIC, 1):
        raise ValueError("it has no meta page of LMDB version 1")
    return int(transaction)


def _parse_page_size(content: bytes) -> int:
    return int(_TREE.unpack(_HEAD.unpack_from(content, PAGE_HEADER.size)[2])[0])


def _parse_head(content: bytes, file_size: int) -> Head:
    _, _, free, records, last_page, transaction = _HEAD.unpack_from(content, PAGE_HEADER.size)
    trees = [_parse_tree(free, _INTEGER_KEYS, last_page), _parse_tree(records, 0, last_page)]
    if last_page < 1 or last_page >> 47:
        raise ValueError("its meta page is damaged")
    page_size = _parse_page_size(content)
    last_stored = min(last_page, file_size // page_size - 1)
    return Head(page_size, last_page, last_stored, transaction, trees[0], trees[1])


def _parse_tree(packed: bytes, wanted_flags: int, last_page: int) -> Tree:
    _, flags, depth, _, _, _, entries, root = _TREE.unpack(packed)
    is_empty = root == _NO_PAGE and depth == entries == 0
    if flags != wanted_flags:
        raise ValueError("it is not a plain archive of names and records")
    if not (is_empty or (2 <= root <= last_page and 1 <= depth <= _MAX_DEPTH and entries)):
        raise ValueError("its meta page is damaged")
    return Tree(depth, entries, None if is_empty else root, bool(flags))
