"""The groups of a retrieval.h5 (directions and the comparison of codes), read with validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import h5py
import numpy as np

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.results import CodeQuality, Curves, CurveVariant, DirectionResult, GroupMetrics
from bigearthnet_cbir.storage.hdf5 import row_chunks
from bigearthnet_cbir.storage.hdf5_reading import NUMBERS, check_dataset, dataset, read, read_numbers, read_texts
from bigearthnet_cbir.types import DoubleArray, Neighbours

_CODES: Final = "code_comparison"
"""Group that compares codes of every method and length."""

_CURE: Final = "run project/retrieval.py again"
_UNBOUNDED: Final = frozenset({"average_cumulative_gains", "weighted_avg_precision"})
"""Curves that count labels; all others are in 0..1."""
_ROUNDING: Final = 1e-6
_VALUES: Final = 3


def read_direction(group: h5py.Group) -> DirectionResult:
    """Return the content of a direction's group except for the neighbours.

    Raises:
        ResultsError: curves differ in length, a value is outside the range of its metric, or a part is malformed.
    """
    per_class, per_label_count = _subgroup(group, "per_class"), _subgroup(group, "per_label_count")
    intervals = _subgroup(group, "intervals")
    depth = neighbour_depth(group)
    curves = read_curves(group, depth)
    length = len(next(iter(curves.values()), ()))
    return DirectionResult(
        curves=curves,
        chance=_read_part(group, "chance", length),
        original=_read_part(group, "original_convention", length),
        intervals={} if intervals is None else {name: _read_interval(intervals, name) for name in intervals},
        per_class=_read_groups(per_class),
        per_label_count=_read_groups(per_label_count),
        confusion=_read_confusion(per_class),
        tie_aware=_read_variant(_subgroup(group, "tie_aware")),
        exclude_within=_read_variant(_subgroup(group, "exclude_within")),
        rerank=_read_variant(_subgroup(group, "rerank")),
        depth=depth,
    )


def read_curves(group: h5py.Group, length: int = 0) -> dict[str, DoubleArray]:
    """Return the one-dimensional curves directly in a group. All have one length: `length`, unless it is 0.

    Raises:
        ResultsError: the lengths differ, or a value is outside the range of its metric.
    """
    curves = {}
    for name, item in group.items():
        if isinstance(item, h5py.Dataset) and item.ndim == 1:
            check_dataset(item, NUMBERS, (length or None,))
            curves[name] = np.asarray(read(item), np.float64)
    if len({len(curve) for curve in curves.values()}) > 1:
        raise ResultsError(f"{_where(group)}: its curves have different lengths; {_CURE}")
    for name, curve in curves.items():
        _check_values(group, name, curve)
    return curves


def neighbour_depth(group: h5py.Group) -> int:
    """Return k of the stored neighbours, or 0 if there are none.

    Raises:
        ResultsError: their indices and distances have wrong types or shapes.
    """
    if not {"retrieval_result", "distance"} <= set(group):
        return 0
    indices = dataset(group, "retrieval_result", "iuf", (None, None))
    return int(dataset(group, "distance", "f", indices.shape).shape[1])


def read_rows(group: h5py.Group, top: int, archive: int | None) -> Neighbours:
    """Return the first neighbours of every query.

    Args:
        group: of a direction.
        top: number of neighbours per query.
        archive: number of archive items, above all indices; None if the file does not record it.

    Raises:
        ResultsError: they are missing or invalid.
    """
    if not neighbour_depth(group):
        raise ResultsError(f"{_where(group)}: holds no neighbours; {_CURE}")
    dataset(group, "retrieval_result", "iu", (None, None))
    part = np.s_[:, :top]
    indices, distances = read(group["retrieval_result"], part), read(group["distance"], part)
    ordered = np.sort(indices, axis=1)
    possible = int(ordered.min()) >= 0 and int(ordered.max()) < (2**31 if archive is None else archive)
    apart = bool((ordered[:, 1:] != ordered[:, :-1]).all())
    rising = bool(np.isfinite(distances).all() and (distances[:, 1:] >= distances[:, :-1]).all())
    if not (possible and apart and rising):
        why = "positions outside the archive" if not possible else "a position twice" if not apart else "no order"
        raise ResultsError(f"{_where(group)}: its neighbours are damaged ({why}); {_CURE}")
    return Neighbours(indices.astype(np.int32, copy=False), distances.astype(np.float32, copy=False))


def write_codes(file: h5py.File, codes: Sequence[CodeQuality]) -> None:
    """Write the comparison of codes to a results file, with one dataset for each field."""
    group = file.create_group(_CODES)
    for name, column in zip(CodeQuality._fields, zip(*codes, strict=True), strict=True):
        if isinstance(column[0], str):
            group.create_dataset(name, data=np.array(column, dtype=object), dtype=h5py.string_dtype())
        else:
            values = np.array(column)
            group.create_dataset(name, data=values, **row_chunks(values.shape, values.itemsize))


def read_codes(file: h5py.Group) -> tuple[CodeQuality, ...]:
    """Return the comparison of codes in a file; empty if it has none.

    Raises:
        ResultsError: its columns differ in length or type, or a value is outside the range of its metric.
    """
    group = _subgroup(file, _CODES)
    if group is None:
        return ()
    rows = len(dataset(group, "direction", "S", (None,)))
    texts = [read_texts(dataset(group, name, "S", (rows,))).tolist() for name in ("direction", "method")]
    sizes = [read(dataset(group, name, "iu", (rows,))).tolist() for name in ("bits", "bytes")]
    figures = [read_numbers(group, name, (rows,)) for name in ("f1", "mean_ap")]
    for name, values in zip(("f1", "mean_ap"), figures, strict=True):
        _check_values(group, name, values)
    if min(map(min, sizes)) < 1:
        raise ResultsError(f"{_where(group)}: a code of no bits; {_CURE}")
    columns = (*texts, *sizes, *(values.tolist() for values in figures))
    return tuple(CodeQuality(*row) for row in zip(*columns, strict=True))


def _where(group: h5py.Group) -> str:
    return f"{group.file.filename}: {group.name}"


def _subgroup(group: h5py.Group, name: str) -> h5py.Group | None:
    item = group.get(name)
    if item is not None and not isinstance(item, h5py.Group):
        raise ResultsError(f"{_where(group)}/{name}: is no group of values; {_CURE}")
    return item


def _read_part(group: h5py.Group, name: str, length: int) -> Curves:
    part = _subgroup(group, name)
    return {} if part is None else read_curves(part, length)


def _check_values(group: h5py.Group, name: str, values: DoubleArray) -> None:
    """Raise ResultsError if a metric is outside its range. NaN is valid: the metric of no queries."""
    upper = math.inf if name in _UNBOUNDED else 1 + _ROUNDING
    if not ((values >= -_ROUNDING) & (values <= upper) | np.isnan(values)).all() or np.isinf(values).any():
        raise ResultsError(f"{_where(group)}/{name}: holds values outside 0..1; {_CURE}")


def _read_interval(group: h5py.Group, name: str) -> tuple[float, float]:
    lower, upper = read_numbers(group, name, (2,))
    if lower > upper or math.isinf(lower) or math.isinf(upper):
        raise ResultsError(f"{_where(group)}/{name}: is no interval, {lower} to {upper}; {_CURE}")
    return float(lower), float(upper)


def _read_confusion(group: h5py.Group | None) -> DoubleArray | None:
    if group is None or "confusion" not in group:
        return None
    classes = len(dataset(group, "queries", "iu", (None,)))
    values = read_numbers(group, "confusion", (classes, classes))
    _check_values(group, "confusion", values)
    return values


def _read_groups(group: h5py.Group | None) -> GroupMetrics | None:
    if group is None or "queries" not in group:
        return None
    queries = np.asarray(read(dataset(group, "queries", "iu", (None,))), np.int64)
    size = len(queries)
    keys = np.arange(size)
    if "labels" in group:
        keys = np.asarray(read(dataset(group, "labels", "iu", (size,))), np.int64)
    if (queries < 0).any() or (np.diff(keys) <= 0).any() or keys[0] < 0:
        raise ResultsError(f"{_where(group)}: its groups of queries are damaged; {_CURE}")
    values = {
        name: read_numbers(group, name, (size, _VALUES))
        for name in group
        if name not in ("labels", "queries", "confusion")
    }
    for name, numbers in values.items():
        _check_values(group, name, numbers)
        if (numbers[:, 1] > numbers[:, 2]).any():
            raise ResultsError(f"{_where(group)}/{name}: an interval's ends are swapped; {_CURE}")
    return GroupMetrics(keys, queries, values)


def _read_variant(group: h5py.Group | None) -> CurveVariant | None:
    if group is None:
        return None
    numbers: dict[str, Any] = {name: _number(group, name) for name in group.attrs}
    return CurveVariant(read_curves(group), numbers)


def _number(group: h5py.Group, name: str) -> float:
    value = group.attrs[name]
    if not isinstance(value, np.number) or not np.isfinite(value) or value < 0:
        raise ResultsError(f"{_where(group)}: attribute {name} is no number of queries or patches; {_CURE}")
    return value.item()  # type: ignore[no-any-return]
