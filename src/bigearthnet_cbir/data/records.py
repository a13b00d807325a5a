"""The records of a patch store: bytes to patch and back, whichever tool wrote them."""

from __future__ import annotations

import json
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from bigearthnet_cbir.data.bands import (
    BAND_SIZES,
    MODEL_S2_BANDS,
    S1_BANDS,
    S2_10M_BANDS,
    S2_20M_BANDS,
    S2_60M_BANDS,
)
from bigearthnet_cbir.data.labels import CLASSES, N_CLASSES, to_19_classes
from bigearthnet_cbir.data.unpickling import StandIn, StoredArray, unpickle
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import Patch

_Bands = dict[str, npt.NDArray[np.generic]]
_DTYPES: Final[dict[str, np.dtype[Any]]] = {"U16": np.dtype("<u2"), "F32": np.dtype("<f4")}
_LABELS_KEY: Final = "labels"
_WRITER_KEY: Final = "writer"
"""Keys of the header's metadata: a record of this project has one of the two, of rico-hdl neither."""

_MAX_HEADER: Final = 100_000
_ENCODER_S1: Final = {f"band{band}": band for band in S1_BANDS}
_ENCODER_S2: Final = {f"band{band[1:]}": band for band in (*MODEL_S2_BANDS, *S2_60M_BANDS)}


class RecordKind(Enum):
    """Who writes such records; the value is what the log shows."""

    SAFETENSORS = "safetensors (this project, rico-hdl)"
    ORIGINAL_S1 = "pickled Sentinel-1 arrays (original scripts)"
    ORIGINAL_S2 = "pickled Sentinel-2 arrays (original scripts)"
    ENCODER = "pickled patch objects (bigearthnet_encoder)"


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


def encode(bands: _Bands, labels: tuple[str, ...] | None) -> bytes:
    """Return a patch as safetensors bytes, with its 19-class label names as a JSON list in the header.

    Raises:
        DataError: a band has the wrong name, size, data type or values that are not finite.
    """
    _check(bands)
    # One key: safetensors writes several in an order that changes from call to call.
    metadata = {_WRITER_KEY: OURS} if labels is None else {_LABELS_KEY: json.dumps(labels)}
    arrays = {band: np.ascontiguousarray(bands[band], bands[band].dtype.newbyteorder("<")) for band in sorted(bands)}
    return bytes(save(arrays, metadata=metadata))


def decode(record: bytes) -> Patch:
    """Return the patch in a record; its arrays are read-only views of the record's bytes.

    Raises:
        DataError: the record is of no known kind, is truncated, or holds what a patch cannot hold.
    """
    return decode_with_kind(record)[0]


def decode_with_kind(record: bytes | memoryview) -> tuple[Patch, RecordKind]:
    """Return the patch in a record, as decode does, and which tool's kind the record is."""
    if record[8:9] != b"{" and record[:1] == b"\x80":  # no pickle has a brace there, every safetensors record has
        return _from_pickle(bytes(record))
    return _from_safetensors(record), RecordKind.SAFETENSORS


def origin(record: bytes) -> str | None:
    """Return who wrote a record: OURS, words for another tool, or None where it is damaged or no patch at all."""
    try:
        if record[8:9] == b"{":
            return OURS if _header(record)[0].is_ours else "safetensors of another tool (rico-hdl?)"
        return decode_with_kind(record)[1].value
    except DataError:
        return None


def _header(record: bytes | memoryview) -> tuple[_Layout, int]:
    """Return what a safetensors header says, and where it ends."""
    if len(record) < 10 or record[8:9] != b"{":
        raise DataError("neither a safetensors nor a pickle record; is this LMDB an archive of patches?")
    end = 8 + int.from_bytes(record[:8], "little")
    if end > min(len(record), _MAX_HEADER):
        raise DataError("the record is cut short inside its header; encode this patch again")
    return _layout(bytes(record[8:end])), end


def _from_safetensors(record: bytes | memoryview) -> Patch:
    layout, end = _header(record)
    if layout.length != len(record) - end:
        raise DataError(f"the record has {len(record) - end:,} bytes of pixels where its header says {layout.length:,}")
    bands = {
        field.band: np.frombuffer(record, field.dtype, field.size, end + field.begin).reshape(field.side, field.side)
        for field in layout.fields
    }
    _check_finite(bands)
    return Patch(bands, layout.labels)


@lru_cache(maxsize=8192)
def _layout(header: bytes) -> _Layout:
    """Read a safetensors header; cached, since records with the same bands and labels have the same header."""
    try:
        content = json.loads(header)
        metadata = content.pop("__metadata__", {})
        labels = to_19_classes(json.loads(metadata[_LABELS_KEY])) if _LABELS_KEY in metadata else None
        fields = tuple(_field(band, entry) for band, entry in content.items())
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"its safetensors header is malformed ({error}); encode this patch again") from error
    _check_complete({field.band for field in fields})
    _check_dtypes({field.band: field.dtype for field in fields})
    ends = [field.begin + field.size * field.dtype.itemsize for field in fields]
    return _Layout(fields, labels, max(ends), not metadata.keys().isdisjoint((_LABELS_KEY, _WRITER_KEY)))


