"""Feature files query.h5 and archive.h5, and the blocks of rows that an interrupted extraction leaves."""

from __future__ import annotations

import hashlib
import logging
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import MissingResultsError, ResultsError, short
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.provenance import stamp
from bigearthnet_cbir.storage.feature_stamps import CONTENT, read_fingerprint, stamped_digest
from bigearthnet_cbir.storage.hdf5 import NewFile, create_hdf5, row_chunks
from bigearthnet_cbir.storage.hdf5_reading import dataset, open_hdf5, read, read_texts
from bigearthnet_cbir.types import ByteArray, PatchPair

logger = logging.getLogger(__name__)

FUSED_FEATURE, S1_FEATURE, S2_FEATURE = "feature", "feature_s1", "feature_s2"
FEATURES = (FUSED_FEATURE, S1_FEATURE, S2_FEATURE)
NAMES: Final = "patch_name"
DATASETS: Final = {"fused": FUSED_FEATURE, "s1": S1_FEATURE, "s2": S2_FEATURE}
"""Datasets of the features by their name in a direction."""
OUTSIDE: Final = "made outside this project"
"""Attribute `vectors` of files whose vectors no network of this project computed."""
_DIGEST: Final = "sha256"
"""Attribute of each dataset: its own digest, which is checked where the dataset is read as a whole."""
_BLOCK: Final = 1 << 14
_CURE: Final = "run project/retrieval.py to compute it"


