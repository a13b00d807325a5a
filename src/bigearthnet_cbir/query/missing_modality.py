"""Queries of one sensor against an archive of fused vectors."""

from __future__ import annotations

import numpy as np

from bigearthnet_cbir.search.rows import Sliceable
from bigearthnet_cbir.types import FloatArray


class MissingModality:
    """The fused vectors of patches of which one sensor is missing: its vector stands in for the other's.

    The contrastive loss pulls z1 and z2 of one place together, so the present vector is the estimate of the missing
    one that needs no training (docs/metrics.md). That is models.fusion.fuse(z, z, how), row by row as it is sliced.
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
