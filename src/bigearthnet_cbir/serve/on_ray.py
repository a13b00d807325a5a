"""Search with the vectors and codes of an index distributed over a Ray cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.query.find import Nearest
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.search.ray_index import RayIndex
from bigearthnet_cbir.types import Neighbours

_CODES, _VECTORS = "codes", "vectors"


def on_ray(index: Index) -> Nearest:
    """Return a search function that uses the Ray cluster which this process has joined."""
    return held_on_ray(index)[1]


def held_on_ray(index: Index) -> tuple[RayIndex, Nearest]:
    """Return the actors that hold an index, and the function that searches them.

    A modality is sent to the cluster when it is first searched. The catalogue, which filters use, stays in this
    process.
    """

    def read(key: str) -> npt.NDArray[Any]:
        kind, side = key.split()
        return index.codes(side) if kind == _CODES else index.vectors(side)

    held = RayIndex(index.size, read)

    def nearest(
        _: Index, asks: npt.NDArray[Any], archive: str, distance: str, k: int, mask: npt.NDArray[np.bool_]
    ) -> Neighbours:
        kind = _CODES if distance == "hamming" else _VECTORS
        return held.nearest(f"{kind} {archive}", asks, distance, k, mask)

    return held, nearest
