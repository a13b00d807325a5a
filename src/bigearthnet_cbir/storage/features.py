"""Feature files: query.h5 and archive.h5, stamped with what they were computed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.provenance import replace_file, stamp
from bigearthnet_cbir.types import ByteArray, PatchPair

FUSED, S1, S2 = "feature", "feature_s1", "feature_s2"
FEATURES = (FUSED, S1, S2)


class FeatureWriter:
    """Fills the datasets of a feature file batch by batch.

    Datasets: feature (N, D) float32, the fused vector; feature_s1 and feature_s2 (N, P) float32; label (N, L)
    uint8 multi-hot; patch_name (N, 2) text, Sentinel-1 then Sentinel-2.
    """

    def __init__(self, file: h5py.File, size: int) -> None:
        self._file = file
        self._size = size
        self._filled = 0

    def append(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Append a batch: the three feature matrices and label, all with the same number of rows.

        Raises:
            ResultsError: a feature is NaN or infinite.
        """
        rows = len(columns["label"])
        for name, values in columns.items():
            if name in FEATURES and not np.isfinite(values).all():
                raise ResultsError(
                    f"{name} of patches {self._filled}..{self._filled + rows - 1} is not finite; the checkpoint is "
                    "broken or precision: bf16 overflowed: use another checkpoint or precision: fp32"
                )
            if name not in self._file:
                self._file.create_dataset(name, (self._size, values.shape[1]), dtype=values.dtype)
            self._file[name][self._filled : self._filled + rows] = values
        self._filled += rows


@contextmanager
def write_features(
    path: Path, pairs: list[PatchPair], class_names: tuple[str, ...], attributes: Mapping[str, Any]
) -> Iterator[FeatureWriter]:
    """Write a feature file under a temporary name; it gets its own name when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with h5py.File(temporary, "w") as file:
        file.attrs.update({**stamp(), **attributes, "class_names": list(class_names)})
        names = [[pair.s1, pair.s2] for pair in pairs]
        file.create_dataset("patch_name", data=np.array(names, dtype=object), dtype=h5py.string_dtype())
        yield FeatureWriter(file, len(pairs))
    replace_file(temporary, path)


def read_fingerprint(path: Path) -> str | None:
    """Return the fingerprint that a feature or results file was written with, or None where it cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            value = file.attrs.get("fingerprint")
    except OSError:
        return None
    return str(value) if value is not None else None


@contextmanager
def open_features(path: Path) -> Iterator[h5py.File]:
    """Open a feature file to read its datasets in slices.

    Raises:
        ResultsError: the file is missing or broken.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ResultsError(f"{path}: is not a readable feature file; run project/retrieval.py to compute it") from error
    with file:
        yield file


def read_labels(path: Path) -> ByteArray:
    """Return the (N, L) label matrix of a feature file."""
    with open_features(path) as file:
        return np.asarray(file["label"][:], dtype=np.uint8)


def read_names(path: Path) -> list[PatchPair]:
    """Return the names of the pairs of a feature file."""
    with open_features(path) as file:
        return [PatchPair(s2=s2, s1=s1) for s1, s2 in file["patch_name"].asstr()[:]]
