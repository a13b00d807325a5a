"""The vectors that a retrieval direction compares, including single-sensor queries in an archive of fused vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from bigearthnet_cbir.directions import DIRECTIONS, FUSED, S1, S2
from bigearthnet_cbir.search.projections import unit_vectors
from bigearthnet_cbir.search.rows import Sliceable
from bigearthnet_cbir.storage.features import DATASETS
from bigearthnet_cbir.types import FloatArray

STAND_INS: Final = {S1: "s1_as_fused", S2: "s2_as_fused"}
"""Kinds of vectors that replace fused ones for queries with one missing sensor."""


class MissingModality:
    """Fused vectors of pairs with one missing sensor: the available vector replaces the missing one.

    The contrastive loss makes z1 and z2 of a pair similar, so the available vector is an estimate of the missing one
    that needs no training (docs/metrics.md). The result equals models.fusion.fuse(z, z, how) and is computed when rows
    are sliced.
    """

    def __init__(self, vectors: Sliceable, how: str) -> None:
        """Wrap (N, P) vectors of one sensor; `how` is the fusion of the archive: concat, avg, max or sum."""
        self._vectors = vectors
        self._how = how
        rows, width = vectors.shape
        self.shape: tuple[int, ...] = (rows, 2 * width if how == "concat" else width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> FloatArray:
        """Return (n, 2P) float32 for concat, else (n, P)."""
        vectors: FloatArray = np.asarray(self._vectors[rows], np.float32)
        if self._how == "concat":
            return np.concatenate([vectors, vectors], axis=1)
        return vectors + vectors if self._how == "sum" else vectors


def kinds_of(direction: str) -> tuple[str, str]:
    """Return the kinds of vectors of the queries and of the archive in a direction."""
    asked = DIRECTIONS[direction].query
    return STAND_INS[asked] if DIRECTIONS[direction].lacks_a_sensor else asked, DIRECTIONS[direction].archive


def vectors_of(kind: str, file: Mapping[str, Any], fusion: str, method: str = "") -> Sliceable:
    """Return one kind of vectors of a feature file, given the fusion of its fused vectors.

    The fused code of learned hash heads is the sign of the sum of the outputs of both heads. Its vectors are the
    concatenated unit vectors of both sensors; the vectors of a single sensor are used in their place for a query
    without the other.
    """
    sensor = next((sensor for sensor, stand_in in STAND_INS.items() if stand_in == kind), None)
    if method == "learned":
        return (
            JoinedUnitRows(file[DATASETS[S1]], file[DATASETS[S2]]) if kind == FUSED else file[DATASETS[sensor or kind]]
        )
    if sensor is None:
        return file[DATASETS[kind]]  # type: ignore[no-any-return]
    return MissingModality(file[DATASETS[sensor]], fusion)


class JoinedUnitRows:
    """Concatenated unit vectors of both sensors, (N, 2 D), computed when rows are sliced."""

    def __init__(self, one: Sliceable, two: Sliceable) -> None:
        """Wrap (N, D) vectors of Sentinel-1 and of Sentinel-2."""
        self._parts = one, two
        self.shape: tuple[int, ...] = (one.shape[0], one.shape[1] + two.shape[1])

    def __getitem__(self, rows: slice) -> FloatArray:
        """Return (n, 2 D) float32."""
        return np.concatenate([unit_vectors(np.asarray(part[rows], np.float32)) for part in self._parts], axis=1)
