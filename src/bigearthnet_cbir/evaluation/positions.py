"""Validation of archive positions, so that compiled metrics never read outside the archive."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import kernel_array
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.files import release_pages
from bigearthnet_cbir.types import IntArray

Positions: TypeAlias = npt.NDArray[np.integer[Any]]

_BLOCK: Final = 8192


def check_rows(indices: Positions, queries: int) -> None:
    """Raise ResultsError unless retrieved positions have the shape (queries, K)."""
    shape = np.shape(indices)
    if len(shape) != 2 or shape[0] != queries:
        raise ResultsError(f"indices have shape {shape}; metrics need ({queries:,}, K) archive positions")


def first_ranks(indices: Positions, queries: int, ranks: int) -> Positions:
    """Return the first columns of (Q, K) positions as a copy; of a memory map, one block at a time is in memory.

    Raises:
        ResultsError: the shape does not fit.
    """
    check_rows(indices, queries)
    given = indices if isinstance(indices, np.ndarray) else np.asarray(indices)
    found = np.empty((len(given), min(ranks, given.shape[1])), given.dtype)
    for start in range(0, len(given), _BLOCK):
        found[start : start + _BLOCK] = given[start : start + _BLOCK, :ranks]
        release_pages(given)
    return found


def retrieved_positions(indices: Positions, queries: int, archive: int, first: int = 0) -> IntArray:
    """Return retrieved positions as (Q, K) int32, ready for kernels.

    Args:
        indices: (Q, K) of any integer type and memory layout.
        queries: Q.
        archive: number of archive items.
        first: index of the first row among all queries, for the message.

    Raises:
        ResultsError: the shape does not fit, or a value is not a valid position.
    """
    check_rows(indices, queries)
    given = np.asarray(indices)
    if given.size:
        _check_integers(given, "indices hold")
        low, high = int(given.min()), int(given.max())
        if low < 0 or high >= archive:
            row = first + int(np.flatnonzero(((given < 0) | (given >= archive)).any(axis=1))[0])
            raise ResultsError(
                f"indices go from {low:,} to {high:,}, outside the archive first in row {row:,}; an archive of "
                f"{archive:,} has 0 to {archive - 1:,}"
            )
    return kernel_array(given, np.int32)


def excluded_positions(exclude: Positions, queries: int, archive: int) -> IntArray:
    """Return excluded positions as (Q, E) int32, each row ascending, negative ones as -1.

    Raises:
        ResultsError: the number of rows differs from the number of queries, or a value is not a valid position.
    """
    given = np.asarray(exclude)
    if given.ndim != 2 or len(given) != queries:
        raise ResultsError(f"exclude has shape {given.shape}; it needs one row for each of {queries:,} queries")
    if given.size:
        _check_integers(given, "exclude holds")
        if given.max() >= archive:
            raise ResultsError(
                f"exclude has position {given.max():,}; an archive of {archive:,} has 0 to {archive - 1:,}, and -1 as "
                "padding"
            )
    return kernel_array(np.sort(np.maximum(given.astype(np.int64), -1), axis=1), np.int32)


def _check_integers(given: npt.NDArray[Any], what: str) -> None:
    if given.dtype.kind not in "iu":
        raise ResultsError(f"{what} {given.dtype}; metrics need integer archive positions")
