"""Conversion of rows of arrays and files to validated arrays for the search, in pieces if there are many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import kernel_array
from bigearthnet_cbir.errors import SearchError

PIECE_BYTES: Final = 16 << 20
"""Rows read at a time for a conversion."""


class Sliceable(Protocol):
    """Anything with a shape and row slices: arrays, np.memmap, h5py datasets."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of rows and columns."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return consecutive rows as an array."""


def batched_ranges(total: int, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive ranges of at most `size`."""
    for first in range(start, total, size):
        yield first, min(first + size, total)


def as_rows(array: Any, distance: str, whose: str, offset: int = 0) -> npt.NDArray[Any]:
    """Return rows as an array for the kernels: (N, D) float32, or (N, B) uint8 codes.

    Args:
        array: rows of any memory layout and byte order; float16, float32, float64 or longer floats, or uint8.
        distance: one of distances.DISTANCES.
        whose: "queries" or "archive", for the message.
        offset: index of the first row in the whole array, for the message.

    Raises:
        SearchError: the rows are not two-dimensional, have masked values, are floats instead of codes or the reverse,
            or a vector becomes zero in float32.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise SearchError(f"{whose}: a masked array; fill the masked values first")
    rows = np.asarray(array)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise SearchError(f"{whose}: shape {rows.shape}; a search needs (N, D) with D >= 1")
    if distance == "hamming":
        if rows.dtype != np.uint8:
            raise SearchError(f"{whose}: hamming needs packed uint8 codes, not {rows.dtype}; use binarize, then pack")
        return kernel_array(rows)
    if rows.dtype.kind != "f":
        raise SearchError(f"{whose}: {distance} needs float features, not {rows.dtype}")
    with np.errstate(over="ignore"):  # the check of the lengths refuses infinite values
        singles = kernel_array(rows, np.float32)
    if rows.dtype.itemsize > singles.dtype.itemsize:
        _check_not_lost(rows, singles, whose, offset)
    return singles


def _check_not_lost(rows: npt.NDArray[Any], singles: npt.NDArray[np.float32], whose: str, offset: int) -> None:
    lost = np.flatnonzero(rows.any(axis=1) & ~singles.any(axis=1))
    if len(lost):
        raise SearchError(
            f"{whose}: row {offset + lost[0]:,} is too small for float32 ({abs(rows[lost[0]]).max():.3g} at "
            "most); scale the features"
        )


def row_pieces(archive: Sliceable, first: int, stop: int, distance: str, multiple: int) -> Iterator[npt.NDArray[Any]]:
    """Yield rows first ... stop - 1 of an archive in pieces of some MiB, of a multiple of `multiple` rows but the last.

    Raises:
        SearchError: see `as_rows`.
    """
    each = multiple * max(1, PIECE_BYTES // (archive.shape[1] * 4 * multiple))
    for a, b in batched_ranges(stop, each, first):
        yield as_rows(archive[a:b], distance, "archive", a)


def all_rows(archive: Sliceable, first: int, stop: int, distance: str) -> npt.NDArray[Any]:
    """Return rows first ... stop - 1 of an archive: a view of an array if possible, else a copy.

    Raises:
        SearchError: see `as_rows`.
    """
    if isinstance(archive, np.ndarray):
        return as_rows(archive[first:stop], distance, "archive", first)
    rows = np.empty((stop - first, archive.shape[1]), np.float32)
    done = 0
    for piece in row_pieces(archive, first, stop, distance, 1):
        rows[done : done + len(piece)] = piece
        done += len(piece)
    return kernel_array(rows)
