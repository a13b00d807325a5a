"""Patch stores: LMDB archives of patches, read as they are, whichever of the known tools wrote them."""

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
from bigearthnet_cbir.data.patch_store_opening import NOT_PATCHES, close_for_process, open_for_reading
from bigearthnet_cbir.data.patch_store_writing import PatchWriter
from bigearthnet_cbir.data.records import RecordKind
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import Patch, PatchPair

__all__ = ["PatchStore", "PatchWriter"]

logger = logging.getLogger(__name__)

_MAX_KEY: Final = 511
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
                    if bytes(key) not in NOT_PATCHES:
                        return self._learn(self._decode(bytes(key).decode(errors="replace"), bytes(value))[1])
            raise DataError(f"{self.path}: this archive holds no patch; encode it again")
        return self._kind

    def __len__(self) -> int:
        """Return the number of patches."""
        with self._begin() as transaction:
            extra = sum(transaction.get(key) is not None for key in NOT_PATCHES)
            return int(transaction.stat()["entries"]) - extra

    def __contains__(self, name: str) -> bool:
        return not self.missing([name])

    def names(self) -> Iterator[str]:
        """Yield the names of all patches in key order."""
        with self._begin() as transaction, transaction.cursor() as cursor:
            for key in cursor.iternext(keys=True, values=False):
                if bytes(key) not in NOT_PATCHES:
                    yield bytes(key).decode(errors="replace")

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of the names that the store does not hold, in their order."""
        with self._begin() as transaction, transaction.cursor() as cursor:
            keyed = ((name, name.encode()) for name in names)
            return [name for name, key in keyed if not (0 < len(key) <= _MAX_KEY and cursor.set_key(key))]

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
        environment = open_for_reading(self.path, self._key)
        file = (self.path / "data.mdb").stat()
        return {
            "bytes": file.st_size,
            "modified_ns": file.st_mtime_ns,
            "last_transaction": int(environment.info()["last_txnid"]),
            "entries": int(environment.stat()["entries"]),
        }

    def close(self) -> None:
        """Close the environment for the whole process; a later read opens it again."""
        close_for_process(self._key)

    def __enter__(self) -> PatchStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _begin(self) -> Iterator[Any]:
        try:
            with open_for_reading(self.path, self._key).begin(buffers=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise DataError(
                f"{self.path}: LMDB cannot read it ({error}), for it is damaged; copy or download it again"
            ) from error

    def _record(self, transaction: Any, name: str) -> Any:
        key = name.encode()
        value = transaction.get(key) if 0 < len(key) <= _MAX_KEY else None
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
