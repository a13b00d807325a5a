"""Binary codes: float features thresholded at the medians of the archive, eight bits per byte.

Queries and archive use the thresholds of the archive. With thresholds from the query batch, the code of a vector would
depend on the other queries of the batch. The median splits the archive in half for every bit, so that the bits are
balanced (discussed by Gong & Lazebnik 2011, https://doi.org/10.1109/CVPR.2011.5995432).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.rows import Sliceable, batched_ranges
from bigearthnet_cbir.types import ByteArray, FloatArray

MEDIAN_BYTES: Final = 128 << 20
"""Columns loaded at a time for their medians; the archive is read once per group of columns."""

BLOCK_BYTES: Final = 16 << 20
"""Features read at a time."""


def checked_blocks(features: Sliceable, row_bytes: int = 0) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Yield (start, stop, rows) in validated blocks of a few MiB.

    Args:
        features: (N, D).
        row_bytes: what a row takes where it is worked on, if that is more than its own float32 values.

    Raises:
        SearchError: a value is not finite.
    """
    each = max(1, BLOCK_BYTES // max(4 * features.shape[1], row_bytes))
    for start, stop in batched_ranges(features.shape[0], each):
        rows = np.asarray(features[start:stop])
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(broken):
            raise SearchError(
                f"the features have NaN or infinite values, first in row {start + broken[0]:,}; extract them "
                "again before making codes"
            )
        yield start, stop, rows


def median_thresholds(archive: Sliceable) -> FloatArray:
    """Return the (D,) float32 median of every feature over an (N, D) archive, which is read in blocks.

    Where more than half of the values are the greatest one, no value is above the median, and the threshold is the
    greatest value below it. A feature of one value alone keeps that value as its threshold, and its bit is always 0.

    Raises:
        SearchError: the archive is empty or has a value that is not finite.
    """
    if len(archive.shape) != 2 or 0 in archive.shape:
        raise SearchError(f"the archive has shape {archive.shape}; thresholds need (N, D) features with N, D >= 1")
    size, width = archive.shape
    medians = np.empty(width, np.float32)
    for first, last in batched_ranges(width, max(1, MEDIAN_BYTES // (4 * size))):
        columns = np.empty((last - first, size), np.asarray(archive[0:1]).dtype)
        for start, stop, rows in checked_blocks(archive):
            columns[:, start:stop] = rows[:, first:last].T
        medians[first:last] = np.median(columns, axis=1, overwrite_input=True)  # reorders each column
        _below_the_greatest(columns, medians[first:last])
    return medians


def _below_the_greatest(columns: npt.NDArray[Any], medians: npt.NDArray[np.float32]) -> None:
    """Lower a median that is its column's greatest value to the next smaller one: no value is above it otherwise."""
    for place in np.flatnonzero(medians >= columns.max(axis=1)):
        smaller = columns[place][columns[place] < medians[place]]
        if len(smaller):
            medians[place] = smaller.max()


def codes_of(features: Sliceable, thresholds: npt.NDArray[np.float32]) -> ByteArray:
    """Return the (N, ceil(D / 8)) packed codes of (N, D) features, which are read in blocks.

    Raises:
        SearchError: see `binarize`.
    """
    if len(features.shape) != 2 or thresholds.shape != tuple(features.shape[1:]):
        raise SearchError(f"features {features.shape} need one threshold per column, not thresholds {thresholds.shape}")
    codes = np.empty((features.shape[0], -(-features.shape[1] // 8)), np.uint8)
    for start, stop, rows in checked_blocks(features):
        codes[start:stop] = np.packbits(rows > thresholds, axis=1)
    return codes


def binarize(features: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32]) -> ByteArray:
    """Return (N, D) uint8 bits, 1 where a feature exceeds its threshold.

    Args:
        features: (N, D) float32.
        thresholds: (D,) float32, usually from `median_thresholds`.

    Raises:
        SearchError: shapes do not match, or a feature is not finite.
    """
    if features.ndim != 2 or thresholds.shape != features.shape[1:]:
        raise SearchError(f"features {features.shape} need one threshold per column, not thresholds {thresholds.shape}")
    bits = np.empty(features.shape, np.uint8)
    for start, stop, rows in checked_blocks(features):
        np.greater(rows, thresholds, out=bits[start:stop], casting="unsafe")
    return bits


def pack(bits: npt.NDArray[Any]) -> ByteArray:
    """Return (N, ceil(D / 8)) packed uint8 codes of (N, D) bits; missing bits of the last byte are 0.

    Raises:
        SearchError: `bits` is not two-dimensional or has values other than 0 and 1.
    """
    if bits.ndim != 2 or bits.shape[1] == 0:
        raise SearchError(f"bits have shape {bits.shape}; codes need (N, D) with D >= 1")
    if bits.dtype != np.bool_ and not ((bits == 0) | (bits == 1)).all():
        raise SearchError("bits have values other than 0 and 1; apply binarize to the features first")
    return np.packbits(bits.astype(np.bool_, copy=False), axis=1)
