"""codes.h5: the parameters of a run's binarizers, so that later queries get the same codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.provenance import stamp
from bigearthnet_cbir.storage.hdf5 import create_hdf5, row_chunks
from bigearthnet_cbir.storage.hdf5_reading import dataset, open_hdf5, read

logger = logging.getLogger(__name__)


def write_code_arrays(path: Path, fingerprint: str, kinds: Mapping[str, Mapping[str, Any]]) -> None:
    """Write codes.h5 atomically: a group for each kind of vectors, arrays as datasets, plain values as attributes.

    Args:
        path: the file.
        fingerprint: hash of everything that determines the arrays.
        kinds: kind of vectors -> `method`, `unit`, `thresholds` and, if used, `projection`.

    Raises:
        OSError: it cannot be written; an earlier file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with create_hdf5(path) as file:
        file.hdf5.attrs.update({**stamp(), "fingerprint": fingerprint})
        for kind, values in kinds.items():
            group = file.hdf5.create_group(kind)
            for name, value in values.items():
                if isinstance(value, np.ndarray):
                    group.create_dataset(name, data=value, **row_chunks(value.shape, value.itemsize))
                else:
                    group.attrs[name] = value


def read_code_arrays(path: Path, fingerprint: str | None = None) -> dict[str, dict[str, Any]] | None:
    """Return the arrays that `write_code_arrays` wrote; None if there is no file or its fingerprint differs.

    For a damaged file, a warning is logged and None is returned, because its content can be computed again.

    Args:
        path: the file.
        fingerprint: required fingerprint; None accepts any.
    """
    if not path.exists():
        return None
    try:
        with open_hdf5(path, "it is computed again") as file:
            if fingerprint is not None and file.attrs.get("fingerprint") != fingerprint:
                return None
            return {kind: _read_kind(group) for kind, group in file.items()}
    except ResultsError as error:
        logger.warning("%s; it is computed again", str(error).rpartition(";")[0] or error)
        return None


def _read_kind(group: h5py.Group) -> dict[str, Any]:
    thresholds = read(dataset(group, "thresholds", "f", (None,)))
    found: dict[str, Any] = {
        "method": str(group.attrs.get("method", "")),
        "unit": bool(group.attrs.get("unit", False)),
        "thresholds": thresholds,
    }
    if "projection" in group:
        found["projection"] = read(dataset(group, "projection", "f", (None, len(thresholds))))
    return found
