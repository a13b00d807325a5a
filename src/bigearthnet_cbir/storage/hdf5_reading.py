"""Opening HDF5 files that passed validation in a separate process, and reading arrays with checks of type and shape."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.storage.hdf5_verdicts import FileState, fault_of

NUMBERS: Final = "iuf"
"""Kinds of numeric data types."""


@contextmanager
def open_hdf5(path: Path, cure: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    The file is first validated in a separate process (hdf5_probe), because the HDF5 library may hang or crash on a
    damaged file. The validation is repeated only if the file has changed, and left out for a file that this process has
    just written.

    Args:
        path: the file.
        cure: advice for the error message.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: the file may not be read.
        ResultsError: it is not an HDF5 file, is damaged, or has content that this project never writes.
    """
    with path.open("rb") as stream:
        state = os.fstat(stream.fileno())
        signature = stream.read(8)
    found = "it is no HDF5 file"
    if signature == b"\x89HDF\r\n\x1a\n":
        found = fault_of(FileState.of(path, state))
    if found:
        raise ResultsError(f"{path}: is no readable file of features or results ({found}); {cure}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ResultsError(f"{path}: is no readable file of features or results ({error}); {cure}") from error
    with file:
        yield file


def dataset(group: h5py.Group, name: str, kinds: str, shape: tuple[int | None, ...]) -> h5py.Dataset:
    """Return a dataset of a group.

    Args:
        group: contains the dataset.
        name: in the group.
        kinds: NumPy's kind letters of the accepted data types; "S" represents text.
        shape: its lengths; None for any but 0.

    Raises:
        ResultsError: it is missing, of another type or of another shape.
    """
    item = group.get(name)
    if not isinstance(item, h5py.Dataset):
        raise ResultsError(f"{group.file.filename}: {name} of {group.name} is missing; run project/retrieval.py again")
    check_dataset(item, kinds, shape)
    return item


def check_dataset(item: h5py.Dataset, kinds: str, shape: tuple[int | None, ...]) -> None:
    """Raise ResultsError where a dataset is of another type or shape; arguments as in `dataset`."""
    dtype = item.dtype
    kind = "S" if h5py.check_string_dtype(dtype) is not None else dtype.kind
    fits = len(item.shape) == len(shape) and all(
        have == want if want is not None else have > 0 for have, want in zip(item.shape, shape, strict=True)
    )
    if kind not in kinds or not fits:
        group, _, name = item.name.rpartition("/")
        wanted = " x ".join("n" if length is None else str(length) for length in shape)
        raise ResultsError(
            f"{item.file.filename}: {name} of {group or '/'} is {dtype} of shape {item.shape}, not {wanted} values of "
            "its kind; run project/retrieval.py again"
        )


def read(item: h5py.Dataset, rows: Any = ()) -> npt.NDArray[Any]:
    """Return values of a dataset.

    Raises:
        ResultsError: a checksum does not match, or the disk fails.
    """
    try:
        return np.asarray(item[rows])
    except (OSError, RuntimeError) as error:
        raise ResultsError(
            f"{item.file.filename}: {item.name} cannot be read ({error}); run project/retrieval.py again"
        ) from error


def read_texts(item: h5py.Dataset) -> npt.NDArray[np.object_]:
    """Return a dataset of text as an array of str; errors as in `read`."""
    try:
        return np.asarray(item.asstr()[()], dtype=object)
    except (OSError, RuntimeError, UnicodeError) as error:
        raise ResultsError(
            f"{item.file.filename}: {item.name} cannot be read ({error}); run project/retrieval.py again"
        ) from error


def read_numbers(group: h5py.Group, name: str, shape: tuple[int | None, ...]) -> npt.NDArray[np.float64]:
    """Return a dataset of numbers as float64; errors as in `dataset` and `read`."""
    return np.asarray(read(dataset(group, name, NUMBERS, shape)), np.float64)
