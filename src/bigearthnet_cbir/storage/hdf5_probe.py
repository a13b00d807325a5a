"""Program: validate HDF5 files in a separate process and report the first fault.

For a damaged file, the HDF5 library may loop endlessly, allocate whatever size the file claims and, in some versions,
access memory out of bounds. In a separate process, such a failure does no harm. Everything that the library decodes is
decoded here first: links, object headers, data types, chunk indices, attributes and strings. Numeric arrays are not
read, but their byte ranges must be inside the file.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from typing import Any, Final

import h5py
import numpy as np

from bigearthnet_cbir.storage.hdf5_verdicts import SOUND, UNSOUND

_DEPTH: Final = 4
_BLOCK: Final = 4096
_FILTERS: Final = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
_DEFLATE_RATIO: Final = 1100
"""Upper bound of the compression ratio of deflate, whose maximum is 1032."""
_TEXT_REFERENCE: Final = 16
"""Bytes of a reference to a variable-length string: length, address, index."""
_SECONDS: Final = 3
_BYTES_PER_SECOND: Final = 100 << 20
_EXTRA_MEMORY: Final = 256 << 20


class UnsoundError(Exception):
    """The file is rejected; the message gives the reason."""


def main() -> int:
    """Validate the files that the command line names, until the first fault; return 0 if all are sound.

    The process ends at the first fault, because the library may have damaged its own memory on that file.
    """
    for path in sys.argv[1:]:
        reason = _fault(path)
        if reason is not None:
            print(" ".join(reason.split())[:200].encode("ascii", "replace").decode())
            return UNSOUND
        print(SOUND, flush=True)
    return 0


def _fault(path: str) -> str | None:
    try:
        size = os.stat(path).st_size
        _limit(size)
        with h5py.File(path, "r") as file:
            _Walk(size).group(file, 0)
    except UnsoundError as error:
        return str(error)
    except MemoryError:
        return "it claims more than it holds"
    except Exception as error:  # the library raises many types
        return str(error) or type(error).__name__
    return None


def _limit(size: int) -> None:
    """Limit processor time and memory according to the size of the next file."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        spent = math.ceil(sum(os.times()[:2]))
        seconds = spent + _SECONDS + size // _BYTES_PER_SECOND
        with open("/proc/self/statm", "rb") as stream:
            used = int(stream.read().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_CPU, seconds)
        _lower(resource.RLIMIT_AS, used + _EXTRA_MEMORY + 4 * size)


def _lower(kind: int, limit: int) -> None:
    """Set a soft limit, which the limit of the next file can replace, below the hard limit."""
    import resource

    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


