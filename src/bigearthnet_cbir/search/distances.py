"""The four distances: definitions, checks of their inputs, and exact compiled functions.

Every float distance is computed in double precision with one fixed order of additions and then rounded once to float32.
Only this value determines the ranking; the screen in `float_search` only selects the pairs for which it is computed.
Results therefore do not depend on block size, number of threads, BLAS library or machine.
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
"""Cosine, 1 - cos (1 where either vector is zero); euclidean; chi2, 0.5 sum (u - v)^2 / (u + v + 1e-10), for
non-negative features; hamming, the number of bits in which two packed codes differ."""

COSINE: Final = 0
EUCLIDEAN: Final = 1
CHI2: Final = 2
KINDS: Final = {"cosine": COSINE, "euclidean": EUCLIDEAN, "chi2": CHI2}

LONGEST: Final = 1e15
"""Largest length of a feature vector, so that products of two squared lengths fit into float32."""

SHORTEST: Final = 1e-15
"""Smallest length of a non-zero feature vector for the cosine, for the same reason."""


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
        lengths: (N,) Euclidean lengths of the rows; NaN or infinite if an element is.
        distance: cosine, euclidean or chi2.
        whose: "queries" or "archive", for the message.
        offset: index of the first row in the whole array, for the message.

    Raises:
        SearchError: an element is NaN or infinite, a vector is too long or too short for float32, or an element is
            negative for chi2.
    """
    bad = np.flatnonzero(~np.isfinite(lengths))
    if len(bad):
        raise SearchError(
            f"{whose}: {len(bad):,} feature vectors have NaN or infinite values, the first in row {offset + bad[0]:,}; "
            "extract them again"
        )
    bad = np.flatnonzero((lengths > LONGEST) | ((lengths > 0) & (lengths < SHORTEST) & (distance == "cosine")))
    if len(bad):
        raise SearchError(
            f"{whose}: row {offset + bad[0]:,} has length {lengths[bad[0]]:.3g}; scale the features to lengths between "
            f"{SHORTEST:g} and {LONGEST:g}"
        )
    if distance == "chi2" and len(features) and float(features.min()) < 0:
        row = int(features.min(axis=1).argmin())
        raise SearchError(
            f"{whose}: the smallest feature is {float(features[row].min()):.3g} in row {offset + row:,}, but chi2 is "
            "defined for non-negative features only; use cosine, euclidean or hamming for signed features"
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

    The cosine is rounded to float32 and then subtracted from 1, so that parallel vectors have exactly distance 0.

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
