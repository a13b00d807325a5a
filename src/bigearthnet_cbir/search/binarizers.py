"""Binarizers convert vectors to binary codes. They are fitted once on an archive and are then fixed for all vectors.

They are never fitted on queries, so the code of a vector does not depend on the other vectors of its batch. It does not
depend on blocks, threads or processors either: a bit is the sign of the exact sum, independent of the summation order
of a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.binary_codes import checked_blocks, codes_of, median_thresholds
from bigearthnet_cbir.search.projections import itq_projection, mean_unit_row, random_rotation, unit_vectors
from bigearthnet_cbir.search.rows import Sliceable
from bigearthnet_cbir.types import ByteArray, FloatArray

FITTED_METHODS: Final = ("median", "mean", "rotation", "itq")
"""median, mean: one bit per feature. rotation, itq: any number of bits, of unit vectors centred per kind of vector."""

_ROUNDING: Final = 2.0**-50
"""Several times the relative rounding error of one step of a sum in double precision."""


@dataclass(frozen=True)
class Binarizer:
    """Converts vectors of one kind (for example, of one sensor) to codes.

    Attributes:
        method: one of FITTED_METHODS, or "learned".
        thresholds: (bits,) float32; a bit is 1 if its value is above its threshold.
        projection: (D, bits) float32; the values are the products of a vector with it; None if they are the features.
        unit: whether vectors are scaled to unit length first.
    """

    method: str
    thresholds: FloatArray
    projection: FloatArray | None = None
    unit: bool = False

    @property
    def bits(self) -> int:
        """Length of a code in bits."""
        return len(self.thresholds)

    def codes(self, features: Sliceable) -> ByteArray:
        """Return the (N, ceil(bits / 8)) packed codes of (N, D) features, which are read piece by piece.

        Raises:
            SearchError: the dimension differs from that of the fit, or a value is not finite.
        """
        if self.projection is None:
            return codes_of(features, self.thresholds)
        width = self.projection.shape[0]
        if len(features.shape) != 2 or features.shape[1] != width:
            raise SearchError(
                f"features have shape {tuple(features.shape)}; this {self.method} code needs dimension {width}"
            )
        codes = np.empty((features.shape[0], -(-self.bits // 8)), np.uint8)
        for start, stop, rows in checked_blocks(features, 8 * max(width, self.bits)):
            singles = rows.astype(np.float32)
            codes[start:stop] = np.packbits(self._bits_of(unit_vectors(singles) if self.unit else singles), axis=1)
        return codes

    def _bits_of(self, rows: FloatArray) -> npt.NDArray[np.bool_]:
        """Return the (n, bits) bits of (n, D) rows; sums within rounding error of the threshold are exact."""
        assert self.projection is not None
        projection, thresholds = self.projection.astype(np.float64), self.thresholds.astype(np.float64)
        doubles = rows.astype(np.float64)
        above = doubles @ projection - thresholds
        lengths = np.linalg.norm(doubles, axis=1)[:, None] * np.linalg.norm(projection, axis=0)
        bits: npt.NDArray[np.bool_] = above > 0
        unclear = np.abs(above) <= _ROUNDING * len(projection) * (lengths + np.abs(thresholds))
        for row, bit in np.argwhere(unclear):
            # The product of two float32 is exact in double precision, and fsum rounds their exact sum once.
            bits[row, bit] = math.fsum((*(doubles[row] * projection[:, bit]), -thresholds[bit])) > 0
        return bits

    def arrays(self) -> dict[str, Any]:
        """Return the state as arrays and plain values for a file; `from_arrays` is the inverse."""
        plain = {"method": self.method, "unit": self.unit, "thresholds": self.thresholds}
        return plain if self.projection is None else {**plain, "projection": self.projection}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Binarizer:
        """Return the binarizer of which `arrays` returned the state.

        Raises:
            SearchError: the arrays are inconsistent.
        """
        thresholds = np.asarray(arrays["thresholds"], np.float32)
        projection = np.asarray(arrays["projection"], np.float32) if "projection" in arrays else None
        if thresholds.ndim != 1 or (projection is not None and projection.shape[1:] != thresholds.shape):
            raise SearchError("the arrays of a binarizer have inconsistent shapes; fit it again")
        return cls(str(arrays["method"]), thresholds, projection, bool(arrays["unit"]))


def fit_binarizers(
    method: str,
    archive: Mapping[str, Sliceable],
    bits: int | None = None,
    seed: int = 0,
    others: Mapping[str, Sliceable] | None = None,
) -> dict[str, Binarizer]:
    """Return a binarizer for each kind of vectors of one space, such that codes of all kinds are comparable.

    Each kind has its own thresholds. The projection of rotation and itq is shared.

    Args:
        method: one of FITTED_METHODS.
        archive: kind -> (N, D) vectors of the archive, for example of each sensor; never of the queries.
        bits: length of a code; None: one bit per feature, which median and mean always have.
        seed: of the random rotations.
        others: further kinds that need thresholds but do not contribute to the projection.

    Raises:
        SearchError: the method is unknown, bits do not apply to it, the dimensions differ, or a value is not finite.
    """
    kinds = {**archive, **(others or {})}
    width = _common_width(method, kinds, bits)
    if method in ("median", "mean"):
        return {kind: Binarizer(method, _thresholds(method, vectors)) for kind, vectors in kinds.items()}
    means = {kind: mean_unit_row(vectors) for kind, vectors in kinds.items()}
    generator = np.random.default_rng(seed)
    if method == "rotation":
        columns = random_rotation(width, bits or width, generator)
    else:
        columns = itq_projection(list(archive.values()), [means[kind] for kind in archive], bits or width, generator)
    projection = columns.astype(np.float32)
    doubles = projection.astype(np.float64)
    return {
        kind: Binarizer(method, (mean @ doubles).astype(np.float32), projection, unit=True)
        for kind, mean in means.items()
    }


def _common_width(method: str, kinds: Mapping[str, Sliceable], bits: int | None) -> int:
    """Return the dimension of all kinds of vectors; raise SearchError if the method does not apply to them."""
    widths = {kind: vectors.shape[1] for kind, vectors in kinds.items()}
    width = next(iter(widths.values()))
    if method not in FITTED_METHODS:
        raise SearchError(f"code is {method!r}; choose one of {', '.join(FITTED_METHODS)}")
    if any(other != width for other in widths.values()):
        raise SearchError(f"vectors of dimensions {widths} cannot share one code; fit each kind separately")
    if method in ("median", "mean") and bits not in (None, width):
        raise SearchError(
            f"code_bits is {bits}, but a {method} code has one bit for each of {width} features; remove code_bits, "
            "or use code: itq"
        )
    return width


def _thresholds(method: str, vectors: Sliceable) -> FloatArray:
    if method == "median":
        return median_thresholds(vectors)
    total = np.zeros(vectors.shape[1])
    for _, _, rows in checked_blocks(vectors):
        total += rows.sum(axis=0, dtype=np.float64)
    return (total / vectors.shape[0]).astype(np.float32)


def constant_bits(codes: npt.NDArray[np.uint8], bits: int) -> int:
    """Return how many of the first `bits` bits are constant over all (N, B) codes, and thus carry no information."""
    if not len(codes):
        return bits
    same = np.bitwise_and.reduce(codes, axis=0) | ~np.bitwise_or.reduce(codes, axis=0)
    return int(np.unpackbits(same)[:bits].sum())
