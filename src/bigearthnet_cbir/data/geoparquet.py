"""GeoParquet 1.1 files of points for GeoPandas, QGIS, DuckDB and GDAL, and reading of their columns as arrays.

Specification: https://geoparquet.org/releases/v1.1.0/. Geometries are WKB points in longitude and latitude on WGS 84
(OGC:CRS84, the default of the specification).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bigearthnet_cbir.data.pair_list import Names
from bigearthnet_cbir.errors import DataError, MissingDataError
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.types import ByteArray, DoubleArray

GEOMETRY: Final = "geometry"
_POINT: Final = np.dtype([("order", "u1"), ("kind", "<u4"), ("x", "<f8"), ("y", "<f8")])
_LITTLE_ENDIAN, _POINT_KIND = 1, 1


class Categories(Sequence[str]):
    """Repeated texts, stored as one integer code per row.

    Attributes:
        values: the distinct texts.
        codes: (N,) int32 index into `values` of each row.
    """

    def __init__(self, values: Sequence[str], codes: npt.NDArray[np.integer[Any]]) -> None:
        self.values = tuple(values)
        self.codes = np.asarray(codes, np.int32)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Categories:
        """Return texts as categories, in alphabetical order."""
        known = {text: code for code, text in enumerate(sorted(set(texts)))}
        return cls(tuple(known), np.fromiter((known[text] for text in texts), np.int32, len(texts)))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: Any) -> Any:
        """Return the text of a row."""
        return self.values[self.codes[index]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.values, dtype or object)[self.codes] if self.values else np.empty(0, dtype or object)

    def is_in(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return an (N,) mask of the rows that have one of the texts."""
        wanted = np.array([value in texts for value in self.values] or [False])
        return wanted[self.codes]


class TextLists(NamedTuple):
    """A list of texts in each row: the concatenated texts, and the number of texts of each row."""

    texts: Categories
    counts: npt.NDArray[np.int64]


Column: TypeAlias = npt.NDArray[Any] | Sequence[str] | TextLists


def label_lists(labels: ByteArray, class_names: Sequence[str]) -> TextLists:
    """Return (N, L) multi-hot labels as a list of class names in each row."""
    return TextLists(Categories(class_names, np.nonzero(labels)[1]), labels.sum(axis=1, dtype=np.int64))


def write_points(
    path: Path,
    columns: Mapping[str, Column],
    longitude: DoubleArray,
    latitude: DoubleArray,
    *,
    metadata: Mapping[str, str] = MappingProxyType({}),
    group_rows: int | None = None,
) -> None:
    """Write a GeoParquet file of N points, atomically.

    Args:
        path: the file.
        columns: name -> (N,) numbers, dates or texts; (N, D) numbers become lists of fixed size.
        longitude: (N,) degrees east; longitude and latitude are NaN for a row of unknown location.
        latitude: (N,) degrees north.
        metadata: further entries of the file's metadata.
        group_rows: rows of a row group, by default pyarrow's choice.
    """
    fields = {name: _as_arrow(column) for name, column in columns.items()}
    fields[GEOMETRY] = _points(longitude, latitude)
    table = pa.table(fields)
    geo = {
        "version": "1.1.0",
        "primary_column": GEOMETRY,
        "columns": {GEOMETRY: {"encoding": "WKB", "geometry_types": ["Point"], **_bounds(longitude, latitude)}},
    }
    told = {b"geo": json.dumps(geo).encode(), **{name.encode(): text.encode() for name, text in metadata.items()}}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **told})
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, row_group_size=group_rows, compression="zstd", write_page_checksum=True)


def _bounds(longitude: DoubleArray, latitude: DoubleArray) -> dict[str, list[float]]:
    known = np.isfinite(longitude) & np.isfinite(latitude)
    if not known.any():
        return {}
    x, y = longitude[known], latitude[known]
    return {"bbox": [float(x.min()), float(y.min()), float(x.max()), float(y.max())]}


def _points(longitude: DoubleArray, latitude: DoubleArray) -> pa.Array:
    """Return WKB points; null for a row of unknown location."""
    known = np.isfinite(longitude) & np.isfinite(latitude)
    points = np.empty(int(known.sum()), _POINT)
    points["order"], points["kind"] = _LITTLE_ENDIAN, _POINT_KIND
    points["x"], points["y"] = longitude[known], latitude[known]
    ends = np.concatenate([[0], np.cumsum(known)]) * _POINT.itemsize
    buffers = [
        pa.py_buffer(np.packbits(known, bitorder="little").tobytes()),
        pa.py_buffer(ends.astype(np.int32).tobytes()),
        pa.py_buffer(points.tobytes()),
    ]
    return pa.Array.from_buffers(pa.binary(), len(known), buffers)


def _as_arrow(column: Column) -> pa.Array:
    if isinstance(column, Categories):
        return pa.DictionaryArray.from_arrays(pa.array(column.codes), pa.array(column.values, pa.string())).cast(
            pa.string()
        )
    if isinstance(column, TextLists):
        ends = np.concatenate([[0], np.cumsum(column.counts)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), _as_arrow(column.texts))
    if not isinstance(column, np.ndarray):
        return pa.array(column, pa.string())
    if column.ndim == 2:
        flat = pa.array(np.ascontiguousarray(column).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, column.shape[1])
    return pa.array(column, from_pandas=False)


def read_columns(path: Path, names: Sequence[str] = (), categories: Sequence[str] = ()) -> dict[str, Any]:
    """Return columns of a Parquet file: texts as Names or Categories, anything else as a NumPy array.

    Args:
        path: the file.
        names: columns of texts that are all different.
        categories: columns of repeated texts; all columns but these, the geometry and lists are read as numbers.

    Raises:
        DataError: the file is missing, damaged, or lacks a column.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            plain = [field.name for field in file.schema_arrow if not _is_nested_or_text(field.type)]
            table = file.read([*plain, *names, *categories])
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: there is no such Parquet file") from error
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable Parquet file ({reason[:200]})") from error
    lacking = [name for name in (*names, *categories) if name not in table.column_names]
    if lacking:
        raise DataError(f"{path}: column {', '.join(lacking)} is missing")
    found: dict[str, Any] = {name: table.column(name).to_numpy() for name in plain}
    found |= {name: Names(table.column(name).to_pylist()) for name in names}
    return found | {name: _as_categories(table.column(name)) for name in categories}


def _is_nested_or_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind))


def _as_categories(column: pa.ChunkedArray) -> Categories:
    coded = column.combine_chunks().dictionary_encode()
    return Categories(coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False))
