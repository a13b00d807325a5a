"""Encoding and decoding of the records of a patch store, in any known format."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from safetensors.numpy import save

from bigearthnet_cbir.data.labels import to_19_classes
from bigearthnet_cbir.data.patch_rules import (
    DTYPES,
    Bands,
    RecordKind,
    check_bands,
    check_complete,
    check_dtypes,
    check_values,
    side_of,
)
from bigearthnet_cbir.data.pickled_records import decode_pickle
from bigearthnet_cbir.errors import DataError, short
from bigearthnet_cbir.types import Patch

_LABELS_KEY: Final = "labels"
_WRITER_KEY: Final = "writer"
"""Keys of the header's metadata: a record of this project has one of the two, a record of rico-hdl neither."""

_MAX_HEADER: Final = 100_000


OURS: Final = "bigearthnet-cbir"
"""The origin of records of this project."""


class _Field(NamedTuple):
    band: str
    dtype: np.dtype[Any]
    begin: int
    size: int
    side: int


class _Layout(NamedTuple):
    fields: tuple[_Field, ...]
    labels: tuple[str, ...] | None
    length: int
    is_ours: bool


def encode_record(bands: Bands, labels: tuple[str, ...] | None) -> bytes:
    """Return a patch as safetensors bytes, with its 19-class label names as a JSON list in the header.

    Raises:
        DataError: a band has a wrong name, size or data type, or values that are not finite.
    """
    check_bands(bands)
    head, stored = _head(tuple((band, bands[band].dtype.kind) for band in sorted(bands)), labels)
    return b"".join([head, *(np.ascontiguousarray(bands[band], dtype).data for band, dtype in stored)])


@lru_cache(maxsize=8192)
def _head(
    kinds: tuple[tuple[str, str], ...], labels: tuple[str, ...] | None
) -> tuple[bytes, tuple[tuple[str, np.dtype[Any]], ...]]:
    """Return the header of a record of these bands, and each band with its data type, in the order of their pixels.

    Both are those of a record of zeros that safetensors writes. They are cached, because the header does not depend on
    the pixels, and joining the pixels to it copies them once, where safetensors copies them three times.
    """
    # Only one key: safetensors writes several keys in random order.
    metadata = {_WRITER_KEY: OURS} if labels is None else {_LABELS_KEY: json.dumps(labels)}
    dtypes: dict[str, np.dtype[Any]] = {dtype.kind: dtype for dtype in DTYPES.values()}
    zeros = {band: np.zeros((side_of(band), side_of(band)), dtypes[kind]) for band, kind in kinds}
    record = bytes(save(zeros, metadata=metadata))
    layout, end = _header(record)
    fields = sorted(layout.fields, key=lambda field: field.begin)
    return record[:end], tuple((field.band, field.dtype) for field in fields)


def decode(record: bytes) -> Patch:
    """Return the patch in a record; its arrays are read-only views of the record's bytes.

    Raises:
        DataError: the record has an unknown format, is truncated, or has invalid content.
    """
    return decode_with_kind(record)[0]


def decode_with_kind(record: bytes | memoryview) -> tuple[Patch, RecordKind]:
    """Return the patch in a record, as decode does, and its format."""
    if record[8:9] != b"{" and record[:1] == b"\x80":  # every safetensors record has a brace there, no pickle
        return decode_pickle(record)
    return _from_safetensors(record), RecordKind.SAFETENSORS


def origin(record: bytes) -> str | None:
    """Return the writer of a record: OURS, a description of another tool, or None if it is damaged or not a patch."""
    try:
        if record[8:9] == b"{":
            return OURS if _header(record)[0].is_ours else "safetensors of another tool (rico-hdl?)"
        return decode_with_kind(record)[1].value
    except DataError:
        return None


def _header(record: bytes | memoryview) -> tuple[_Layout, int]:
    """Return the parsed safetensors header and its end position."""
    if len(record) < 10 or record[8:9] != b"{":
        raise DataError("neither a safetensors nor a pickle record; is this LMDB an archive of patches?")
    end = 8 + int.from_bytes(record[:8], "little")
    if end > min(len(record), _MAX_HEADER):
        raise DataError("the record is truncated inside its header; encode this patch again")
    return _layout(bytes(record[8:end])), end


def _from_safetensors(record: bytes | memoryview) -> Patch:
    layout, end = _header(record)
    if layout.length != len(record) - end:
        raise DataError(f"the record has {len(record) - end:,} bytes of pixels, but its header has {layout.length:,}")
    bands = {
        field.band: np.frombuffer(record, field.dtype, field.size, end + field.begin).reshape(field.side, field.side)
        for field in layout.fields
    }
    check_values(bands)
    return Patch(bands, layout.labels)


@lru_cache(maxsize=8192)
def _layout(header: bytes) -> _Layout:
    """Parse a safetensors header; cached, because records with equal bands and labels have equal headers."""
    try:
        content = json.loads(header)
        metadata = dict(content.pop("__metadata__", {}))
        labels = _labels(metadata[_LABELS_KEY]) if _LABELS_KEY in metadata else None
        fields = tuple(_field(band, entry) for band, entry in content.items())
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"its safetensors header is malformed ({type(error).__name__}); encode this patch again"
        ) from error
    check_complete({field.band for field in fields})
    check_dtypes({field.band: field.dtype for field in fields})
    end = 0
    for field in sorted(fields, key=lambda field: field.begin):
        if field.begin != end:
            raise DataError(
                f"band {field.band} starts at byte {field.begin}, but the bands before it end at {end}; encode it again"
            )
        end += field.size * field.dtype.itemsize
    return _Layout(fields, labels, end, not metadata.keys().isdisjoint((_LABELS_KEY, _WRITER_KEY)))


def _labels(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list):
        raise TypeError("a list of labels is expected")
    return to_19_classes(names)


def _field(band: str, entry: dict[str, Any]) -> _Field:
    dtype, shape, (begin, end) = DTYPES.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
    side = side_of(band)
    if dtype is None or shape != [side, side]:
        raise DataError(f"band {band} is {short(shape)} of {short(entry['dtype'])}, not {side}x{side} of U16 or F32")
    if type(begin) is not int or type(end) is not int or begin < 0 or end - begin != side * side * dtype.itemsize:
        raise DataError(f"band {band} has the bytes {short([begin, end])}, which is not its size; encode it again")
    return _Field(band, dtype, begin, side * side, side)
