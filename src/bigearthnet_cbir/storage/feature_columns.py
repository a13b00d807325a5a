"""HDF5 files of embeddings as columns, whoever wrote them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from bigearthnet_cbir.errors import MissingResultsError, ResultsError
from bigearthnet_cbir.types import Columns


def read_hdf5(path: Path) -> Columns:
    """Return the datasets at the root of an HDF5 file, and its attributes.

    Raises:
        ResultsError: it is missing or no readable HDF5 file.
    """
    try:
        with h5py.File(path, "r") as file:
            columns = {name: _values(item) for name, item in file.items() if isinstance(item, h5py.Dataset)}
            attributes = {
                name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
                for name, value in file.attrs.items()
            }
    except FileNotFoundError as error:
        raise MissingResultsError(f"{path}: there is no such file; give a file of embeddings") from error
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: is no readable HDF5 file (truncated?); write it again") from error
    return Columns({name: values for name, values in columns.items() if values.ndim}, attributes)


def _values(dataset: h5py.Dataset) -> np.ndarray:
    return np.asarray(dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else dataset[()])
