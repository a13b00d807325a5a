"""Patch stores: LMDB archives of patches, read as they are and written as safetensors records."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import lmdb
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.records import RecordKind
from bigearthnet_cbir.errors import DataError, shown
from bigearthnet_cbir.types import Patch, PatchPair

logger = logging.getLogger(__name__)

_MAX_KEY: Final = 511
_NOT_PATCHES: Final = frozenset({b"__keys__", b"__len__"})
_open: dict[str, tuple[int, lmdb.Environment]] = {}
"""Real path of a store -> process that opened it, and its environment."""
_told: set[tuple[str, RecordKind]] = set()
"""Real paths of stores whose kind is in the log."""


class PatchStore:
    """Reads patches by name from an LMDB folder, whichever of the known tools wrote it.

    The kind of archive (this project's, rico-hdl's, bigearthnet_encoder's, the original scripts') is seen from its
    records. Nothing is opened before the first read, and then once per process, however many objects share the
    folder. Objects travel to other processes by fork or pickle. No lock file is written, so read-only media work;
    nothing may write to the store meanwhile.

    Args:
        path: the LMDB folder.
        labels: patch name -> 19-class names; for a patch that is in it, they stand in for those of its record
            (rico-hdl's have none and need a metadata.parquet).
    """

    def __init__(self, path: Path | str, labels: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.path = Path(path)
        self.labels = labels
        self._key = os.path.realpath(self.path)
        self._kind: RecordKind | None = None

    @property
    def kind(self) -> RecordKind:
        """Kind of the first record. Raises DataError where the store is empty or its first record malformed."""
        if self._kind is None:
            with self._begin() as transaction, transaction.cursor() as cursor:
                for key, value in cursor:
                    if bytes(key) not in _NOT_PATCHES:
                        return self._learn(self._decode(bytes(key).decode(errors="replace"), bytes(value))[1])
            raise DataError(f"{self.path}: this archive holds no patch; encode it again")
        return self._kind

    def __len__(self) -> int:
        """Return the number of patches."""
        with self._begin() as transaction:
            extra = sum(transaction.get(key) is not None for key in _NOT_PATCHES)
            return int(transaction.stat()["entries"]) - extra

    def __contains__(self, name: str) -> bool:
        return not self.missing([name])

    def names(self) -> Iterator[str]:
        """Yield the names of all patches in key order."""
        with self._begin() as transaction, transaction.cursor() as cursor:
            for key in cursor.iternext(keys=True, values=False):
                if bytes(key) not in _NOT_PATCHES:
                    yield bytes(key).decode(errors="replace")

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of the names that the store does not hold, in their order."""
        with self._begin() as transaction, transaction.cursor() as cursor:
            return [name for name in names if not (0 < len(name) <= _MAX_KEY and cursor.set_key(name.encode()))]

    def s1_name(self, pair: PatchPair) -> str:
        """Return the key under which this store holds a pair's Sentinel-1 bands.

        A bigearthnet_encoder archive keeps both sensors under the Sentinel-2 name and knows no other.
        """
        return pair.s2 if self.kind is RecordKind.ENCODER else pair.s1

    def read(self, name: str) -> Patch:
        """Return one patch with its bands as stored (read-only arrays) and its label names, if any are known.

        Raises:
            DataError: the store cannot be opened, lacks the patch, or holds a malformed record for it.
        """
        with self._begin() as transaction:
            record = bytes(self._record(transaction, name))  # the memory map is not ours after the transaction
        return self._patch(name, record)

    @contextmanager
    def reading(self) -> Iterator[Callable[[str], Patch]]:
        """Give a `read` without a copy: its patches are views of the memory map, which end with the block."""
        with self._begin() as transaction:
            yield lambda name: self._patch(name, self._record(transaction, name))

    def read_bands(self, name: str, bands: Iterable[str]) -> list[npt.NDArray[np.generic]]:
        """Return only these bands of a patch, in this order; raises as read does, or where a band is not there."""
        found = self.read(name).bands
        try:
            return [found[band] for band in bands]
        except KeyError as error:
            raise DataError(
                f"{self.path}: record {name} has no band {error.args[0]} but {', '.join(found)}; "
                "are the two LMDB paths swapped?"
            ) from error

    def identity(self) -> dict[str, int]:
        """Return what changes whenever the archive's content does: size, time, last transaction, number of entries.

        It costs no pass over the records, so it tells a rewritten archive from the earlier one in milliseconds.
        """
        environment = _environment(self.path, self._key)
        file = (self.path / "data.mdb").stat()
        return {
            "bytes": file.st_size,
            "modified_ns": file.st_mtime_ns,
            "last_transaction": int(environment.info()["last_txnid"]),
            "entries": int(environment.stat()["entries"]),
        }

    def close(self) -> None:
        """Close the environment for the whole process; a later read opens it again."""
        entry = _open.pop(self._key, None)
        if entry is not None:
            entry[1].close()

    def __enter__(self) -> PatchStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _begin(self) -> Any:
        return _environment(self.path, self._key).begin(buffers=True)

    def _record(self, transaction: Any, name: str) -> Any:
        value = transaction.get(name.encode()) if 0 < len(name) <= _MAX_KEY else None
        if value is None:
            raise DataError(f"{self.path}: patch {name} is not in this archive; check the list of pairs")
        return value

    def _patch(self, name: str, record: bytes | memoryview) -> Patch:
        patch, kind = self._decode(name, record)
        if self._kind is None:
            self._learn(kind)
        labels = None if self.labels is None else self.labels.get(name)
        return patch if labels is None else patch._replace(labels=labels)

    def _learn(self, kind: RecordKind) -> RecordKind:
        """Remember the kind, and log it once per process however many objects share the folder."""
        self._kind = kind
        if (self._key, kind) not in _told:
            _told.add((self._key, kind))
            logger.info("%s holds %s", self.path, kind.value)
        return kind

    def _decode(self, name: str, record: bytes | memoryview) -> tuple[Patch, RecordKind]:
        try:
            return records.decode_with_kind(record)
        except DataError as error:
            raise DataError(f"{self.path}: record {name}: {error}") from error


def _environment(path: Path, key: str) -> lmdb.Environment:
    """Return this process's environment of a store, opening it where needed."""
    entry = _open.get(key)
    if entry is not None and entry[0] == os.getpid():
        return entry[1]
    if entry is not None:
        # Inherited by a fork: LMDB forbids its use here, and py-lmdb refuses a second one until this is closed,
        # which touches only this process's copy of the map.
        entry[1].close()
    if not path.exists():
        raise DataError(f"{path}: there is no such LMDB; check the path in the configuration")
    if not (path / "data.mdb").is_file():
        raise DataError(f"{path}: this is not an LMDB folder (it has no data.mdb); give the folder that holds it")
    try:
        environment = lmdb.open(key, readonly=True, lock=False, readahead=False, meminit=False, max_spare_txns=8)
    except lmdb.Error as error:
        raise DataError(f"{path}: LMDB cannot open it ({error}); is the file whole and really an LMDB?") from error
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = (path / "data.mdb").stat().st_size
    if size < needed:  # touching a page beyond the end would kill the process
        environment.close()
        raise DataError(f"{path}/data.mdb: cut short ({size:,} of {needed:,} bytes); copy or download it again")
    _open[key] = (os.getpid(), environment)
    return environment


class PatchWriter:
    """Writes patches to an LMDB folder as safetensors records, in one transaction per batch of records.

    A record is written wholly or not at all; an interrupted run loses at most the last unfinished batch. The map
    grows when it is full. Use as a context manager: leaving it commits, also when an error ends the block.

    Args:
        path: the LMDB folder; made where missing, kept and added to where it is there.
        batch: records per transaction.
        map_size: initial size of the map in bytes, grown by doubling.
    """

    def __init__(self, path: Path | str, *, batch: int = 256, map_size: int = 1 << 28) -> None:
        self.path = Path(path)
        self.batch = batch
        self._pending: dict[str, bytes] = {}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_other_kinds()
            existing = self.path / "data.mdb"
            room = max(map_size, 2 * existing.stat().st_size if existing.exists() else 0)
            self._environment = lmdb.open(os.path.realpath(self.path), map_size=room)
        except (OSError, lmdb.Error) as error:
            raise DataError(f"{self.path}: cannot be written as an LMDB ({error}); choose another --output") from error

    def _refuse_other_kinds(self) -> None:
        """Keep people's own archives as they are; also closes this process's reader, since LMDB forbids two."""
        if not (self.path / "data.mdb").exists():
            return
        with PatchStore(self.path) as store:
            if len(store) and store.kind is not RecordKind.SAFETENSORS:
                raise DataError(f"{self.path}: an archive of {store.kind.value} is here; choose another --output")

    def __contains__(self, name: str) -> bool:
        return name in self._pending or self.record(name) is not None

    def record(self, name: str) -> bytes | None:
        """Return the bytes that the store already holds under a name."""
        with self._environment.begin() as transaction:
            found = transaction.get(name.encode())
            return None if found is None else bytes(found)

    def write(self, name: str, patch: Patch) -> None:
        """Write one patch; raises DataError where its bands are not those of a patch."""
        self.write_record(name, records.encode(patch.bands, patch.labels))

    def write_record(self, name: str, record: bytes) -> None:
        """Write bytes that records.encode made, for callers whose workers encode in parallel."""
        self._pending[name] = record
        if len(self._pending) >= self.batch:
            self.commit()

    def commit(self) -> None:
        """Put everything written so far on the disk."""
        while self._pending:
            try:
                with self._environment.begin(write=True) as transaction:
                    for name, record in self._pending.items():
                        transaction.put(name.encode(), record)
                self._pending.clear()
            except lmdb.MapFullError:
                size = 2 * int(self._environment.info()["map_size"])
                logger.info("%s: growing the map to %.1f GB", self.path, size / 1e9)
                self._environment.set_mapsize(size)
            except lmdb.Error as error:
                names = shown(list(self._pending), 2)
                raise DataError(f"{self.path}: {names} cannot be written ({error}); is the disk full?") from error

    def close(self) -> None:
        """Commit and close."""
        try:
            self.commit()
        finally:
            self._environment.close()

    def __enter__(self) -> PatchWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
