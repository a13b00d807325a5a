"""Atomic writing of HDF5 files, also if the disk is full."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py

from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.storage.hdf5_verdicts import seal, trust

_FORMAT: Final = ("v110", "v110")
"""The oldest format of HDF5 whose structure has checksums throughout; read by HDF5 1.10 (2016) and later."""
_CHUNK: Final = 1 << 18
"""Bytes that share a checksum."""


def row_chunks(shape: tuple[int, ...], itemsize: int) -> dict[str, Any]:
    """Return options of a dataset that is written and read in blocks of rows, with a checksum for each."""
    rows = max(1, min(shape[0], _CHUNK // max(1, math.prod(shape[1:]) * itemsize)))
    return {"chunks": (rows, *shape[1:]), "fletcher32": True}


class _GuardedFile(io.RawIOBase):
    """A file object for h5py that records the first system error instead of raising it.

    The HDF5 library cannot close a file after a failed metadata write: it raises repeatedly or crashes with a
    segmentation fault. The error is therefore hidden from it; the caller raises it and deletes the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.error: OSError | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._position = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        found = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self.error is None:
                done = os.pwrite(self._descriptor, rest, self._position)
                self._position += done
                rest = rest[done:]
        except OSError as error:
            self.error = error
        self._position += len(rest)
        return size

    def truncate(self, size: int | None = None) -> int:
        wanted = self._position if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._descriptor, wanted)
        except OSError as error:
            self.error = error
        return wanted

    def seal(self) -> os.stat_result:
        return seal(self._descriptor)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class NewFile:
    """An HDF5 file being written.

    Attributes:
        hdf5: the open file.
    """

    def __init__(self, hdf5: h5py.File, guarded: _GuardedFile, path: Path) -> None:
        self.hdf5 = hdf5
        self._guarded = guarded
        self._path = path

    def check(self) -> None:
        """Raise the OSError of an earlier write, so that a long computation stops early."""
        error = self._guarded.error
        if error is not None:
            raise OSError(error.errno, error.strerror, str(self._path))


@contextmanager
def create_hdf5(path: Path) -> Iterator[NewFile]:
    """Write an HDF5 file under a temporary name, and rename it if the block ends without an error.

    Raises:
        OSError: for example a full disk or a read-only folder; no file is left.
    """
    with atomic_write(path) as temporary:
        guarded = _GuardedFile(temporary)
        try:
            file = NewFile(h5py.File(guarded, "w", libver=_FORMAT), guarded, path)
            try:
                with file.hdf5:
                    yield file
            finally:
                file.check()
            written = guarded.seal()
        finally:
            guarded.close()
    trust(path, written)
