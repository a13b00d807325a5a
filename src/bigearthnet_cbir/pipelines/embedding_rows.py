"""Preparation of embeddings for retrieval: rows in the order of a list, fused vectors, and possible directions."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bigearthnet_cbir.data.pair_list import PairList
from bigearthnet_cbir.directions import DIRECTIONS, FUSED, S1, S2
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.models.fusion import FUSIONS, fuse
from bigearthnet_cbir.types import ByteArray, FloatArray

logger = logging.getLogger(__name__)

_CHECKED_ROWS = 4096


@dataclass(frozen=True)
class Vectors:
    """The rows of one split, ready to be written.

    Attributes:
        source: names of their files, for messages.
        pairs: both names of each row.
        vectors: fused, s1 or s2 -> (N, D) float32.
        labels: (N, 19) uint8.
        beyond: number of rows of the files that are not in the split.
    """

    source: str
    pairs: PairList
    vectors: dict[str, FloatArray]
    labels: ByteArray
    beyond: int = 0


def chosen_rows(
    vectors: dict[str, FloatArray], labels: ByteArray | None, rows: npt.NDArray[np.int64] | None
) -> tuple[dict[str, FloatArray], ByteArray | None]:
    """Return the given rows of vectors and labels, in this order; everything unchanged if rows is None."""
    if rows is None:
        return vectors, labels
    return {side: values[rows] for side, values in vectors.items()}, None if labels is None else labels[rows]


def with_fused(vectors: dict[str, FloatArray], how: str, source: str) -> dict[str, FloatArray]:
    """Return vectors with the fusion of both sensors added, if both are present and fused vectors are not.

    Raises:
        DataError: the vectors of the sensors differ in dimension, and the fusion is not concat.
    """
    if FUSED in vectors or not {S1, S2} <= vectors.keys():
        return vectors
    one, two = vectors[S1], vectors[S2]
    if one.shape == two.shape:
        return {**vectors, FUSED: fuse(torch.from_numpy(one), torch.from_numpy(two), how).numpy()}
    if how != "concat":
        raise DataError(
            f"{source}: fusion {how} needs vectors of equal dimension, but Sentinel-1 has {one.shape[1]} and "
            f"Sentinel-2 {two.shape[1]}; use concat"
        )
    return {**vectors, FUSED: np.concatenate([one, two], axis=1)}


def check_widths(query: Vectors, archive: Vectors) -> None:
    """Raise DataError if queries and archive have vectors of different dimension for one modality."""
    for side in query.vectors.keys() & archive.vectors.keys():
        asked, searched = query.vectors[side].shape[1], archive.vectors[side].shape[1]
        if asked != searched:
            raise DataError(
                f"{query.source}: {side} vectors have dimension {asked}, but {searched} in {archive.source}; embed "
                "both with one model"
            )


def directions_of(query: Vectors, archive: Vectors, how: str, distance: str) -> tuple[str, ...]:
    """Return the directions that these vectors support.

    Queries and archive must have the vectors of a direction, with equal dimension. A single sensor can replace the
    fused vectors only if these are the fusion `how` of both sensors. Codes of the queries also need the medians of
    their own sensor over the archive.

    Raises:
        DataError: there is no direction.
    """
    found = []
    for name, direction in DIRECTIONS.items():
        asked, searched = query.vectors.get(direction.query), archive.vectors.get(direction.archive)
        if asked is None or searched is None or (distance == "hamming" and direction.query not in archive.vectors):
            continue
        one_width = asked.shape[1] == searched.shape[1]
        fits = _is_fusion(archive.vectors, how) if direction.lacks_a_sensor else one_width
        if fits:
            found.append(name)
    if not found:
        raise DataError(
            f"{query.source} has {_widths(query)}, {archive.source} has {_widths(archive)}: no direction can be "
            f"searched by {distance} distance; give vectors of the same sensor and dimension in both"
        )
    return tuple(found)


def _widths(side: Vectors) -> str:
    return ", ".join(f"{name} vectors of dimension {values.shape[1]}" for name, values in side.vectors.items())


def _is_fusion(vectors: dict[str, FloatArray], how: str) -> bool:
    """Return whether the fused vectors equal the result of `fuse` for the vectors of the two sensors."""
    if how not in FUSIONS or not {FUSED, S1, S2} <= vectors.keys() or vectors[S1].shape != vectors[S2].shape:
        return False
    for start in range(0, len(vectors[FUSED]), _CHECKED_ROWS):
        one, two, fused = (torch.from_numpy(vectors[side][start : start + _CHECKED_ROWS]) for side in (S1, S2, FUSED))
        made = fuse(one, two, how)
        if made.shape != fused.shape or not torch.allclose(made, fused, rtol=1e-4, atol=1e-6):
            return False
    return True
