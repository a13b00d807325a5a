"""Decoder of pickled records: those of the original scripts and of bigearthnet_encoder.

The bytes of a pickle outside its arrays determine its structure (data/safe_pickle.py). They are equal for records with
equal labels, so the structure that was decoded for one record is reused for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.bands import MODEL_S2_BANDS, S1_BANDS, S2_10M_BANDS, S2_20M_BANDS, S2_60M_BANDS
from bigearthnet_cbir.data.labels import CLASSES, N_CLASSES, to_19_classes
from bigearthnet_cbir.data.patch_rules import Bands, RecordKind, check_bands
from bigearthnet_cbir.data.safe_pickle import ArraySpan, StandIn, StoredArray, unpickle
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import Patch

_ENCODER_S1: Final = {f"band{band}": band for band in S1_BANDS}
_ENCODER_S2: Final = {f"band{band[1:]}": band for band in (*MODEL_S2_BANDS, *S2_60M_BANDS)}
_ENCODER_BANDS: Final = (*_ENCODER_S1.values(), *_ENCODER_S2.values())
_STACKS: Final = {
    RecordKind.ORIGINAL_S2: ((S2_10M_BANDS, 120), (S2_20M_BANDS, 60), (S2_60M_BANDS, 20)),
    RecordKind.ORIGINAL_S1: ((("VV",), 120), (("VH",), 120)),
}
_Arrays = Sequence[npt.NDArray[np.generic]]
_Spans = tuple[tuple[int, int], ...]
_MOST_PROGRAMS: Final = 1024


class _Program(NamedTuple):
    """Structure of a pickle: the positions of its arrays, and its labels if they are text."""

    kind: RecordKind
    spans: tuple[ArraySpan, ...]
    labels: tuple[str, ...] | None


_programs: dict[tuple[_Spans, bytes], _Program] = {}
_spans: dict[int, _Spans] = {}
"""Length of a pickle -> positions of the arrays in the last one of that length."""


def decode_pickle(record: bytes | memoryview) -> tuple[Patch, RecordKind]:
    """Return the patch in a pickle and its format; arrays are read-only views of the record if possible.

    Raises:
        DataError: the pickle is malformed, uses unsupported operations, or has invalid content.
    """
    spans = _spans.get(len(record))
    program = None if spans is None else _programs.get((spans, _outside(record, spans)))
    if program is not None:
        return _patch(program.kind, [span.view(record) for span in program.spans], program.labels), program.kind
    kind, stored, labels = _parse(record)
    patch = _patch(kind, [array.array for array in stored], labels)
    if all(array.content is record for array in stored):
        _remember(record, _Program(kind, tuple(array.span for array in stored if array.span), labels))
    return patch, kind


def _outside(record: bytes | memoryview, spans: _Spans) -> bytes:
    """Return the bytes of a pickle outside its arrays."""
    starts, stops = [0, *(stop for _, stop in spans)], [*(start for start, _ in spans), len(record)]
    return b"".join([record[start:stop] for start, stop in zip(starts, stops, strict=True)])


def _remember(record: bytes | memoryview, program: _Program) -> None:
    if len(_programs) >= _MOST_PROGRAMS:
        _programs.clear()
        _spans.clear()
    spans = tuple(sorted((span.start, span.stop) for span in program.spans))
    _spans[len(record)] = spans
    _programs[spans, _outside(record, spans)] = program


def _parse(record: bytes | memoryview) -> tuple[RecordKind, list[StoredArray], tuple[str, ...] | None]:
    try:
        content = unpickle(record)
    except ValueError as error:
        raise DataError(f"its pickle is refused: {error}") from error
    if isinstance(content, StandIn):
        return RecordKind.ENCODER, _encoder_arrays(content), _encoder_labels(content)
    if isinstance(content, tuple) and all(isinstance(item, StoredArray) for item in content):
        for kind, stacks in _STACKS.items():
            if len(content) == len(stacks) + 1:
                return kind, list(content), None
    raise DataError(
        "its pickle has neither the arrays of the original scripts nor a patch object; is this LMDB a patch archive?"
    )


def _patch(kind: RecordKind, arrays: Sequence[Any], labels: tuple[str, ...] | None) -> Patch:
    if kind in _STACKS:
        bands = _unstacked(arrays, _STACKS[kind])
        labels = _from_multi_hot(arrays[-1])
    else:
        bands = dict(zip(_ENCODER_BANDS, arrays, strict=True))
    check_bands(bands)
    return Patch(bands, labels)


def _unstacked(arrays: Sequence[Any], stacks: Sequence[tuple[Sequence[str], int]]) -> Bands:
    """Split the stacked bands of an original record; its last array is the multi-hot label."""
    bands: Bands = {}
    for array, (names, side) in zip(arrays, stacks, strict=False):
        if array is None or array.shape != (len(names), side, side):
            shape = None if array is None else array.shape
            raise DataError(f"bands {', '.join(names)} are stacked as {shape}, but must be {(len(names), side, side)}")
        bands.update(zip(names, array, strict=True))
    return bands


def _from_multi_hot(hot: npt.NDArray[Any] | None) -> tuple[str, ...]:
    if hot is None or hot.shape != (N_CLASSES,) or not np.isin(hot, (0, 1)).all():
        raise DataError("its label is not a vector of 19 zeros and ones; encode this patch again")
    return tuple(CLASSES[index] for index in np.flatnonzero(hot))


def _encoder_arrays(patch: StandIn) -> list[StoredArray]:
    """Return the arrays of _ENCODER_BANDS."""
    arrays = []
    for part, names in (("s1_patch", _ENCODER_S1), ("s2_patch", _ENCODER_S2)):
        half = patch.attributes.get(part)
        if not isinstance(half, StandIn):
            raise DataError(f"its patch object has no {part}; encode it again with both sensors")
        for attribute, band in names.items():
            stored = half.attributes.get(attribute)
            data = stored.attributes.get("data") if isinstance(stored, StandIn) else None
            if not isinstance(data, StoredArray) or data.span is None:
                raise DataError(f"band {band} is not in its patch object; encode this patch again")
            arrays.append(data)
    return arrays


def _encoder_labels(patch: StandIn) -> tuple[str, ...] | None:
    names_43, names_19 = patch.attributes.get("labels"), patch.attributes.get("new_labels")
    given = names_19 if isinstance(names_19, list) else names_43
    if not isinstance(given, list):
        return None
    if not all(isinstance(name, str) for name in given):
        raise DataError("its labels are not text; encode this patch again")
    return to_19_classes(given)