class FeatureWriter:
    """Writes the datasets of a feature file batch by batch.

    Datasets: feature (N, D) float32, the fused vector; feature_s1 and feature_s2 (N, P) float32; label (N, L)
    uint8 multi-hot; patch_name (N, 2) text, Sentinel-1 then Sentinel-2. Vectors of one sensor alone, as other
    programs make them, leave the other datasets of features out.
    """

    def __init__(self, file: NewFile, names: list[list[str]]) -> None:
        self._file = file
        self._size = len(names)
        self._filled = 0
        self._digests = {NAMES: _new_digest(NAMES, names)}

    def append(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Append a batch: the three feature matrices and label, all with the same number of rows.

        Raises:
            ResultsError: a feature is NaN or infinite.
            OSError: the disk is full, for example.
        """
        rows = len(columns["label"])
        for name, values in columns.items():
            if name in FEATURES and not np.isfinite(values).all():
                raise ResultsError(
                    f"{name} of patches {self._filled}..{self._filled + rows - 1} is not finite; the checkpoint is "
                    "damaged or precision: bf16 overflowed; use another checkpoint or precision: fp32"
                )
            if name not in self._file.hdf5:
                shape = (self._size, values.shape[1])
                self._file.hdf5.create_dataset(name, shape, dtype=values.dtype, **row_chunks(shape, values.itemsize))
                self._digests[name] = _new_digest(name, None)
            self._file.hdf5[name][self._filled : self._filled + rows] = values
            self._digests[name].update(np.ascontiguousarray(values).data)
        self._filled += rows
        self._file.check()

    def finish(self) -> None:
        """Write the digest of the content as an attribute.

        Raises:
            ResultsError: fewer rows than names were appended.
        """
        if self._filled != self._size:
            raise ResultsError(f"{self._filled:,} of {self._size:,} rows of features were computed; extract them again")
        for name, digest in self._digests.items():
            self._file.hdf5[name].attrs[_DIGEST] = digest.hexdigest()
        self._file.hdf5.attrs[CONTENT] = _joined_digest(self._digests)


@contextmanager
def write_features(
    path: Path, pairs: Sequence[PatchPair], class_names: tuple[str, ...], attributes: Mapping[str, Any]
) -> Iterator[FeatureWriter]:
    """Write a feature file under a temporary name, and rename it if the block ends without an error.

    Raises:
        OSError: the file cannot be written; an existing file is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with create_hdf5(path) as file:
        file.hdf5.attrs.update({**stamp(), **attributes, "class_names": list(class_names)})
        names = [[pair.s1, pair.s2] for pair in pairs]
        _write_names(file.hdf5, names)
        writer = FeatureWriter(file, names)
        yield writer
        writer.finish()


def _write_names(file: h5py.File, names: list[list[str]]) -> None:
    """Write names in the length of the longest: text of any length has no checksum in HDF5."""
    encoded = np.array([[name.encode() for name in row] for row in names], dtype=np.bytes_).reshape(-1, 2)
    dtype = h5py.string_dtype(length=encoded.itemsize)
    file.create_dataset(NAMES, data=encoded.astype(dtype), dtype=dtype, **row_chunks(encoded.shape, encoded.itemsize))


def _new_digest(name: str, names: list[list[str]] | None) -> hashlib._Hash:
    digest = hashlib.sha256(f"{name}\n".encode())
    if names is not None:
        digest.update("\n".join(map("\t".join, names)).encode())
    return digest


def _joined_digest(digests: Mapping[str, hashlib._Hash]) -> str:
    """Return one digest of all datasets, independent of their order."""
    return hashlib.sha256("".join(digests[name].hexdigest() for name in sorted(digests)).encode()).hexdigest()


def write_block(path: Path, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a block of rows, as FeatureWriter.append takes it, to a file of its own; raises OSError."""
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **columns)  # type: ignore[arg-type]


def read_block(path: Path, rows: int) -> dict[str, npt.NDArray[Any]] | None:
    """Return a block that write_block wrote, or None, with a warning, unless it is intact and has that many rows."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # before NumPy parses anything
        if damaged is None:
            with np.load(path, allow_pickle=False) as file:
                columns = {name: file[name] for name in file.files}
            if {len(values) for values in columns.values()} == {rows}:
                return columns
    except (OSError, ValueError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logger.debug("%s", path, exc_info=error)
    logger.warning("%s: a block of an interrupted extraction is damaged; it is computed again", path)
    return None


def content_digest(path: Path) -> str | None:
    """Return the digest of a feature file's datasets on the disk, or None if they cannot be read."""
    try:
        with open_features(path) as file:
            digests = {NAMES: _new_digest(NAMES, read_texts(dataset(file, NAMES, "S", (None, 2))).tolist())}
            for name in (name for name in (*FEATURES, "label") if name in file):
                digests[name] = _new_digest(name, None)
                stored = dataset(file, name, "iuf", (None, None))
                for start in range(0, len(stored), _BLOCK):
                    digests[name].update(np.ascontiguousarray(read(stored, slice(start, start + _BLOCK))).data)
    except (ResultsError, OSError):
        return None
    return _joined_digest(digests)


def reusable_digest(path: Path, fingerprint: str) -> str | None:
    """Return the content digest of an intact feature file with this fingerprint, else None."""
    if read_fingerprint(path) != fingerprint:
        return None
    found = content_digest(path)
    if found is None or stamped_digest(path) != found:
        logger.warning("%s: its content is not what was written; it is computed again", path)
        return None
    return found


@contextmanager
def open_features(path: Path) -> Iterator[h5py.File]:
    """Open a feature file for reading its datasets in slices.

    Raises:
        ResultsError: the file is missing or damaged, or its datasets have different numbers of pairs.
    """
    try:
        path.stat()
    except FileNotFoundError as error:
        raise MissingResultsError(f"{path}: no features; run project/retrieval.py to compute them") from error
    with open_hdf5(path, _CURE) as file:
        _check_layout(file)
        yield file


def _check_layout(file: h5py.File) -> None:
    """Raise ResultsError unless the datasets that are there have the types and shapes of features of as many pairs."""
    rows = len(dataset(file, NAMES, "S", (None, 2)))
    dataset(file, "label", "iuf", (rows, None))
    for name in FEATURES:
        if name in file:
            dataset(file, name, "f", (rows, None))


def _check_digest(item: h5py.Dataset, digest: hashlib._Hash) -> None:
    """Raise ResultsError where a dataset's own digest, if it has one, is not that of its content."""
    stored = item.attrs.get(_DIGEST)
    if stored is not None and stored != digest.hexdigest():
        raise ResultsError(f"{item.file.filename}: {item.name} is not what was written; {_CURE}")


def read_labels(path: Path) -> ByteArray:
    """Return the (N, L) label matrix of a feature file.

    Raises:
        ResultsError: the file is missing or broken, or a label is not 0 or 1.
    """
    with open_features(path) as file:
        labels = read(file["label"])
        digest = _new_digest("label", None)
        digest.update(np.ascontiguousarray(labels).data)
        _check_digest(file["label"], digest)
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ResultsError(f"{path}: label {column} of row {row} is {labels[row, column]}, not 0 or 1; {_CURE}")
    return labels.astype(np.uint8)


def read_names(path: Path) -> list[PatchPair]:
    """Return the names of the pairs of a feature file.

    Raises:
        ResultsError: the file is missing or broken, or a name is empty.
    """
    with open_features(path) as file:
        names = read_texts(file[NAMES]).tolist()
        _check_digest(file[NAMES], _new_digest(NAMES, names))
    for row, pair in enumerate(names):
        if not all(name.isprintable() and name for name in pair):
            raise ResultsError(f"{path}: row {row} has no names of patches, but {short(pair)}; {_CURE}")
    return [PatchPair(s2=s2, s1=s1) for s1, s2 in names]
