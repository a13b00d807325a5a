"""retrieval.h5: neighbours and metrics per direction, written atomically and read as results.RunResults."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.errors import MissingResultsError, ResultsError, short
from bigearthnet_cbir.files import release_pages
from bigearthnet_cbir.provenance import stamp
from bigearthnet_cbir.results import CodeQuality, DirectionResult, GroupMetrics, RunResults
from bigearthnet_cbir.storage.hdf5 import NewFile, create_hdf5, row_chunks
from bigearthnet_cbir.storage.hdf5_reading import open_hdf5
from bigearthnet_cbir.storage.result_groups import (
    neighbour_depth,
    read_codes,
    read_curves,
    read_direction,
    read_rows,
    write_codes,
)
from bigearthnet_cbir.types import DoubleArray, Neighbours

logger = logging.getLogger(__name__)

_COPIED_ROWS: Final = 4096
_COUNTS: Final = ("queries", "archive_size", "k", "queries_without_labels", "archive_without_labels")
_TEXTS: Final = (
    "query_split", "archive_split", "distance", "feature_kind", "protocol", "convention", "checkpoint", "fingerprint",
    "query_content", "archive_content",
)  # fmt: skip


def write_results(
    path: Path,
    attributes: Mapping[str, Any],
    directions: Mapping[str, DirectionResult],
    codes: Sequence[CodeQuality] = (),
) -> None:
    """Write retrieval.h5 atomically.

    The datasets of the fused direction are also linked at the root, where older scripts expect them.

    Args:
        path: the file.
        attributes: file attributes, in addition to the software versions.
        directions: results by name; neighbours may be memory maps, which are copied in blocks.
        codes: the comparison of codes, if there is one.

    Raises:
        OSError: the file cannot be written; an existing file is kept.
    """
    with create_hdf5(path) as file:
        file.hdf5.attrs.update({**stamp(), **attributes})
        for name, result in directions.items():
            _write_direction(file, file.hdf5.create_group(name), result)
            file.check()
        if codes:
            write_codes(file.hdf5, codes)
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
    variants = {"tie_aware": result.tie_aware, "exclude_within": result.exclude_within, "rerank": result.rerank}
    for name, variant in variants.items():
        if variant is not None:
            place = group.create_group(name)
            _write_arrays(place, variant.curves)
            place.attrs.update(variant.numbers)


def _copy_rows(file: NewFile, group: h5py.Group, name: str, values: npt.NDArray[Any]) -> None:
    dataset = group.create_dataset(name, values.shape, values.dtype, **row_chunks(values.shape, values.itemsize))
    for start in range(0, len(values), _COPIED_ROWS):
        dataset[start : start + _COPIED_ROWS] = values[start : start + _COPIED_ROWS]
        release_pages(values)
        file.check()


def _write_arrays(group: h5py.Group, arrays: Mapping[str, npt.ArrayLike]) -> None:
    for name, values in arrays.items():
        _write_array(group, name, np.asarray(values, np.float64))


def _write_array(group: h5py.Group, name: str, values: npt.NDArray[Any]) -> None:
    group.create_dataset(name, data=values, **row_chunks(values.shape, values.itemsize))


def _write_groups(group: h5py.Group, metrics: GroupMetrics, beside: str, matrix: DoubleArray | None) -> None:
    """Write the queries and values of groups; classes are identified by position, numbers of labels by `labels`."""
    _write_array(group, "queries", metrics.queries.astype(np.int64))
    if beside == "labels":
        _write_array(group, "labels", metrics.keys.astype(np.int64))
    elif matrix is not None:
        _write_array(group, beside, np.asarray(matrix, np.float64))
    _write_arrays(group, metrics.values)


@contextmanager
def open_results(path: Path) -> Iterator[h5py.File]:
    """Open a results file for reading.

    Raises:
        ResultsError: the file is missing, damaged, or not a results file.
    """
    try:
        path.stat()
    except FileNotFoundError as error:
        raise MissingResultsError(f"{path}: no results here; run project/retrieval.py first") from error
    with open_hdf5(path, "run project/retrieval.py again") as file:
        if "average_precision" not in file and not _has_directions(file):
            raise ResultsError(f"{path}: has no retrieval results; give a retrieval.h5")
        yield file


def read_results(path: Path) -> RunResults:
    """Read a retrieval.h5 without its neighbours, of this project or of the original scripts.

    Raises:
        ResultsError: the file is missing, damaged, or not a results file.
    """
    with open_results(path) as file:
        attributes = read_attributes(file)
        configuration = read_configuration(attributes.pop("configuration", None))
        if not _has_directions(file):
            depth = neighbour_depth(file)
            curves = read_curves(file)
            only = DirectionResult(curves, original=curves, depth=depth)
            return RunResults(attributes, configuration, {"fused": only}, original_only=True)
        names = [name for name in DIRECTIONS if name in file]
        names += [name for name, item in file.items() if name not in DIRECTIONS and _is_direction(item)]
        found = {name: _direction(file, name, attributes) for name in names}
        return RunResults(attributes, configuration, found, codes=read_codes(file))


def read_neighbours(path: Path, direction: str, top: int) -> Neighbours:
    """Return the first `top` neighbours of every query of a direction.

    Raises:
        ResultsError: the file is missing or damaged, or its values cannot be neighbours.
    """
    with open_results(path) as file:
        group = file.get(direction, file)
        return read_rows(group, top, read_attributes(file).get("archive_size"))


def is_current(path: Path, fingerprint: str) -> bool:
    """Return whether a results file was computed from just this, and is whole down to its last neighbour."""
    try:
        with open_results(path) as file:
            if file.attrs.get("fingerprint") != fingerprint:
                return False
        for name, result in read_results(path).directions.items():
            read_neighbours(path, name, result.depth)
    except MissingResultsError:
        return False
    except ResultsError as error:
        logger.warning("%s; it is computed anew", str(error).rpartition(";")[0] or error)
        return False
    return True


def _direction(file: h5py.File, name: str, attributes: Mapping[str, Any]) -> DirectionResult:
    """Return a direction; ResultsError where it is not of the size that the attributes say."""
    group = file[name]
    if not isinstance(group, h5py.Group):
        raise ResultsError(f"{file.filename}: {name} is no direction of search; run project/retrieval.py again")
    found = read_direction(group)
    sizes = {"k": found.depth, "queries": len(group["retrieval_result"]) if found.depth else 0}
    if found.per_class is not None:
        sizes["class_names"] = len(found.per_class.keys)
    for key, size in sizes.items():
        told = attributes.get(key, size)
        told = len(told) if isinstance(told, list) else told
        if size and told != size:
            raise ResultsError(
                f"{file.filename}: {name} has {size:,} where attribute {key} says {told:,}; "
                "run project/retrieval.py again"
            )
    return found


def _has_directions(file: h5py.File) -> bool:
    """Return whether there are groups of directions, as only the original scripts' files have none of."""
    return "fused" in file or any(map(_is_direction, file.values()))