def _field(band: str, entry: dict[str, Any]) -> _Field:
    dtype, shape, (begin, end) = _DTYPES.get(entry["dtype"]), entry["shape"], entry["data_offsets"]
    side = _side(band)
    if dtype is None or shape != [side, side]:
        raise DataError(f"band {band} is {shape} of {entry['dtype']}, but must be {side}x{side} of U16 or F32")
    if type(begin) is not int or begin < 0 or end - begin != side * side * dtype.itemsize:
        raise DataError(f"band {band} claims the bytes {begin} to {end}, which is not its size; encode it again")
    return _Field(band, dtype, begin, side * side, side)


def _from_pickle(record: bytes) -> tuple[Patch, RecordKind]:
    try:
        content = unpickle(record)
    except ValueError as error:
        raise DataError(f"its pickle is refused: {error}") from error
    if isinstance(content, StandIn):
        return _from_encoder(content), RecordKind.ENCODER
    if isinstance(content, tuple) and all(isinstance(item, StoredArray) for item in content):
        arrays = [item.array for item in content]
        if len(arrays) == 4:
            stacks = ((S2_10M_BANDS, 120), (S2_20M_BANDS, 60), (S2_60M_BANDS, 20))
            return _from_stacks(arrays, stacks), RecordKind.ORIGINAL_S2
        if len(arrays) == 3:
            return _from_stacks(arrays, ((("VV",), 120), (("VH",), 120))), RecordKind.ORIGINAL_S1
    raise DataError(
        "its pickle holds neither the original scripts' arrays nor a patch object; is this LMDB an archive?"
    )


def _from_stacks(arrays: list[Any], stacks: tuple[tuple[tuple[str, ...], int], ...]) -> Patch:
    """Take the stacked bands of an original record apart; its last array is the multi-hot label."""
    bands: _Bands = {}
    for array, (names, side) in zip(arrays, stacks, strict=False):
        if array is None or array.shape != (len(names), side, side):
            shape = None if array is None else array.shape
            raise DataError(f"bands {', '.join(names)} are stacked as {shape}, but must be {(len(names), side, side)}")
        bands.update(zip(names, array, strict=True))
    _check(bands)
    hot = arrays[-1]
    if hot is None or hot.shape != (N_CLASSES,) or not np.isin(hot, (0, 1)).all():
        raise DataError("its label is not a vector of 19 zeros and ones; encode this patch again")
    return Patch(bands, tuple(CLASSES[index] for index in np.flatnonzero(hot)))


def _from_encoder(patch: StandIn) -> Patch:
    bands: _Bands = {}
    for part, names in (("s1_patch", _ENCODER_S1), ("s2_patch", _ENCODER_S2)):
        half = patch.attributes.get(part)
        if not isinstance(half, StandIn):
            raise DataError(f"its patch object has no {part}; encode it again with both sensors")
        for attribute, band in names.items():
            stored = half.attributes.get(attribute)
            data = stored.attributes.get("data") if isinstance(stored, StandIn) else None
            if not isinstance(data, StoredArray) or data.array is None:
                raise DataError(f"band {band} is not in its patch object; encode this patch again")
            bands[band] = data.array
    _check(bands)
    names_43, names_19 = patch.attributes.get("labels"), patch.attributes.get("new_labels")
    given = names_19 if isinstance(names_19, list) else names_43
    return Patch(bands, to_19_classes(map(str, given)) if isinstance(given, list) else None)


def _side(band: str) -> int:
    if band not in BAND_SIZES:
        raise DataError(f"{band!r} is not a band of BigEarthNet; they are {', '.join(BAND_SIZES)}")
    return BAND_SIZES[band]


def _check(bands: _Bands) -> None:
    _check_complete(set(bands))
    for band, pixels in bands.items():
        side = _side(band)
        if pixels.shape != (side, side) or pixels.dtype.newbyteorder("<") not in _DTYPES.values():
            raise DataError(f"band {band} is {pixels.shape} of {pixels.dtype}, but must be {side}x{side} of u2 or f4")
    _check_dtypes({band: pixels.dtype for band, pixels in bands.items()})
    _check_finite(bands)


def _check_dtypes(dtypes: dict[str, np.dtype[Any]]) -> None:
    """Refuse Sentinel-1 that is no decibels, and a sensor of two data types: one would wrap in the other's batch."""
    for band in S1_BANDS:
        if band in dtypes and dtypes[band].kind != "f":
            raise DataError(f"band {band} is {dtypes[band]}, but Sentinel-1 is float32 decibels; encode it again")
    s2 = {dtypes[band].kind: band for band in sorted(dtypes, reverse=True) if band not in S1_BANDS}
    if len(s2) > 1:
        raise DataError(
            f"band {s2['u']} is uint16 and band {s2['f']} float32, but all bands of a Sentinel-2 patch have one "
            "data type; encode it again"
        )


def _check_complete(bands: set[str]) -> None:
    """Refuse half a sensor; B01 and B09, which no encoder sees, may be left out."""
    for band in bands:
        _side(band)
    wanted = {band for sensor in (S1_BANDS, MODEL_S2_BANDS) if not bands.isdisjoint(sensor) for band in sensor}
    lacking = sorted(wanted - bands)
    if lacking or not wanted:
        raise DataError(f"band {', '.join(lacking or ['VV, VH, B02'])} is missing from the record; encode it again")


def _check_finite(bands: _Bands) -> None:
    for band, pixels in bands.items():
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise DataError(f"band {band} holds NaN or infinite values; leave this patch out")
