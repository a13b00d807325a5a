"""retrieval.h5: neighbours and metric curves per direction, written as they arrive and safe to interrupt."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.provenance import replace_file, stamp
from bigearthnet_cbir.storage.statistics import DirectionStatistics, read_statistics
from bigearthnet_cbir.types import IntArray, Neighbours

DIRECTIONS: Final = ("fused", "s1_s1", "s2_s2", "s1_s2", "s2_s1", "s1_fused", "s2_fused")
"""Query sensor, then archive sensor; fused compares the fused vectors (the original scripts' only direction)."""

ORIGINAL: Final = "original_convention"
CHANCE: Final = "chance"
_CHUNK_ROWS = 256

Curves = Mapping[str, npt.NDArray[np.float64]]


class PartialResults:
    """A search under way: .retrieval.h5.partial with all datasets laid out, and a note of the finished rows.

    The layout is complete and flushed before the first row is written, so a kill can only lose rows that the note
    does not count yet.
    """

    def __init__(self, path: Path) -> None:
        self.final = path
        self.path = path.with_name(f".{path.name}.partial")
        self._note = path.with_name(f".{path.name}.progress.json")

    def open(
        self, fingerprint: str, directions: tuple[str, ...], queries: int, k: int, attributes: Mapping[str, Any]
    ) -> bool:
        """Lay the file out, or keep the one that an interrupted search of the same fingerprint left.

        Returns:
            Whether finished rows were kept.
        """
        if self._progress().get("fingerprint") == fingerprint and self.path.exists():
            return True
        self.final.parent.mkdir(parents=True, exist_ok=True)
        self._note.unlink(missing_ok=True)
        with h5py.File(self.path, "w") as file:
            file.attrs.update({**stamp(), **attributes, "fingerprint": fingerprint})
            for direction in directions:
                group = file.create_group(direction)
                for name, dtype in (("retrieval_result", "i4"), ("distance", "f4")):
                    _allocate(group, name, (queries, k), dtype)
        self._write_note({"fingerprint": fingerprint, "rows": {}})
        return False

    def finished(self, direction: str) -> int:
        """Return how many queries of a direction are stored."""
        return int(self._progress().get("rows", {}).get(direction, 0))

    @contextmanager
    def writing(self) -> Iterator[h5py.File]:
        """Open the partial file to write rows and curves."""
        with h5py.File(self.path, "r+") as file:
            yield file

    def store(self, file: h5py.File, direction: str, start: int, found: Neighbours) -> None:
        """Store the neighbours of consecutive queries and count them as finished once they are on the disk."""
        stop = start + len(found.indices)
        file[direction]["retrieval_result"][start:stop] = found.indices
        file[direction]["distance"][start:stop] = found.distances
        file.flush()
        progress = self._progress()
        progress["rows"][direction] = stop
        self._write_note(progress)

    def publish(self) -> None:
        """Put the finished file in its place."""
        replace_file(self.path, self.final)
        self._note.unlink(missing_ok=True)

    def _progress(self) -> dict[str, Any]:
        try:
            content = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _write_note(self, content: dict[str, Any]) -> None:
        temporary = self._note.with_suffix(".tmp")
        temporary.write_text(json.dumps(content))
        os.replace(temporary, self._note)


def _allocate(group: h5py.Group, name: str, shape: tuple[int, int], dtype: str) -> None:
    """Create a chunked dataset with its space taken now, so that writing rows later changes no metadata."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((min(_CHUNK_ROWS, shape[0]), shape[1]))
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, properties)


def write_curves(group: h5py.Group, curves: Curves) -> None:
    """Write (k,) float64 curves into a group, replacing those that an interrupted run left."""
    for name, values in curves.items():
        if name in group:
            del group[name]
        group.create_dataset(name, data=np.asarray(values, dtype=np.float64))


def link_at_root(file: h5py.File) -> None:
    """Link the fused direction's datasets at the root, where older scripts look for them."""
    for name, item in file["fused"].items():
        if isinstance(item, h5py.Dataset) and name not in file:
            file[name] = h5py.SoftLink(f"/fused/{name}")


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
