"""retrieval.h5: neighbours and metric curves per direction, with all that was computed from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.provenance import stamp
from bigearthnet_cbir.storage.hdf5 import NewFile, create_hdf5
from bigearthnet_cbir.storage.statistics import DirectionStatistics, read_statistics, write_statistics
from bigearthnet_cbir.types import IntArray, Neighbours

DIRECTIONS: Final = ("fused", "s1_s1", "s2_s2", "s1_s2", "s2_s1", "s1_fused", "s2_fused")
"""Query sensor, then archive sensor; fused compares the fused vectors (the original scripts' only direction)."""

ORIGINAL: Final = "original_convention"
CHANCE: Final = "chance"
_CHUNK_ROWS = 256
_COPIED_ROWS = 4096

Curves = Mapping[str, npt.NDArray[np.float64]]


class StoredDirection(NamedTuple):
    """One direction of a results file: its neighbours and all that was computed from them."""

    neighbours: Neighbours
    results: DirectionResults


def write_results(path: Path, attributes: Mapping[str, Any], directions: Mapping[str, StoredDirection]) -> None:
    """Write retrieval.h5, in one step.

    The datasets of the fused direction are linked at the root too, where older scripts look for them.

    Args:
        path: the file.
        attributes: what it is stamped with, beside the software's versions.
        directions: by name; neighbours may be memory maps, they are copied row block by row block.

    Raises:
        OSError: it cannot be written; an earlier file stays as it was.
    """
    with create_hdf5(path) as file:
        file.hdf5.attrs.update({**stamp(), **attributes})
        for name, (neighbours, results) in directions.items():
            group = file.hdf5.create_group(name)
            for dataset, values in (("retrieval_result", neighbours.indices), ("distance", neighbours.distances)):
                _copy_rows(file, group, dataset, values)
            _write_curves(group, results.curves)
            _write_curves(group.create_group(ORIGINAL), results.original)
            _write_curves(group.create_group(CHANCE), results.chance)
            write_statistics(group, results.statistics)
            file.check()
        for name, item in file.hdf5.get("fused", {}).items():
            if isinstance(item, h5py.Dataset):
                file.hdf5[name] = h5py.SoftLink(f"/fused/{name}")


def _copy_rows(file: NewFile, group: h5py.Group, name: str, values: npt.NDArray[Any]) -> None:
    rows = min(_CHUNK_ROWS, len(values))
    dataset = group.create_dataset(name, values.shape, values.dtype, chunks=(rows, values.shape[1]))
    for start in range(0, len(values), _COPIED_ROWS):
        dataset[start : start + _COPIED_ROWS] = values[start : start + _COPIED_ROWS]
        file.check()


def _write_curves(group: h5py.Group, curves: Curves) -> None:
    """Write (k,) float64 curves into a group."""
    for name, values in curves.items():
        group.create_dataset(name, data=np.asarray(values, dtype=np.float64))


@contextmanager
def open_results(path: Path) -> Iterator[h5py.File]:
    """Open a results file for reading.

    Raises:
        ResultsError: it is missing, broken, or no results file.
    """
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise ResultsError(f"{path}: no results here; run project/retrieval.py first") from error
    except OSError as error:
        raise ResultsError(f"{path}: is no readable HDF5 file (truncated?); run project/retrieval.py again") from error
    with file:
        if "average_precision" not in file and "fused" not in file:
            raise ResultsError(f"{path}: holds no retrieval results; give a retrieval.h5")
        yield file


def read_curves(group: h5py.Group) -> dict[str, npt.NDArray[np.float64]]:
    """Return the one-dimensional curves directly inside a group."""
    return {
        name: np.asarray(item[:], dtype=np.float64)
        for name, item in group.items()
        if isinstance(item, h5py.Dataset) and item.ndim == 1
    }


@dataclass(frozen=True)
class DirectionResults:
    """Curves of one direction; `chance` and `statistics` are empty in files of the original scripts."""

    curves: dict[str, npt.NDArray[np.float64]]
    chance: dict[str, npt.NDArray[np.float64]]
    original: dict[str, npt.NDArray[np.float64]]
    statistics: DirectionStatistics = field(default_factory=DirectionStatistics)


@dataclass(frozen=True)
class RunResults:
    """What a retrieval.h5 says, without the neighbours.

    Attributes:
        attributes: of the file: splits, sizes, distance, checkpoint, versions.
        directions: by name; a file of the original scripts has "fused" alone.
        original_only: whether the file was written by the original scripts, in their convention.
    """

    attributes: dict[str, Any]
    directions: dict[str, DirectionResults]
    original_only: bool


def read_results(path: Path) -> RunResults:
    """Read all curves of a retrieval.h5, ours or the original scripts'.

    Raises:
        ResultsError: it is missing, broken, or no results file.
    """
    with open_results(path) as file:
        attributes = dict(file.attrs)
        if "fused" not in file:
            curves = read_curves(file)
            return RunResults(attributes, {"fused": DirectionResults(curves, {}, curves)}, original_only=True)
        directions = {
            name: DirectionResults(
                read_curves(file[name]),
                _read_group(file[name], CHANCE),
                _read_group(file[name], ORIGINAL),
                read_statistics(file[name]),
            )
            for name in DIRECTIONS
            if name in file
        }
    return RunResults(attributes, directions, original_only=False)


class Top(NamedTuple):
    """The nearest few of every query.

    Attributes:
        attributes: of the file.
        indices: direction -> (Q, min(rank, k)) int32 archive positions.
    """

    attributes: dict[str, Any]
    indices: dict[str, IntArray]


def read_top(path: Path, rank: int) -> Top:
    """Read the `rank` nearest of every query from a retrieval.h5 of ours.

    Raises:
        ResultsError: it is missing, broken, or of the original scripts, which say nothing of the archive.
    """
    with open_results(path) as file:
        if "fused" not in file:
            raise ResultsError(f"{path}: written by the original scripts, query by query unknown; give a run of ours")
        indices = {name: file[name]["retrieval_result"][:, :rank] for name in DIRECTIONS if name in file}
        return Top(dict(file.attrs), indices)


def _read_group(group: h5py.Group, name: str) -> dict[str, npt.NDArray[np.float64]]:
    return read_curves(group[name]) if name in group else {}
