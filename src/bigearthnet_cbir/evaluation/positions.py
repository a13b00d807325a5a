"""Archive positions as the compiled metrics take them: checked, so that none is read from outside the archive."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import kernel_array
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.types import IntArray

Positions: TypeAlias = npt.NDArray[np.integer[Any]]


def check_rows(indices: Positions, queries: int) -> None:
    """Raise ResultsError unless retrieved positions have the shape (queries, K)."""
    shape = np.shape(indices)
    if len(shape) != 2 or shape[0] != queries:
        raise ResultsError(f"indices have shape {shape}; metrics need ({queries:,}, K) archive positions")


def retrieved_positions(indices: Positions, queries: int, archive: int, first: int = 0) -> IntArray:
    """Return retrieved positions as (Q, K) int32, ready for kernels.

    Args:
        indices: (Q, K) of any integer type and memory layout.
        queries: Q.
        archive: number of items, of which positions must be some.
        first: row of all queries' that the first of these is, for the message.

    Raises:
        ResultsError: the shape does not fit, or a value is not the position of an item.
    """
    check_rows(indices, queries)
    given = np.asarray(indices)
    if given.size:
        _check_integers(given, "indices hold")
        low, high = int(given.min()), int(given.max())
        if low < 0 or high >= archive:
            row = first + int(np.flatnonzero(((given < 0) | (given >= archive)).any(axis=1))[0])
            raise ResultsError(
                f"indices go from {low:,} to {high:,}, beyond the archive first in row {row:,}; an archive of "
                f"{archive:,} has 0 to {archive - 1:,}"
            )
    return kernel_array(given, np.int32)


def excluded_positions(exclude: Positions, queries: int, archive: int) -> IntArray:
    """Return excluded positions as (Q, E) int32, each row ascending and every negative one -1.

    Raises:
        ResultsError: there is not a row for each query, or a value is no integer or beyond the archive.
    """
    given = np.asarray(exclude)
    if given.ndim != 2 or len(given) != queries:
        raise ResultsError(f"exclude has shape {given.shape}; it needs a row for each of {queries:,} queries")
    if given.size:
        _check_integers(given, "exclude holds")
        if given.max() >= archive:
            raise ResultsError(
                f"exclude has position {given.max():,}; an archive of {archive:,} has 0 to {archive - 1:,}, and -1 for "
                "filling"
            )
    return kernel_array(np.sort(np.maximum(given.astype(np.int64), -1), axis=1), np.int32)


def _check_integers(given: npt.NDArray[Any], what: str) -> None:
    if given.dtype.kind not in "iu":
        raise ResultsError(f"{what} {given.dtype}; metrics need integer archive positions")
