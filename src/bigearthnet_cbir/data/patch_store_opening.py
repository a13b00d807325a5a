"""Opening of LMDB folders: once per process, without a lock file, with validation of the pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from bigearthnet_cbir.data.lmdb_check import PageChecker
from bigearthnet_cbir.data.lmdb_head import CURE
from bigearthnet_cbir.errors import DataError, MissingDataError

NOT_PATCHES: Final = frozenset({b"__keys__", b"__len__"})
"""Keys that the original scripts add."""

_MAX_KEY: Final = 511


class _Opened(NamedTuple):
    process: int
    environment: lmdb.Environment
    checker: PageChecker

    def close(self) -> None:
        self.environment.close()
        self.checker.close()


_open: dict[str, _Opened] = {}
"""Real path of a store -> its open environment in this process."""


class Snapshot(NamedTuple):
    """A read transaction in which every lookup first validates its pages."""

    transaction: Any
    checker: PageChecker

    def get(self, key: bytes) -> memoryview | None:
        """Return a record as a view of the memory map, or None if the key is missing.

        Raises:
            DataError: a page on the path to the key is damaged.
        """
        if not 0 < len(key) <= _MAX_KEY:
            return None
        self.checker.check_key(key)
        found: memoryview | None = self.transaction.get(key)
        return found

    def names(self) -> Iterator[bytes]:
        """Yield the keys of all patches in their order; raises DataError if a page is damaged."""
        return (key for key in self.checker.every_key() if key not in NOT_PATCHES)


@contextmanager
def reading(path: Path, key: str) -> Iterator[Snapshot]:
    """Open a read transaction of a store; its views of records are valid inside the block.

    Args:
        path: the folder as given, for messages.
        key: real path of the folder.

    Raises:
        DataError: the folder is missing, not an LMDB, truncated or damaged.
    """
    opened = _opened(path, key)
    try:
        with opened.environment.begin(buffers=True) as transaction:
            opened.checker.refresh(transaction.id())
            yield Snapshot(transaction, opened.checker)
    except lmdb.Error as error:
        raise DataError(f"{path}: LMDB cannot read it ({error}); {CURE}") from error


def _opened(path: Path, key: str) -> _Opened:
    """Return the open environment of a store, opening it if needed."""
    entry = _open.get(key)
    if entry is not None and entry.process == os.getpid():
        return entry
    if entry is not None:
        # Inherited by a fork: LMDB forbids its use, and py-lmdb refuses a second one until this one is closed.
        # Closing it affects only this process's copy of the map.
        entry.close()
        del _open[key]
    if not path.exists():
        raise MissingDataError(f"{path}: there is no such LMDB; check the path in the configuration")
    if not (path / "data.mdb").is_file():
        raise DataError(f"{path}: this is not an LMDB folder (it has no data.mdb); give the folder with data.mdb")
    checker = PageChecker(path / "data.mdb")
    try:
        environment = lmdb.open(key, readonly=True, lock=False, readahead=False, meminit=False, max_spare_txns=8)
    except lmdb.Error as error:
        checker.close()
        raise DataError(f"{path}: LMDB cannot open it ({error}); is the file complete and an LMDB?") from error
    _open[key] = _Opened(os.getpid(), environment, checker)
    return _open[key]


def close_for_process(key: str) -> None:
    """Close the environment of a real path if it is open in this process; LMDB allows one per process and folder."""
    entry = _open.pop(key, None)
    if entry is not None:
        entry.close()
