"""Binarizers: what turns vectors into binary codes, fitted on an archive once and then the same for every vector.

Nothing here ever sees the queries, so a code does not depend on which other vectors it was made with. Nor does it on
blocks, threads or processors: a bit is the sign of the exact sum, whatever order a matrix product adds in.
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
"""median, mean: one bit a feature. rotation, itq: any number of bits, of unit vectors centred per kind of vector."""

_ROUNDING: Final = 2.0**-50
"""Several times the relative rounding error of one step of a sum in double precision."""


@dataclass(frozen=True)
class Binarizer:
    """Turns vectors of one kind (one sensor's, say) into codes.

    Attributes:
        method: one of FITTED_METHODS, or "learned".
        thresholds: (bits,) float32; a bit is 1 where its value is above its threshold.
        projection: (D, bits) float32, whose products with a vector are the values; None where its features are.
        unit: whether vectors are divided by their lengths first.
    """

    method: str
    thresholds: FloatArray
    projection: FloatArray | None = None
    unit: bool = False

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return len(self.thresholds)

    def codes(self, features: Sliceable) -> ByteArray:
        """Return the (N, ceil(bits / 8)) packed codes of (N, D) features, which are read piece by piece.

        Raises:
            SearchError: the vectors have another length than those it was fitted on, or a value is not finite.
        """
        if self.projection is None:
            return codes_of(features, self.thresholds)
        width = self.projection.shape[0]
        if len(features.shape) != 2 or features.shape[1] != width:
            raise SearchError(f"features {tuple(features.shape)}: this {self.method} code is of vectors of {width}")
        codes = np.empty((features.shape[0], -(-self.bits // 8)), np.uint8)
        for start, stop, rows in checked_blocks(features, 8 * max(width, self.bits)):
            singles = rows.astype(np.float32)
            codes[start:stop] = np.packbits(self._bits_of(unit_vectors(singles) if self.unit else singles), axis=1)
        return codes

    def _bits_of(self, rows: FloatArray) -> npt.NDArray[np.bool_]:
        """Return (n, bits) of (n, D) rows: exact, where the product's rounding could decide too."""
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
        """Return the arrays and plain values that `from_arrays` makes an equal one of, for a file."""
        plain = {"method": self.method, "unit": self.unit, "thresholds": self.thresholds}
        return plain if self.projection is None else {**plain, "projection": self.projection}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Binarizer:
        """Return the binarizer that `arrays` was called on.

        Raises:
            SearchError: the arrays do not fit together.
        """
        thresholds = np.asarray(arrays["thresholds"], np.float32)
        projection = np.asarray(arrays["projection"], np.float32) if "projection" in arrays else None
        if thresholds.ndim != 1 or (projection is not None and projection.shape[1:] != thresholds.shape):
            raise SearchError("a binarizer's arrays do not fit together; fit it again")
        return cls(str(arrays["method"]), thresholds, projection, bool(arrays["unit"]))


def fit_binarizers(
    method: str,
    archive: Mapping[str, Sliceable],
    bits: int | None = None,
    seed: int = 0,
    others: Mapping[str, Sliceable] | None = None,
) -> dict[str, Binarizer]:
    """Return a binarizer for each kind of vectors of one space, so that codes of all kinds can be compared.

    Each kind has its own thresholds; the projection of rotation and itq is one for all.

    Args:
        method: one of FITTED_METHODS.
        archive: kind -> (N, D) vectors of the archive, for example of each sensor; never the queries'.
        bits: length of a code; None: one bit a feature, as median and mean always have.
        seed: of the random rotations.
        others: further kinds, whose thresholds are wanted but whose vectors do not decide the projection.

    Raises:
        SearchError: the method is unknown, bits do not go with it, the widths differ, or a value is not finite.
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
    """Return the width of all kinds of vectors, and refuse what has no codes of this method."""
    widths = {kind: vectors.shape[1] for kind, vectors in kinds.items()}
    width = next(iter(widths.values()))
    if method not in FITTED_METHODS:
        raise SearchError(f"code is {method!r}; choose one of {', '.join(FITTED_METHODS)}")
    if any(other != width for other in widths.values()):
        raise SearchError(f"vectors of {widths} features have no codes in common; fit each kind by itself")
    if method in ("median", "mean") and bits not in (None, width):
        raise SearchError(
            f"code_bits is {bits}, but a {method} code has one bit for each of {width} features; leave code_bits out, "
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
    """Return how many of the first `bits` bits are the same in all (N, B) codes: they tell no two items apart."""
    if not len(codes):
        return bits
    same = np.bitwise_and.reduce(codes, axis=0) | ~np.bitwise_or.reduce(codes, axis=0)
    return int(np.unpackbits(same)[:bits].sum())
