"""Binary codes: float features thresholded at the archive's medians, eight bits to a byte.

The thresholds are the archive's, for queries and archive alike: taken from the queries, the same vector would get
another code in another company. Taking the median makes every bit split the archive in half, which is what an
untrained threshold can do at best (Gong & Lazebnik 2011, https://doi.org/10.1109/CVPR.2011.5995432, discuss it).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.types import ByteArray, FloatArray

COLUMNS_AT_ONCE = 64
"""Features whose medians are taken together: bounds the copy that a median needs."""


def median_thresholds(archive: npt.NDArray[np.float32]) -> FloatArray:
    """Return the (D,) float32 median of every feature over an (N, D) archive.

    Raises:
        SearchError: the archive is empty or holds a value that is not finite.
    """
    if archive.ndim != 2 or 0 in archive.shape:
        raise SearchError(f"the archive has shape {archive.shape}; thresholds need (N, D) features with N, D >= 1")
    medians = np.empty(archive.shape[1], np.float32)
    for start in range(0, archive.shape[1], COLUMNS_AT_ONCE):
        columns = np.asarray(archive[:, start : start + COLUMNS_AT_ONCE])
        if not np.isfinite(columns).all():
            raise SearchError("the archive's features hold NaN or infinity; extract them again before making codes")
        medians[start : start + COLUMNS_AT_ONCE] = np.median(columns, axis=0)
    return medians


def binarize(features: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32]) -> ByteArray:
    """Return (N, D) uint8 bits, 1 where a feature is above its threshold.

    Args:
        features: (N, D) float32.
        thresholds: (D,) float32, usually from `median_thresholds`.

    Raises:
        SearchError: shapes do not match, or a feature is not finite.
    """
    if features.ndim != 2 or thresholds.shape != features.shape[1:]:
        raise SearchError(f"features {features.shape} need one threshold a column, got thresholds {thresholds.shape}")
    if not np.isfinite(features).all():
        raise SearchError("features hold NaN or infinity; extract them again before making codes")
    return (features > thresholds).astype(np.uint8)


def pack(bits: npt.NDArray[Any]) -> ByteArray:
    """Return (N, ceil(D / 8)) packed uint8 codes of (N, D) bits; missing bits of the last byte are 0.

    Raises:
        SearchError: `bits` is not two-dimensional or holds something other than 0 and 1.
    """
    if bits.ndim != 2 or bits.shape[1] == 0:
        raise SearchError(f"bits have shape {bits.shape}; codes need (N, D) with D >= 1")
    if bits.dtype != np.bool_ and not ((bits == 0) | (bits == 1)).all():
        raise SearchError("bits hold values other than 0 and 1; pass features through binarize first")
    return np.packbits(bits.astype(np.bool_), axis=1)
