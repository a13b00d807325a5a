"""Reader of patch stores: LMDB archives of patches in any known format."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.patch_rules import RecordKind
from bigearthnet_cbir.data.patch_store_opening import NOT_PATCHES, Snapshot, close_for_process, reading
from bigearthnet_cbir.data.patch_store_writing import PatchWriter
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import Patch, PatchPair

__all__ = ["PatchStore", "PatchWriter"]

logger = logging.getLogger(__name__)

_KEYS_PER_PAGE: Final = 32
"""Approximate lower limit of the patch names on an LMDB page; a larger number of lookups checks the whole archive."""

_told: set[tuple[str, RecordKind]] = set()
"""Real paths of stores whose format was already logged."""


class PatchStore:
    """Reads patches by name from an LMDB folder in any known format.

    The format (of this project, rico-hdl, bigearthnet_encoder or the original scripts) is detected from the records.
    The folder is opened at the first read, once per process even if several objects share it. Objects can be forked
    and pickled. No lock file is written, so read-only storage works; no process may write to the store meanwhile.

    Args:
        path: the LMDB folder.
        labels: patch name -> 19-class names; they take precedence over the labels of the records
            (rico-hdl records have none and need a metadata.parquet).
    """

    def __init__(self, path: Path | str, labels: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.path = Path(path)
        self.labels = labels
        self._key = os.path.realpath(self.path)
        self._kind: RecordKind | None = None

    @property
    def kind(self) -> RecordKind:
        """Format of the first record. Raises DataError if the store is empty or its first record malformed."""
        if self._kind is None:
            with self._reading() as snapshot:
                for key in snapshot.names():
                    return self._learn(self._decode(key.decode(errors="replace"), snapshot.get(key) or b"")[1])
            raise DataError(f"{self.path}: this archive has no patches; encode it again")
        return self._kind

    def __len__(self) -> int:
        """Return the number of patches."""
        with self._reading() as snapshot:
            extra = sum(snapshot.get(key) is not None for key in NOT_PATCHES)
            return snapshot.checker.head.records.entries - extra

    def __contains__(self, name: str) -> bool:
        return not self.missing([name])

    def names(self) -> Iterator[str]:
        """Yield the names of all patches in key order."""
        with self._reading() as snapshot:
            for key in snapshot.names():
                yield key.decode(errors="replace")

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names that the store does not have, in their order."""
        asked = list(names)
        with self._reading() as snapshot:
            if len(asked) * _KEYS_PER_PAGE > snapshot.checker.head.records.entries:
                snapshot.checker.check_all()
            return [name for name in asked if snapshot.get(name.encode(errors="replace")) is None]

    def s1_name(self, pair: PatchPair) -> str:
        """Return the key of the Sentinel-1 bands of a pair.

        A bigearthnet_encoder archive stores both sensors under the Sentinel-2 name.
        """
        return pair.s2 if self.kind is RecordKind.ENCODER else pair.s1

    def read(self, name: str) -> Patch:
        """Return one patch with its bands as stored (read-only arrays) and its label names, if any.

        Raises:
            DataError: the store cannot be opened, lacks the patch, or has a malformed record for it.
        """
        with self._reading() as snapshot:
            record = bytes(self._record(snapshot, name))  # the memory map is invalid after the transaction
        return self._patch(name, record)

    @contextmanager
    def reading(self) -> Iterator[Callable[[str], Patch]]:
        """Give a `read` without copies: its patches are views of the memory map, valid inside the block."""
        with self._reading() as snapshot:
            yield lambda name: self._patch(name, self._record(snapshot, name))

    def read_bands(self, name: str, bands: Iterable[str]) -> list[npt.NDArray[np.generic]]:
        """Return only these bands of a patch, in this order; raises as `read`, or if a band is missing."""
        found = self.read(name).bands
        try:
            return [found[band] for band in bands]
        except KeyError as error:
            raise DataError(
                f"{self.path}: record {name} has no band {error.args[0]} but {', '.join(found)}; "
                "are the two LMDB paths swapped?"
            ) from error

    def identity(self) -> dict[str, int]:
        """Return values that change with the content of the archive: size, time, last transaction, number of entries.

        They detect a rewritten archive in milliseconds, without reading the records.
        """
        with self._reading() as snapshot:
            head = snapshot.checker.head
        file = (self.path / "data.mdb").stat()
        return {
            "bytes": file.st_size,
            "modified_ns": file.st_mtime_ns,
            "last_transaction": head.transaction,
            "entries": head.records.entries,
        }

    def close(self) -> None:
        """Close the environment for the whole process; a later read opens it again."""
        close_for_process(self._key)

    def __enter__(self) -> PatchStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _reading(self) -> AbstractContextManager[Snapshot]:
        return reading(self.path, self._key)

    def _record(self, snapshot: Snapshot, name: str) -> memoryview:
        value = snapshot.get(name.encode(errors="replace"))
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
        """Store the format, and log it once per process even if several objects share the folder."""
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
