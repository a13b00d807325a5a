"""Writer of patch stores: one process at a time, whole records only, never into an archive of another tool."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import lmdb

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.lmdb_check import PageChecker
from bigearthnet_cbir.data.patch_store_opening import NOT_PATCHES, close_for_process, reading
from bigearthnet_cbir.errors import DataError, summarize_names
from bigearthnet_cbir.files import LOCK_NAME, folder_lock
from bigearthnet_cbir.types import Patch

logger = logging.getLogger(__name__)

_LEAST: Final = 8192
"""Size of an empty LMDB; a smaller file was left by a process that died while creating it."""


_LOCK_FILE: Final = 8192
"""Bytes of LMDB's lock file for its 126 readers."""


class PatchWriter:
    """Writes patches to an LMDB folder as safetensors records, in one transaction per batch of records.

    A record is written whole or not at all; an interruption loses at most the last uncommitted batch. The map grows
    when it is full. The folder is locked meanwhile. Use as a context manager, which commits at the end of the block,
    also after an error.

    Args:
        path: the LMDB folder; created if missing, extended if this project wrote it.
        batch: records per transaction.
        map_size: initial size of the map in bytes, grown by doubling.

    Raises:
        DataError: the folder cannot be written, or holds an archive of another tool.
        LockedError: another process is writing to it.
    """

    def __init__(self, path: Path | str, *, batch: int = 256, map_size: int = 1 << 28) -> None:
        self.path = Path(path)
        self.batch = batch
        self._pending: dict[str, bytes] = {}
        self._replaced: set[bytes] = set()
        # A folder without our lock file may belong to another tool: check it first, so that it stays unchanged.
        is_new = not (self.path / LOCK_NAME).exists()
        if is_new:
            _refuse_other_tools(self.path)
        with ExitStack() as opened:
            try:
                opened.enter_context(folder_lock(self.path, "encode"))
                if not is_new:
                    _refuse_other_tools(self.path)
                _reserve_lock_file(self.path)
                self._environment = lmdb.open(os.path.realpath(self.path), map_size=_room(self.path, map_size))
            except (OSError, lmdb.Error) as error:
                raise DataError(f"{self.path}: cannot be written as LMDB ({error}); choose another --output") from error
            opened.callback(self._environment.close)
            self._opened = opened.pop_all()

    def __contains__(self, name: str) -> bool:
        return name in self._pending or self.record(name) is not None

    def record(self, name: str) -> bytes | None:
        """Return the existing record of a name, or None.

        Raises:
            DataError: it is a valid record of another tool.
        """
        with self._reading() as transaction:
            found: bytes | None = transaction.get(name.encode())
        if found is not None and records.origin(found) not in (records.OURS, None):
            raise _refusal(self.path, name, found)
        return found

    def write(self, name: str, patch: Patch) -> None:
        """Write one patch; raises DataError if its bands are invalid, and as write_record."""
        self.write_record(name, records.encode_record(patch.bands, patch.labels))

    def write_record(self, name: str, record: bytes) -> None:
        """Write bytes that records.encode_record made, for callers whose workers encode in parallel.

        Raises:
            DataError: the disk refuses them, or a record of another tool is there under this name.
        """
        if self.record(name) is not None:
            self._replaced.add(name.encode())
        self._pending[name] = record
        if len(self._pending) >= self.batch:
            self.commit()

    def commit(self) -> None:
        """Commit everything written so far to the disk.

        Raises:
            DataError: the disk refuses the write, or a damaged existing record cannot be replaced.
        """
        if self._replaced:
            with closing(PageChecker(self.path / "data.mdb")) as checker:
                for key in self._replaced:
                    checker.check_value(key)
        while self._pending:
            try:
                with self._environment.begin(write=True) as transaction:
                    for name, record in self._pending.items():
                        transaction.put(name.encode(), record)
                self._pending.clear()
                self._replaced.clear()
            except lmdb.MapFullError:
                size = 2 * int(self._environment.info()["map_size"])
                logger.info("%s: growing the map to %.1f GB", self.path, size / 1e9)
                self._environment.set_mapsize(size)
            except lmdb.Error as error:
                raise self._described(error, f"{summarize_names(list(self._pending), 2)} cannot be written") from error

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with self._environment.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise self._described(error, "cannot be read") from error

    def _described(self, error: lmdb.Error, what: str) -> DataError:
        if isinstance(error, lmdb.MapResizedError):
            cure = "another process is writing to this archive; wait for it, then run the same command again"
        else:
            cure = "free space on its disk, or choose another --output; committed records are kept"
        return DataError(f"{self.path}: {what} ({error}); {cure}")

    def close(self) -> None:
        """Commit, close and unlock."""
        with self._opened:
            self.commit()

    def __enter__(self) -> PatchWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _room(path: Path, least: int) -> int:
    """Return the initial map size; remove the remains of a process that died before its first commit."""
    existing = path / "data.mdb"
    if existing.exists() and existing.stat().st_size < _LEAST:
        existing.unlink()
    return max(least, 2 * existing.stat().st_size if existing.exists() else 0)


def _reserve_lock_file(path: Path) -> None:
    """Fill LMDB's lock file with zeros: LMDB maps it, and a page without disk space would kill the process."""
    with (path / "lock.mdb").open("ab") as stream:
        stream.write(bytes(max(0, _LOCK_FILE - stream.tell())))


def _refuse_other_tools(path: Path) -> None:
    """Raise DataError unless the first or the last record is of this project and neither is of another tool.

    Other records are checked before they are replaced. This process's reader is closed, because LMDB allows one
    environment per folder.
    """
    existing = path / "data.mdb"
    if not existing.exists() or existing.stat().st_size < _LEAST:
        return
    key = os.path.realpath(path)
    try:
        with reading(path, key) as snapshot:
            snapshot.checker.check_for_writing()
            with snapshot.transaction.cursor() as cursor:
                ends = list(_ends(cursor))
    finally:
        close_for_process(key)
    origins = [records.origin(record) for _, record in ends]
    for (name, record), origin in zip(ends, origins, strict=True):
        if origin not in (records.OURS, None) or records.OURS not in origins:
            raise _refusal(path, name.decode(errors="replace"), record)


def _ends(cursor: Any) -> Iterator[tuple[bytes, bytes]]:
    for start, step in ((cursor.first, cursor.next), (cursor.last, cursor.prev)):
        more = start()
        while more and bytes(cursor.key()) in NOT_PATCHES:
            more = step()
        if more:
            yield bytes(cursor.key()), bytes(cursor.value())


def _refusal(path: Path, name: str, record: bytes) -> DataError:
    kind = records.origin(record) or "records other than patches"
    return DataError(
        f"{path}: this is an archive of {kind} (see record {name[:80]}), and only archives of this project are written "
        "to; choose another --output"
    )
