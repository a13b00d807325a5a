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
from bigearthnet_cbir.errors import DataError, MissingDataError
from bigearthnet_cbir.types import IntArray

_SPLIT_NAMES: Final = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_COLUMNS: Final = {"s2": "patch_id", "s1": "s1_name", "labels": "labels", "split": "split"}
_OPTIONAL: Final = {"country": "country", "snow": "contains_seasonal_snow", "cloud": "contains_cloud_or_shadow"}


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
        DataError: the file is missing, no parquet, lacks a column, or has a value outside its rules.
    """
    return _rows(_read_table(path), path)


def _rows(table: pa.Table, path: Path) -> list[MetadataRow]:
    values: dict[str, list[Any]] = {field: table.column(name).to_pylist() for field, name in _COLUMNS.items()}
    for field, name in _OPTIONAL.items():
        default = "" if field == "country" else False
        present = name in table.column_names
        values[field] = table.column(name).to_pylist() if present else [default] * table.num_rows
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # a few thousand label sets serve half a million rows
    rows = []
    seen: set[str] = set()
    for number, (s2, s1, labels, split, *rest) in enumerate(zip(*values.values(), strict=True)):
        where = f"{path}, row {number}"
        if not isinstance(s2, str) or not isinstance(s1, str) or labels is None:
            raise DataError(f"{where}: patch_id, s1_name or labels is empty; download the file again")
        if s2 in seen:
            raise DataError(f"{where}: {s2} is there twice; download the file again")
        if split not in _SPLIT_NAMES:
            raise DataError(f"{where}: split is {split!r}; it must be train, validation or test")
        seen.add(s2)
        key = tuple(labels)
        if key not in known:
            known[key] = _labels(key, where)
        rows.append(MetadataRow(s2, s1, known[key], _SPLIT_NAMES[split], *rest))
    return rows


def read_split(path: Path, split: str) -> tuple[PairList, LabelTable]:
    """Return the pairs of one split, train, val (or validation) or test, in their order, and their labels.

    Raises:
        DataError: as for read_metadata, or the split is unknown or empty.
    """
    if split not in _SPLIT_NAMES:
        raise DataError(f"{path}:{split}: {split!r} is no split; write train, val or test after the colon")
    table = _read_table(path)
    masks = _masks(table)
    if masks is None:  # something is wrong somewhere, or stored in another type: row by row tells
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
        raise DataError(f"{path}:{split}: this table has no pair of that split")
    return pairs, labels


def read_partners(path: Path) -> dict[str, str]:
    """Return Sentinel-2 patch name -> Sentinel-1 patch name; raises as read_metadata does."""
    table = _read_table(path)
    return dict(zip(*(table.column(_COLUMNS[field]).to_pylist() for field in ("s2", "s1")), strict=True))


def _masks(table: pa.Table) -> IntArray | None:
    """Return the labels of every row as bits, or None where the table breaks a rule; whole columns at a time."""
    s2, s1, split = (table.column(_COLUMNS[field]) for field in ("s2", "s1", "split"))
    lists = table.column("labels").combine_chunks()
    if not pa.types.is_list(lists.type) or not all(pa.types.is_string(column.type) for column in (s2, s1, split)):
        return None
    names = lists.flatten()
    if any(column.null_count for column in (s2, s1, split, lists, names)):
        return None
    if pc.count_distinct(s2).as_py() < table.num_rows or not set(split.unique().to_pylist()) <= _SPLIT_NAMES.keys():
        return None
    coded = names.dictionary_encode()
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


def _read_table(path: Path) -> Any:
    try:
        present = set(pq.read_schema(path).names)
        lacking = [name for name in _COLUMNS.values() if name not in present]
        if lacking:
            raise DataError(f"{path}: column {', '.join(lacking)} is missing; give BigEarthNet v2's metadata.parquet")
        return pq.read_table(path, columns=[n for n in (*_COLUMNS.values(), *_OPTIONAL.values()) if n in present])
    except FileNotFoundError as error:
        raise MissingDataError(
            f"{path}: there is no such parquet file; it lies beside the BigEarthNet v2 archives"
        ) from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a readable parquet file ({reason}); download it again") from error
