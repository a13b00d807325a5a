"""metadata.parquet of BigEarthNet v2: pairs, labels, splits, countries and flags of its patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigearthnet_cbir.data.labels import CLASS_INDEX, to_19_classes
from bigearthnet_cbir.data.pair_list import LabelTable, PairList
from bigearthnet_cbir.data.patch_rules import S1_NAME, S2_NAME
from bigearthnet_cbir.errors import DataError, MissingDataError, short
from bigearthnet_cbir.types import IntArray

_SPLIT_NAMES: Final = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_COLUMNS: Final = {"s2": "patch_id", "s1": "s1_name", "labels": "labels", "split": "split"}
_OPTIONAL: Final = {"country": "country", "snow": "contains_seasonal_snow", "cloud": "contains_cloud_or_shadow"}
_TYPES: Final = {
    **dict.fromkeys(("patch_id", "s1_name", "split", "country"), pa.string()),
    "labels": pa.list_(pa.string()),
    **dict.fromkeys(("contains_seasonal_snow", "contains_cloud_or_shadow"), pa.bool_()),
}


class MetadataRow(NamedTuple):
    """One pair of BigEarthNet v2; split is train, val or test; labels are 19-class names in column order."""

    s2: str
    s1: str
    labels: tuple[str, ...]
    split: str
    country: str
    snow: bool
    cloud: bool


def read_metadata(path: Path) -> list[MetadataRow]:
    """Return every row of a metadata.parquet.

    Raises:
        DataError: the file is missing, not parquet, lacks a column, or has an invalid value.
    """
    return _rows(_read_table(path), path)


def _rows(table: pa.Table, path: Path) -> list[MetadataRow]:
    values: dict[str, list[Any]] = {field: table.column(name).to_pylist() for field, name in _COLUMNS.items()}
    for field, name in _OPTIONAL.items():
        default = "" if field == "country" else False
        present = name in table.column_names
        values[field] = table.column(name).to_pylist() if present else [default] * table.num_rows
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # half a million rows share a few thousand label sets
    rows = []
    seen: set[str] = set()
    for number, (s2, s1, labels, split, *rest) in enumerate(zip(*values.values(), strict=True)):
        where = f"{path}, row {number}"
        if s2 in seen or s1 in seen:
            raise DataError(f"{where}: {s2 if s2 in seen else s1} occurs twice; download the file again")
        if split not in _SPLIT_NAMES:
            raise DataError(f"{where}: split is {short(split)}; it must be train, validation or test")
        seen |= {s2, s1}
        key = tuple(labels)
        if key not in known:
            known[key] = _labels(key, where)
        rows.append(MetadataRow(s2, s1, known[key], _SPLIT_NAMES[split], *rest))
    return rows


def read_table_split(path: Path, split: str) -> tuple[PairList, LabelTable]:
    """Return the pairs of one split, train, val (or validation) or test, in their order, and their labels.

    Raises:
        DataError: as for read_metadata, or the split is unknown or empty.
    """
    if split not in _SPLIT_NAMES:
        raise DataError(f"{path}:{split}: {split!r} is not a split; write train, val or test after the colon")
    table = _read_table(path)
    masks = _masks(table)
    if masks is None:  # some row is invalid: find it row by row
        rows = [row for row in _rows(table, path) if row.split == _SPLIT_NAMES[split]]
        pairs = PairList((row.s2 for row in rows), (row.s1 for row in rows))
        labels = LabelTable.of({row.s2: row.labels for row in rows})
    else:
        meant = pa.array([name for name, known in _SPLIT_NAMES.items() if known == _SPLIT_NAMES[split]])
        chosen = pc.is_in(table.column("split"), meant)
        s2, s1 = (table.column(name).filter(chosen).to_pylist() for name in ("patch_id", "s1_name"))
        pairs = PairList(s2, s1)
        labels = LabelTable(pairs.s2, masks[chosen.to_numpy()])
    if not pairs:
        raise DataError(f"{path}:{split}: this table has no pair in this split")
    return pairs, labels


def read_table_partners(path: Path) -> dict[str, str]:
    """Return Sentinel-2 patch name -> Sentinel-1 patch name; raises as read_metadata does."""
    table = _read_table(path)
    return dict(zip(*(table.column(_COLUMNS[field]).to_pylist() for field in ("s2", "s1")), strict=True))


def _masks(table: pa.Table) -> IntArray | None:
    """Return the labels of every row as bits, or None if a value is invalid; vectorised over columns."""
    s2, s1, split = (table.column(_COLUMNS[field]) for field in ("s2", "s1", "split"))
    lists = table.column("labels").combine_chunks()
    if any(pc.count_distinct(column).as_py() < table.num_rows for column in (s2, s1)):
        return None
    if not set(split.unique().to_pylist()) <= _SPLIT_NAMES.keys():
        return None
    coded = lists.flatten().dictionary_encode()
    try:
        known = [to_19_classes([name]) for name in coded.dictionary.to_pylist()]
    except DataError:
        return None
    bits = np.array([sum(1 << CLASS_INDEX[label] for label in labels) for labels in known], np.int32)
    masks = np.zeros(len(lists), np.int32)
    np.bitwise_or.at(masks, lists.value_parent_indices().to_numpy(), bits[coded.indices.to_numpy()])
    return masks


def _labels(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    try:
        return to_19_classes(names)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _read_table(path: Path) -> pa.Table:
    """Return the known columns with their types, without null values, with valid patch names."""
    try:
        present = set(pq.read_schema(path).names)
        lacking = [name for name in _COLUMNS.values() if name not in present]
        if lacking:
            raise DataError(f"{path}: column {', '.join(lacking)} is missing; give BigEarthNet v2's metadata.parquet")
        columns = [name for name in (*_COLUMNS.values(), *_OPTIONAL.values()) if name in present]
        table = pq.read_table(path, columns=columns, page_checksum_verification=True)
        table.validate(full=True)  # invalid UTF-8, invalid list offsets
    except FileNotFoundError as error:
        raise MissingDataError(
            f"{path}: there is no such parquet file; it is distributed with BigEarthNet v2"
        ) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a readable parquet file ({reason[:200]}); download it again") from error
    checked = pa.table({name: _checked(table.column(name), name, path) for name in columns})
    for name, pattern in ((_COLUMNS["s2"], S2_NAME), (_COLUMNS["s1"], S1_NAME)):
        fitting = pc.match_substring_regex(checked.column(name), f"^(?:{pattern.pattern})$")
        row = pc.index(fitting, False).as_py()
        if row >= 0:
            value = short(checked.column(name)[row].as_py())
            raise DataError(f"{path}, row {row}: {name} is {value}, which is not a patch name; download it again")
    return checked


def _checked(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """Return a column converted to its required type; refuse other types and null values."""
    wanted = _TYPES[name]
    holds_text = _is_text(column.type.value_type if _is_list(column.type) else column.type)
    if holds_text and wanted != pa.bool_() and _is_list(column.type) == _is_list(wanted):
        column = column.cast(wanted)
    if column.type != wanted:
        raise DataError(f"{path}: column {name} is {short(str(column.type))}, but must be {wanted}; download it again")
    row = pc.index(pc.is_null(column), True).as_py()
    if row >= 0 or (name == "labels" and pc.list_flatten(column).null_count):
        raise DataError(f"{path}, row {max(row, 0)}: {name} is empty; download the file again")
    return column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
