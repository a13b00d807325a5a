"""Labels and Sentinel-1 partners of the patches in embedding files: from the files, a table or an archive."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigearthnet_cbir.data import official_splits
from bigearthnet_cbir.data.labels import CLASSES, N_CLASSES, multi_hot, to_19_classes
from bigearthnet_cbir.data.metadata import read_metadata, read_table_partners
from bigearthnet_cbir.data.pair_list import PairList
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.directions import S1, S2
from bigearthnet_cbir.errors import DataError, short, summarize_names
from bigearthnet_cbir.pipelines.embedding_names import Sides
from bigearthnet_cbir.types import ByteArray

logger = logging.getLogger(__name__)

_COLUMNS = ("label", "labels")
_SEPARATOR = ";"


def read_label_column(columns: Mapping[str, Any], told: Mapping[str, Any], rows: int, path: Path) -> ByteArray | None:
    """Return the (N, 19) labels from the columns of a file, or None if it has none.

    The labels are either a matrix of 0 and 1 together with the class names of its columns (`class_names`), or class
    names for each row, of the 19- or the 43-class nomenclature, as a list or separated by semicolons.

    Raises:
        DataError: the matrix has no class names or another order of classes, or a value is not a label.
    """
    name = next((name for name in _COLUMNS if name in columns), None)
    if name is None:
        return None
    values, where = columns[name], f"{path}: {name}"
    if len(values) != rows:
        raise DataError(f"{where} has {len(values):,} rows, but the file has {rows:,} patch names; write it again")
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return _matrix(values, told.get("class_names"), where)
    return _of_names(list(values), where)


def _matrix(values: Any, class_names: Any, where: str) -> ByteArray:
    if class_names is None:
        raise DataError(
            f"{where} is a matrix, but the file does not give the class of each column; add class_names, or store "
            "a list of class names for each row"
        )
    given = [str(name) for name in class_names]
    if values.shape[1:] != (N_CLASSES,) or len(given) != N_CLASSES or set(given) != set(CLASSES):
        raise DataError(
            f"{where} has {len(given)} class names and a matrix {values.shape}; give the 19 classes, one per column"
        )
    if tuple(given) != CLASSES:
        column = next(column for column, name in enumerate(given) if name != CLASSES[column])
        raise DataError(
            f"{where} has the classes in another order: column {column} is {given[column]!r}, expected "
            f"{CLASSES[column]!r}; use the order of docs/formats.md, or store class names for each row"
        )
    if not np.isin(values, (0, 1)).all():
        raise DataError(f"{where} has values other than 0 and 1; store multi-hot labels")
    return np.asarray(values, np.uint8)


def _of_names(rows: Sequence[Any], where: str) -> ByteArray:
    labels = np.zeros((len(rows), N_CLASSES), np.uint8)
    known: dict[tuple[Any, ...], ByteArray] = {}
    for row, value in enumerate(rows):
        names = [part.strip() for part in value.split(_SEPARATOR) if part.strip()] if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            raise DataError(f"{where}, row {row:,} is {short(value)}; give the class names of the patch")
        key = tuple(names)
        try:
            labels[row] = known[key] = known[key] if key in known else multi_hot(to_19_classes(key))
        except DataError as error:
            raise DataError(f"{where}, row {row:,}: {error}") from error
    return labels


def labels_from(source: Path, pairs: PairList) -> ByteArray:
    """Return the (N, 19) labels of N pairs from a metadata.parquet or an archive (an LMDB folder).

    Raises:
        DataError: the source is malformed, or has no labels for some of the patches.
    """
    if source.suffix == ".parquet":
        table = {row.s2: row.labels for row in read_metadata(source)}
        found = [table.get(s2) for s2 in pairs.s2]
    else:
        store = PatchStore(source)
        held = {*pairs.s2, *pairs.s1}
        held -= set(store.missing(held))
        known = ([name for name in pair if name in held] for pair in pairs)
        found = [next((store.read(name).labels for name in names), None) for names in known]
    lacking = [pair.s2 for pair, labels in zip(pairs, found, strict=True) if labels is None]
    if lacking:
        raise DataError(
            f"{source}: has no labels for {len(lacking):,} of {len(pairs):,} patches ({summarize_names(lacking, 3)}); "
            "remove them from the embeddings, or give the labels of their version of BigEarthNet"
        )
    return np.stack([multi_hot(labels) for labels in found if labels is not None])


def pairs_of(names: Sides, labels: Path | None) -> PairList:
    """Return both names of each row. If the name of the partner is unknown, the known name is used for both.

    Partners are read from the metadata.parquet that provides the labels, or else from the official lists if installed.
    """
    if names.has(S1) and names.has(S2):
        return PairList(names.of(S2), names.of(S1))
    known = names.known
    for where, partners in _partner_lists(labels):
        table = partners if names.has(S2) else {s1: s2 for s2, s1 in partners.items()}
        others = [table.get(name) for name in known]
        if None not in others:
            logger.info("the patch names of the other sensor are taken from %s", where)
            found = [name for name in others if name is not None]
            return PairList(known, found) if names.has(S2) else PairList(found, known)
    logger.info("the patch names of the other sensor are unknown; the known name is recorded for both (%s)", known[0])
    return PairList(known, known)


def _partner_lists(labels: Path | None) -> Iterator[tuple[str, Mapping[str, str]]]:
    if labels is not None and labels.suffix == ".parquet":
        yield str(labels), read_table_partners(labels)
    if official_splits.is_installed():
        yield "the official lists", official_splits.read_official_partners()
