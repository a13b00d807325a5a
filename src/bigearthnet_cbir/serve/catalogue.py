"""The catalogue for the map: all columns in one binary response, computed once."""

from __future__ import annotations

import gzip
import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.query.index import Index

UNKNOWN_DAY: Final = 65_535
_ALIGNED: Final = 8
_LEVEL: Final = 1
"""Compression level of gzip. On coordinates, higher levels cost seconds and save little."""


def pack_catalogue(index: Index) -> bytes:
    """Return the columns of N pairs that the map needs.

    Format: the length of a JSON text as uint32, that text, then the arrays, little-endian, each aligned to a multiple
    of 8 bytes from the start. The JSON text gives the data type and offset of each array, and the values that its codes
    represent. Columns: longitude, latitude float32 (NaN: unknown); labels uint32, bit c is class c; country, season,
    split uint8 codes; day uint16 of the Sentinel-2 acquisition since 1970-01-01 (65535: unknown).
    """
    found = index.catalogue
    columns: dict[str, npt.NDArray[Any]] = {
        "longitude": found.longitude.astype("<f4"),
        "latitude": found.latitude.astype("<f4"),
        "labels": index.label_bits.astype("<u4"),
        "day": _days(found.date_s2),
    }
    values: dict[str, list[str]] = {}
    for name in ("country", "season", "split"):
        column = getattr(found, name)
        columns[name] = column.codes.astype(np.uint8)
        values[name] = list(column.values)
    return _pack(index, columns, values)


def _pack(index: Index, columns: dict[str, npt.NDArray[Any]], values: dict[str, list[str]]) -> bytes:
    places: dict[str, Any] = {}
    at = 0
    for name, column in columns.items():
        places[name] = {"type": column.dtype.str[1:], "at": at}
        at += -(-column.nbytes // _ALIGNED) * _ALIGNED
    head = {"size": index.size, "class_names": index.class_names, "values": values, "columns": places}
    text = json.dumps(head, ensure_ascii=False).encode()
    text += b" " * (-(4 + len(text)) % _ALIGNED)
    parts = [np.uint32(len(text)).astype("<u4").tobytes(), text]
    for column in columns.values():
        parts += [column.tobytes(), b"\0" * (-column.nbytes % _ALIGNED)]
    return b"".join(parts)


def _days(dates: npt.NDArray[np.datetime64]) -> npt.NDArray[np.uint16]:
    known = ~np.isnat(dates)
    days = np.full(len(dates), UNKNOWN_DAY, "<u2")
    days[known] = dates[known].astype("datetime64[D]").astype(np.int64).clip(0, UNKNOWN_DAY - 1)
    return days


def compress(packed: bytes) -> bytes:
    """Return the data compressed by gzip. The output is deterministic."""
    return gzip.compress(packed, _LEVEL, mtime=0)
