"""The vectors and codes of an index on the machines of a Ray cluster."""

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
    """Return what searches an index on the machines of the cluster that this process has joined."""
    return held_on_ray(index)[1]


def held_on_ray(index: Index) -> tuple[RayIndex, Nearest]:
    """Return the actors that keep an index, and what searches them.

    A side is sent to the machines when it is first searched; the catalogue, by which filters choose, stays here.
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
