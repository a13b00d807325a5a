"""The vectors that a direction compares, and queries of one sensor against an archive of fused vectors."""

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
"""Kinds of vectors that stand for fused ones where a query lacks a sensor."""


class MissingModality:
    """Fused vectors of pairs with one missing sensor: the available vector replaces the missing one.

    The contrastive loss makes z1 and z2 of a pair similar, so the available vector is an estimate of the missing one
    that needs no training (docs/metrics.md). Equals models.fusion.fuse(z, z, how), computed when rows are sliced.
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
    """Return the kinds of vectors that the queries and the archive of a direction have."""
    asked = DIRECTIONS[direction].query
    return STAND_INS[asked] if DIRECTIONS[direction].lacks_a_sensor else asked, DIRECTIONS[direction].archive


def vectors_of(kind: str, file: Mapping[str, Any], fusion: str, method: str = "") -> Sliceable:
    """Return one kind of vectors of a feature file whose fused vectors were made by a fusion.

    The fused code of learned heads is the sign of the sum of both heads' values: its vectors are both sensors' unit
    vectors side by side, and those of one sensor alone where it stands for both.
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
    """Both sensors' unit vectors side by side, (N, 2 D), joined as they are sliced."""

    def __init__(self, one: Sliceable, two: Sliceable) -> None:
        """Wrap (N, D) vectors of Sentinel-1 and of Sentinel-2."""
        self._parts = one, two
        self.shape: tuple[int, ...] = (one.shape[0], one.shape[1] + two.shape[1])

    def __getitem__(self, rows: slice) -> FloatArray:
        """Return (n, 2 D) float32."""
        return np.concatenate([unit_vectors(np.asarray(part[rows], np.float32)) for part in self._parts], axis=1)
