"""Queries of one sensor that search an archive of fused vectors (missing modality)."""

from __future__ import annotations

import numpy as np

from bigearthnet_cbir.search.rows import Sliceable
from bigearthnet_cbir.types import FloatArray


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
