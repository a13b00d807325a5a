"""Embedding files of other programs, read as columns: .npz, .npy with a file of names, (Geo)Parquet."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bigearthnet_cbir.errors import DataError, MissingDataError
from bigearthnet_cbir.types import Columns

UNNAMED: Final = "embedding"
"""Column of a matrix without a name."""

NAME_FILES: Final = (".csv", ".txt")
"""Suffixes of the file of names next to a .npy file."""

ATTRIBUTES: Final = "bigearthnet_cbir"
"""Key in the metadata of a Parquet file: a JSON object with this project's metadata of the vectors."""


def read_npz(path: Path) -> Columns:
    """Return the arrays of a .npz file; its `class_names` and zero-dimensional texts are attributes.

    Raises:
        DataError: it is missing, broken, or contains Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, "a .npz file without Python objects", error) from error
    attributes = {name: values.item() for name, values in arrays.items() if values.ndim == 0}
    if "class_names" in arrays:
        attributes["class_names"] = arrays.pop("class_names").tolist()
    return Columns({name: values for name, values in arrays.items() if values.ndim}, attributes)


def read_npy(path: Path) -> Columns:
    """Return the matrix of a .npy file, and the names from a .csv or .txt file next to it.

    The file of names differs only in its suffix. It has no header, and a line for each row: one name, or the Sentinel-2
    name, a comma and the Sentinel-1 name.

    Raises:
        DataError: a file is missing or broken, or contains Python objects.
    """
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, "a .npy file without Python objects", error) from error
    beside = next((path.with_suffix(end) for end in NAME_FILES if path.with_suffix(end).is_file()), None)
    if beside is None:
        raise MissingDataError(
            f"{path}: which patches are these? Put {path.with_suffix('.csv').name} beside it, with one name a line"
        )
    return Columns({UNNAMED: matrix, "name": _names_in(beside)}, {})


def _names_in(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, "a text file of names", error) from error
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    widths = {len(row) for row in rows}
    if widths not in ({1}, {2}):
        raise DataError(f"{path}: its lines have {sorted(widths) or 'no'} columns; write one name a line, or S2,S1")
    return [row[0] for row in rows] if widths == {1} else rows


def read_parquet(path: Path) -> Columns:
    """Return the columns of a Parquet or GeoParquet file: lists of equal length as matrices, all others as lists.

    Raises:
        DataError: it is missing, broken, or a list column of numbers has rows of different lengths or null values.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        table = file.read([name for name in file.schema_arrow.names if name != "geometry"])
        told = (file.schema_arrow.metadata or {}).get(ATTRIBUTES.encode())
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, "a Parquet file", error) from error
    columns = {name: _column(table.column(name), f"{path}: column {name}") for name in table.column_names}
    try:
        attributes = json.loads(told) if told else {}
    except ValueError as error:
        raise _unreadable(path, "a Parquet file with sound metadata", error) from error
    return Columns(columns, attributes if isinstance(attributes, dict) else {})


def _column(column: pa.ChunkedArray, where: str) -> Any:
    kind = column.type
    holds_lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not holds_lists or not _is_number(kind.value_type):
        return column.to_pylist()
    if column.null_count or not len(column):
        raise DataError(f"{where} has empty places; every row needs a vector")
    return np.concatenate([_matrix(chunk, where) for chunk in column.chunks if len(chunk)])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _matrix(chunk: pa.Array, where: str) -> npt.NDArray[Any]:
    values = chunk.flatten()
    width, rest = divmod(len(values), len(chunk))
    even = pa.types.is_fixed_size_list(chunk.type) or bool((np.diff(chunk.offsets.to_numpy()) == width).all())
    if rest or not width or not even or values.null_count:
        raise DataError(f"{where} has vectors of several lengths, or with empty places; all rows need the same length")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(chunk), width)


def _unreadable(path: Path, what: str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return MissingDataError(f"{path}: there is no such file; give a file of embeddings")
    reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
    return DataError(f"{path}: cannot be read as {what} ({reason}); write it again")