def _is_direction(item: Any) -> bool:
    return isinstance(item, h5py.Group) and "precision" in item


def read_attributes(file: h5py.File) -> dict[str, Any]:
    """Return a file's attributes as what Python prints simply: numbers, text, lists.

    Raises:
        ResultsError: one that is a number of queries or patches is not, or one that is text.
    """
    attributes = {name: _plain(value) for name, value in file.attrs.items()}
    counts = {name: attributes[name] for name in _COUNTS if name in attributes}
    texts = {name: attributes[name] for name in _TEXTS if name in attributes}
    wrong = [name for name, value in counts.items() if type(value) is not int or not 0 <= value < 2**31]
    wrong += [name for name, value in texts.items() if not isinstance(value, str)]
    for name in wrong:
        raise ResultsError(
            f"{file.filename}: attribute {name} is {short(attributes[name])}; run project/retrieval.py again"
        )
    classes = attributes.get("class_names", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) and name for name in classes):
        raise ResultsError(
            f"{file.filename}: attribute class_names is {short(classes)}; run project/retrieval.py again"
        )
    return attributes


def _plain(value: Any) -> Any:
    """Convert an attribute to a plain Python value: number, text or list."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def read_configuration(text: Any) -> dict[str, Any]:
    """Return the configuration that a file was stamped with; empty where there is none that can be read."""
    try:
        content = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
