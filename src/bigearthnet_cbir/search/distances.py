"""The four distances: their definitions, what may be asked of them, and their exact compiled form.

Every float distance is computed in double precision in one fixed order of additions and then rounded to float32
once. That value alone decides the ranking; the blocked matrix products in `screening` only decide which pairs are
worth computing. So no result depends on a block size, a thread count, a BLAS library or a machine.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import compiled, compiled_inline
from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.kernels.simd_sums import LANES, chi_square_sum, product_sum, square_sum

DISTANCES: Final = ("cosine", "euclidean", "chi2", "hamming")
"""Cosine, 1 - cos (1 where either vector is zero); euclidean; chi2, 0.5 sum (u - v)^2 / (u + v + 1e-10), for features
that are nowhere negative; hamming, the number of bits in which two packed codes differ."""

COSINE: Final = 0
EUCLIDEAN: Final = 1
CHI2: Final = 2
KINDS: Final = {"cosine": COSINE, "euclidean": EUCLIDEAN, "chi2": CHI2}

LONGEST: Final = 1e15
"""Greatest length of a feature vector: its square times another's still fits a float32."""

SHORTEST: Final = 1e-15
"""Least length of a non-zero feature vector under the cosine, for the same reason."""


def check_distance(distance: str) -> None:
    """Raise SearchError unless `distance` is one of DISTANCES."""
    if distance not in DISTANCES:
        raise SearchError(f"distance is {distance!r}; choose one of {', '.join(DISTANCES)}")


def check_features(
    features: npt.NDArray[Any], lengths: npt.NDArray[np.float64], distance: str, whose: str, offset: int = 0
) -> None:
    """Refuse float features that have no defined distance.

    Args:
        features: (N, D) float32.
        lengths: (N,) Euclidean lengths of the rows, NaN or infinite where an element is.
        distance: cosine, euclidean or chi2.
        whose: "queries" or "archive", for the message.
        offset: row of the whole array that the first of these is, for the message.

    Raises:
        SearchError: an element is NaN or infinite, a vector is too long or too short for float32, or chi2 meets a
            negative element.
    """
    bad = np.flatnonzero(~np.isfinite(lengths))
    if len(bad):
        raise SearchError(
            f"{whose}: {len(bad):,} feature vectors hold NaN or infinity, the first in row {offset + bad[0]:,}; "
            "extract them again"
        )
    bad = np.flatnonzero((lengths > LONGEST) | ((lengths > 0) & (lengths < SHORTEST) & (distance == "cosine")))
    if len(bad):
        raise SearchError(
            f"{whose}: row {offset + bad[0]:,} has length {lengths[bad[0]]:.3g}; scale the features to between "
            f"{SHORTEST:g} and {LONGEST:g}"
        )
    if distance == "chi2" and len(features) and float(features.min()) < 0:
        row = int(features.min(axis=1).argmin())
        raise SearchError(
            f"{whose}: the smallest feature is {float(features[row].min()):.3g} in row {offset + row:,}, and chi2 is "
            "defined for non-negative features only; use cosine, euclidean or hamming for signed ones"
        )


@compiled
def row_lengths(features: Any, lengths: Any) -> None:
    """Write the Euclidean length of every (D,) float32 row to `lengths`, float64."""
    double = np.empty(features.shape[1], np.float64)
    for row in range(features.shape[0]):
        for column in range(double.size):
            double[column] = features[row, column]
        lengths[row] = math.sqrt(_product(double, features[row]))


@compiled_inline
def _product(u: Any, v: Any) -> Any:
    whole = u.size - u.size % LANES
    total = product_sum(u, v, whole)
    for i in range(whole, u.size):
        total += u[i] * np.float64(v[i])
    return total


@compiled_inline
def cosine_distance(u: Any, u_length: float, v: Any, v_length: float) -> Any:
    """Return 1 - cos as float32; 1 where either vector is zero.

    The cosine itself is rounded to float32, and then subtracted from 1: parallel vectors get exactly 0.

    Args:
        u: (D,) float64, the query.
        u_length: its Euclidean length.
        v: (D,) float32, the archive item.
        v_length: its Euclidean length.
    """
    lengths = u_length * v_length
    cosine = np.float32(_product(u, v) / lengths) if lengths > 0.0 else np.float32(0.0)
    return np.float32(1.0) - min(cosine, np.float32(1.0))


@compiled_inline
def euclidean_distance(u: Any, v: Any) -> Any:
    """Return the Euclidean distance of (D,) float64 `u` and (D,) float32 `v` as float32."""
    whole = u.size - u.size % LANES
    total = square_sum(u, v, whole)
    for i in range(whole, u.size):
        total += (u[i] - np.float64(v[i])) ** 2
    return np.float32(math.sqrt(total))


@compiled_inline
def chi_square_distance(u: Any, v: Any) -> Any:
    """Return 0.5 sum (u - v)^2 / (u + v + 1e-10) of (D,) float64 `u` and (D,) float32 `v` as float32."""
    whole = u.size - u.size % LANES
    total = chi_square_sum(u, v, whole)
    for i in range(whole, u.size):
        total += (u[i] - np.float64(v[i])) ** 2 / (u[i] + np.float64(v[i]) + 1e-10)
    return np.float32(0.5 * total)
