"""HDF5 files of embeddings from any source, read as columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import h5py
import numpy.typing as npt

from bigearthnet_cbir.errors import MissingResultsError
from bigearthnet_cbir.storage.hdf5_reading import open_hdf5, read, read_texts
from bigearthnet_cbir.storage.results import read_attributes
from bigearthnet_cbir.types import Columns

_CURE: Final = "write it again"


def read_hdf5(path: Path) -> Columns:
    """Return the datasets at the root of an HDF5 file, and its attributes.

    Raises:
        ResultsError: it is missing or not a readable HDF5 file.
    """
    if not path.exists():
        raise MissingResultsError(f"{path}: there is no such file; give a file of embeddings")
    with open_hdf5(path, _CURE) as file:
        items = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset) and item.ndim}
        return Columns({name: _values(item) for name, item in items.items()}, read_attributes(file))


def _values(item: h5py.Dataset) -> npt.NDArray[Any]:
    return read_texts(item) if h5py.check_string_dtype(item.dtype) else read(item)