class _Walk:
    """Visits every object of a file once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen: set[int] = set()

    def group(self, group: h5py.Group, depth: int) -> None:
        """Check a group's attributes and everything below it."""
        self._visit(group)
        for name in group:
            link = group.get(name, getlink=True)
            where = f"{group.name.rstrip('/')}/{name}"
            if isinstance(link, h5py.SoftLink):
                if depth or link.path != f"/fused/{name}" or not isinstance(group.get(name), h5py.Dataset):
                    raise UnsoundError(f"{where} is a link to somewhere else")
            elif not isinstance(link, h5py.HardLink):
                raise UnsoundError(f"{where} is a link to another file")
            else:
                self._item(group[name], where, depth)

    def _item(self, item: Any, where: str, depth: int) -> None:
        if isinstance(item, h5py.Dataset):
            self._visit(item)
            self._dataset(item, where)
        elif isinstance(item, h5py.Group) and depth < _DEPTH:
            self.group(item, depth + 1)
        else:
            raise UnsoundError(f"{where} is no array")

    def _visit(self, item: Any) -> None:
        address = h5py.h5o.get_info(item.id).addr
        if address in self._seen:
            raise UnsoundError(f"{item.name} is there under two names")
        self._seen.add(address)
        for name in item.attrs:
            stored = item.attrs.get_id(name)
            where = f"attribute {name} of {item.name}"
            _check_type(stored, where)
            if math.prod(stored.shape) * stored.dtype.itemsize > self._size:
                raise UnsoundError(f"{where} claims more than the file holds")
            _check_text(item.attrs[name], where)

    def _dataset(self, dataset: h5py.Dataset, where: str) -> None:
        _check_type(dataset.id, where)
        if dataset.shape is None or dataset.ndim > 2:
            raise UnsoundError(f"{where} is of shape {dataset.shape}")
        if dataset.is_virtual or dataset.external:
            raise UnsoundError(f"{where} lies in another file")
        claimed = math.prod(dataset.shape) * _item_size(dataset)
        if dataset.chunks is not None:
            self._chunks(dataset, where)
        elif claimed and not self._holds(dataset, claimed):
            raise UnsoundError(f"{where} claims {claimed:,} bytes, the file holds fewer")
        if h5py.check_string_dtype(dataset.dtype) is not None:
            _check_strings(dataset, where)

    def _holds(self, dataset: h5py.Dataset, claimed: int) -> bool:
        """Return whether a contiguous array is inside the file."""
        start = dataset.id.get_offset()
        if start is None:  # stored in the object header, or not allocated
            layout = dataset.id.get_create_plist().get_layout()
            return bool(layout == h5py.h5d.COMPACT and dataset.id.get_storage_size() == claimed)
        return bool(start + claimed <= self._size and dataset.id.get_storage_size() == claimed)

    def _chunks(self, dataset: h5py.Dataset, where: str) -> None:
        """Check that every chunk exists inside the file, with a size that its filters can produce."""
        settings = dataset.id.get_create_plist()
        filters = {settings.get_filter(number)[0] for number in range(settings.get_nfilters())}
        if not filters <= _FILTERS:
            raise UnsoundError(f"{where} has the filters {sorted(filters)}")
        counts = [-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
        whole = math.prod(dataset.chunks) * _item_size(dataset)
        most = self._size * (_DEFLATE_RATIO if h5py.h5z.FILTER_DEFLATE in filters else 1)
        if whole > most or math.prod(counts) * whole > max(most, 1) * 2:
            raise UnsoundError(f"{where} claims {math.prod(counts) * whole:,} bytes, the file holds fewer")
        places: set[Any] = set()

        def visit(chunk: Any) -> None:
            exact = chunk.size == whole + 4 * (h5py.h5z.FILTER_FLETCHER32 in filters)
            if chunk.filter_mask or chunk.byte_offset + chunk.size > self._size:
                raise UnsoundError(f"{where} has a block outside the file")
            if not (exact or (h5py.h5z.FILTER_DEFLATE in filters and chunk.size * _DEFLATE_RATIO >= whole)):
                raise UnsoundError(f"{where} has a block of {chunk.size:,} bytes")
            places.add((chunk.chunk_offset, chunk.byte_offset))

        dataset.id.chunk_iter(visit)
        starts, offsets = {start for start, _ in places}, {offset for _, offset in places}
        if not len(starts) == len(offsets) == len(places) == math.prod(counts):
            raise UnsoundError(f"{where} has {len(places):,} of {math.prod(counts):,} blocks")


def _item_size(dataset: h5py.Dataset) -> int:
    """Return the bytes of an item of an array in the file."""
    text = h5py.check_string_dtype(dataset.dtype)
    size: int = dataset.id.get_type().get_size()
    return _TEXT_REFERENCE if text is not None and text.length is None else size


def _check_type(stored: Any, where: str) -> None:
    """Reject all types except plain numbers, booleans and text."""
    dtype = stored.dtype
    if h5py.check_string_dtype(dtype) is not None:
        return
    plain = dtype.kind in "iuf" and stored.get_type().equal(h5py.h5t.py_create(dtype))
    if not plain and dtype.kind != "b":
        raise UnsoundError(f"{where} is of a type that is never written")


def _check_strings(dataset: h5py.Dataset, where: str) -> None:
    for start in range(0, len(dataset) if dataset.ndim else 0, _BLOCK):
        _check_text(dataset[start : start + _BLOCK], where)


def _check_text(value: Any, where: str) -> None:
    """Reject text that is not UTF-8."""
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else [value]
    for item in items:
        try:
            if isinstance(item, bytes):
                item.decode()
            elif isinstance(item, str):
                item.encode()
        except UnicodeError:
            raise UnsoundError(f"{where} is no UTF-8 text") from None


if __name__ == "__main__":
    sys.exit(main())
