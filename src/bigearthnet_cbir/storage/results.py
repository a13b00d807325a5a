"""retrieval.h5: neighbours and metrics per direction, written in one step and read as results.RunResults."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.errors import MissingResultsError, ResultsError
from bigearthnet_cbir.provenance import stamp
from bigearthnet_cbir.results import CurveVariant, DirectionResult, GroupMetrics, RunResults
from bigearthnet_cbir.storage.hdf5 import NewFile, create_hdf5
from bigearthnet_cbir.types import DoubleArray, Neighbours

_CHUNK_ROWS: Final = 256
_COPIED_ROWS: Final = 4096
_NOT_METRICS: Final = ("labels", "queries", "confusion")


def write_results(path: Path, attributes: Mapping[str, Any], directions: Mapping[str, DirectionResult]) -> None:
    """Write retrieval.h5, in one step.

    The datasets of the fused direction are linked at the root too, where older scripts look for them.

    Args:
        path: the file.
        attributes: what it is stamped with, beside the software's versions.
        directions: by name; their neighbours may be memory maps, they are copied block by block.

    Raises:
        OSError: it cannot be written; an earlier file stays as it was.
    """
    with create_hdf5(path) as file:
        file.hdf5.attrs.update({**stamp(), **attributes})
        for name, result in directions.items():
            _write_direction(file, file.hdf5.create_group(name), result)
            file.check()
        for name, item in file.hdf5.get("fused", {}).items():
            if isinstance(item, h5py.Dataset):
                file.hdf5[name] = h5py.SoftLink(f"/fused/{name}")


def _write_direction(file: NewFile, group: h5py.Group, result: DirectionResult) -> None:
    if result.neighbours is not None:
        _copy_rows(file, group, "retrieval_result", result.neighbours.indices)
        _copy_rows(file, group, "distance", result.neighbours.distances)
    _write_arrays(group, result.curves)
    _write_arrays(group.create_group("original_convention"), result.original)
    _write_arrays(group.create_group("chance"), result.chance)
    _write_arrays(group.create_group("intervals"), result.intervals)
    if result.per_class is not None:
        _write_groups(group.create_group("per_class"), result.per_class, "confusion", result.confusion)
    if result.per_label_count is not None:
        _write_groups(group.create_group("per_label_count"), result.per_label_count, "labels", None)
    for name, variant in (("tie_aware", result.tie_aware), ("exclude_within", result.exclude_within)):
        if variant is not None:
            place = group.create_group(name)
            _write_arrays(place, variant.curves)
            place.attrs.update(variant.numbers)


def _copy_rows(file: NewFile, group: h5py.Group, name: str, values: npt.NDArray[Any]) -> None:
    rows = min(_CHUNK_ROWS, len(values))
    dataset = group.create_dataset(name, values.shape, values.dtype, chunks=(rows, values.shape[1]))
    for start in range(0, len(values), _COPIED_ROWS):
        dataset[start : start + _COPIED_ROWS] = values[start : start + _COPIED_ROWS]
        file.check()


def _write_arrays(group: h5py.Group, arrays: Mapping[str, npt.ArrayLike]) -> None:
    for name, values in arrays.items():
        group.create_dataset(name, data=np.asarray(values, np.float64))


def _write_groups(group: h5py.Group, metrics: GroupMetrics, beside: str, matrix: DoubleArray | None) -> None:
    """Write the queries and values of groups; classes are told by their position, numbers of labels by `labels`."""
    group["queries"] = metrics.queries.astype(np.int64)
    if beside == "labels":
        group["labels"] = metrics.keys.astype(np.int64)
    elif matrix is not None:
        group[beside] = np.asarray(matrix, np.float64)
    _write_arrays(group, metrics.values)


@contextmanager
def open_results(path: Path) -> Iterator[h5py.File]:
    """Open a results file for reading.

    Raises:
        ResultsError: it is missing, broken, or no results file.
    """
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise MissingResultsError(f"{path}: no results here; run project/retrieval.py first") from error
    except OSError as error:
        raise ResultsError(f"{path}: is no readable HDF5 file (truncated?); run project/retrieval.py again") from error
    with file:
        if "average_precision" not in file and not any(map(_is_direction, file.values())):
            raise ResultsError(f"{path}: holds no retrieval results; give a retrieval.h5")
        yield file


def read_results(path: Path) -> RunResults:
    """Read all that a retrieval.h5 says but the neighbours; ours, or the original scripts'.

    Raises:
        ResultsError: it is missing, broken, or no results file.
    """
    with open_results(path) as file:
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
        configuration = _configuration(attributes.pop("configuration", None))
        if not any(map(_is_direction, file.values())):
            curves = _read_curves(file)
            only = DirectionResult(curves, original=curves, depth=_depth(file))
            return RunResults(attributes, configuration, {"fused": only}, original_only=True)
        names = [name for name in DIRECTIONS if name in file]
        names += [name for name, item in file.items() if name not in DIRECTIONS and _is_direction(item)]
        return RunResults(attributes, configuration, {name: _read_direction(file[name]) for name in names})


def read_neighbours(path: Path, direction: str, top: int) -> Neighbours:
    """Return the first `top` neighbours of every query of a direction.

    Raises:
        ResultsError: the file is missing or broken.
    """
    with open_results(path) as file:
        group = file.get(direction, file)
        return Neighbours(group["retrieval_result"][:, :top], group["distance"][:, :top])


def _is_direction(item: Any) -> bool:
    return isinstance(item, h5py.Group) and "precision" in item


def _read_direction(group: h5py.Group) -> DirectionResult:
    per_class = group.get("per_class")
    confusion = per_class.get("confusion") if per_class is not None else None
    return DirectionResult(
        curves=_read_curves(group),
        chance=_read_curves(group.get("chance", {})),
        original=_read_curves(group.get("original_convention", {})),
        intervals={name: (float(item[0]), float(item[1])) for name, item in group.get("intervals", {}).items()},
        per_class=_read_groups(per_class),
        per_label_count=_read_groups(group.get("per_label_count")),
        confusion=None if confusion is None else np.asarray(confusion[:], np.float64),
        tie_aware=_read_variant(group.get("tie_aware")),
        exclude_within=_read_variant(group.get("exclude_within")),
        depth=_depth(group),
    )


def _depth(group: h5py.Group) -> int:
    return int(group["retrieval_result"].shape[1]) if {"retrieval_result", "distance"} <= set(group) else 0


def _read_curves(group: Any) -> dict[str, DoubleArray]:
    """Return the one-dimensional curves directly inside a group."""
    return {
        name: np.asarray(item[:], np.float64)
        for name, item in group.items()
        if isinstance(item, h5py.Dataset) and item.ndim == 1
    }


def _read_groups(group: h5py.Group | None) -> GroupMetrics | None:
    if group is None or "queries" not in group:
        return None
    queries = np.asarray(group["queries"][:], np.int64)
    keys = np.asarray(group["labels"][:], np.int64) if "labels" in group else np.arange(len(queries))
    values = {
        name: np.asarray(item[:], np.float64)
        for name, item in group.items()
        if name not in _NOT_METRICS and isinstance(item, h5py.Dataset) and item.shape == (len(queries), 3)
    }
    return GroupMetrics(keys, queries, values)


def _read_variant(group: h5py.Group | None) -> CurveVariant | None:
    if group is None:
        return None
    numbers = {name: value.item() for name, value in group.attrs.items() if isinstance(value, np.number)}
    return CurveVariant(_read_curves(group), numbers)


def _plain(value: Any) -> Any:
    """Return an attribute as what Python prints simply: numbers, text, lists."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _configuration(text: Any) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
