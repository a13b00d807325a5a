"""Reading and validation of embedding files from any source: vectors per modality, names of patches, labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bigearthnet_cbir.data.embedding_columns import UNNAMED, read_npy, read_npz, read_parquet
from bigearthnet_cbir.data.places import names_agree
from bigearthnet_cbir.directions import FUSED, S1, S2
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.pipelines.embedding_labels import read_label_column
from bigearthnet_cbir.pipelines.embedding_names import Sides, read_sides
from bigearthnet_cbir.storage.feature_columns import read_hdf5
from bigearthnet_cbir.types import ByteArray, Columns, FloatArray, PatchPair

READERS: Final[Mapping[str, Callable[[Path], Columns]]] = {
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".npz": read_npz,
    ".npy": read_npy,
    ".parquet": read_parquet,
    ".geoparquet": read_parquet,
}
"""File name suffix -> reader."""

VECTORS: Final = {
    FUSED: ("feature", "fused", "embedding_fused"),
    S1: ("feature_s1", "s1", "embedding_s1"),
    S2: ("feature_s2", "s2", "embedding_s2"),
}
"""Names of the columns of vectors."""

_UNNAMED: Final = (UNNAMED, "embeddings", "vector")


@dataclass(frozen=True)
class EmbeddingTable:
    """The rows of one file, or of several files that hold one sensor each.

    Attributes:
        source: names of the files, for messages.
        names: of the patches of each sensor that the files give.
        vectors: fused, s1 or s2 -> (N, D) float32, finite.
        labels: (N, 19) uint8 in the order of data.labels.CLASSES, or None if the files have none.
        told: metadata of the files that apply to all rows.
    """

    source: str
    names: Sides
    vectors: dict[str, FloatArray]
    labels: ByteArray | None
    told: dict[str, Any]

    def __len__(self) -> int:
        return len(self.names)


def read_embeddings(paths: Sequence[Path], sensor: str | None = None) -> EmbeddingTable:
    """Read one file, or several with the same patches in the same order, for example one for each sensor.

    Args:
        paths: .h5, .npz, .npy, .parquet.
        sensor: modality of a matrix whose name does not give it: s1, s2 or fused; None: the sensor of the names, fused
            if the file has the names of both.

    Raises:
        DataError, ResultsError: a file is missing or malformed, or two of them do not match; the message has one line.
    """
    table = _read(paths[0], sensor)
    for path in paths[1:]:
        table = _merge(table, _read(path, sensor))
    return table


def _read(path: Path, sensor: str | None) -> EmbeddingTable:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: the format is not supported; convert it to one of {', '.join(READERS)}")
    columns, told = reader(path)
    names = read_sides(columns, path)
    vectors = {}
    for side, known in {**VECTORS, "": _UNNAMED}.items():
        found = [name for name in known if name in columns]
        if found:
            vectors[side or sensor or names.side] = _matrix(columns[found[0]], names, f"{path}: {found[0]}")
    if not vectors:
        words = ", ".join((*VECTORS[FUSED], *VECTORS[S1], *VECTORS[S2], *_UNNAMED))
        raise DataError(
            f"{path}: no column of vectors among {', '.join(columns) or '0 columns'}; name it one of {words}"
        )
    return EmbeddingTable(str(path), names, vectors, read_label_column(columns, told, len(names), path), told)


def _matrix(values: Any, names: Sides, where: str) -> FloatArray:
    """Return (N, D) float32 vectors; raise DataError if the values are not a matrix of finite numbers."""
    given = np.asarray(values)
    if given.ndim != 2 or given.dtype.kind != "f" or given.shape[1] == 0:
        raise DataError(f"{where} is {given.dtype} of shape {given.shape}; vectors must be floats of shape (N, D)")
    if len(given) != len(names):
        raise DataError(f"{where} has {len(given):,} rows, but the file has {len(names):,} patch names; write it again")
    with np.errstate(over="ignore"):  # float64 values beyond float32 become infinite, which is rejected below
        vectors = np.ascontiguousarray(given, np.float32)
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        row = int(broken[0])
        raise DataError(
            f"{where} has NaN or infinity in {len(broken):,} rows, first in row {row:,} ({names.known[row]}); "
            "embed these patches again or remove them"
        )
    return vectors


def _merge(one: EmbeddingTable, other: EmbeddingTable) -> EmbeddingTable:
    """Return the columns of both; raise DataError unless their rows are the same patches in the same order."""
    _check_order(one, other)
    twice = sorted(one.vectors.keys() & other.vectors.keys())
    if twice:
        raise DataError(f"{other.source}: has {twice[0]} vectors, but so has {one.source}; give one file per sensor")
    if one.labels is not None and other.labels is not None and not np.array_equal(one.labels, other.labels):
        row = int(np.flatnonzero((one.labels != other.labels).any(axis=1))[0])
        raise DataError(f"{other.source}, row {row:,}: labels differ from {one.source}; use one source of labels")
    return replace(
        one,
        source=f"{one.source} and {other.source}",
        names=one.names.merged(other.names),
        vectors={**one.vectors, **other.vectors},
        labels=other.labels if one.labels is None else one.labels,
        told={**other.told, **one.told},
    )


def _check_order(one: EmbeddingTable, other: EmbeddingTable) -> None:
    if len(one) != len(other):
        raise DataError(
            f"{other.source}: has {len(other):,} rows, but {one.source} has {len(one):,}; give the same patches in both"
        )
    shared = [side for side in (S2, S1) if one.names.has(side) and other.names.has(side)]
    if shared:
        wrong = (row for row, (a, b) in enumerate(zip(one.names.of(shared[0]), other.names.of(shared[0]), strict=True))
                 if a != b)  # fmt: skip
    else:
        merged = one.names.merged(other.names)
        pairs = zip(merged.of(S2), merged.of(S1), strict=True)
        wrong = (row for row, (s2, s1) in enumerate(pairs) if names_agree(PatchPair(s2=s2, s1=s1)) is False)
    row = next(wrong, None)
    if row is not None:
        raise DataError(
            f"{other.source}, row {row:,}: is {other.names.known[row]}, but {one.source} has {one.names.known[row]}; "
            "write both files in the same order"
        )
