"""Pieces of an archive, prepared once and searched by many queries."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import kernel_array
from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.bitslices import CHUNK
from bigearthnet_cbir.search.distances import check_distance, check_features, row_lengths
from bigearthnet_cbir.search.hamming import as_planes
from bigearthnet_cbir.search.pair_products import PANEL
from bigearthnet_cbir.search.panels import NO_PANELS, Panels, make_panels
from bigearthnet_cbir.types import DoubleArray, FloatArray


class FeatureShard(NamedTuple):
    """Consecutive float features of an archive.

    Attributes:
        offset: archive position of the first row.
        rows: (N, D) float32 features, unchanged.
        lengths: (N,) float64 Euclidean lengths.
        scale: (N,) float32 factor that turns a screen product into a similarity.
        shift: (N,) float32 that a similarity is subtracted from.
        longest: greatest of `lengths`.
        panels: the rows as integers, for the cosine's screen; NO_PANELS for other distances.
    """

    offset: int
    rows: FloatArray
    lengths: DoubleArray
    scale: FloatArray
    shift: FloatArray
    longest: float
    panels: Panels


class CodeShard(NamedTuple):
    """Consecutive packed codes of an archive.

    Attributes:
        offset: archive position of the first code.
        size: how many there are, N.
        planes: (ceil(N / 256), P, 4) uint64 bit planes.
    """

    offset: int
    size: int
    planes: npt.NDArray[np.uint64]


Shard = FeatureShard | CodeShard

ALIGNED = max(CHUNK, PANEL)
"""Rows that a shard may be cut at: whole groups of codes, whole panels of features."""


def as_rows(array: Any, distance: str, whose: str) -> npt.NDArray[Any]:
    """Return a slice of an array-like as what the distance works on: (N, D) float32, or (N, B) uint8 codes.

    Raises:
        SearchError: the slice is not two-dimensional, or holds floats where codes belong or the other way round.
    """
    rows = np.asarray(array)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise SearchError(f"{whose}: shape {rows.shape}; a search needs (N, D) with D >= 1")
    if distance == "hamming":
        if rows.dtype != np.uint8:
            raise SearchError(f"{whose}: hamming needs packed uint8 codes, got {rows.dtype}; use binarize, then pack")
        return rows
    if rows.dtype.kind != "f":
        raise SearchError(f"{whose}: {distance} needs float features, got {rows.dtype}")
    return rows.astype(np.float32, copy=False)


def lengths_of(features: npt.NDArray[np.float32]) -> DoubleArray:
    """Return the (N,) float64 Euclidean lengths of (N, D) float32 features."""
    lengths = np.empty(len(features), np.float64)
    row_lengths(kernel_array(features), lengths)
    return lengths


def make_shard(array: Any, offset: int, distance: str) -> Shard:
    """Prepare consecutive archive rows, the first of which stands at archive position `offset`.

    Raises:
        SearchError: the rows have no defined distance (see `distances.check_features`).
    """
    rows = as_rows(array, distance, "archive")
    if distance == "hamming":
        return CodeShard(offset, len(rows), as_planes(rows))
    lengths = lengths_of(rows)
    check_features(rows, lengths, distance, "archive")
    scale, shift = np.ones(len(rows), np.float32), np.zeros(len(rows), np.float32)
    if distance == "cosine":
        np.divide(1.0, lengths, out=scale, where=lengths > 0, casting="unsafe")
        scale[lengths == 0] = 0.0
    elif distance == "euclidean":
        shift = (lengths**2 / 2).astype(np.float32)
    else:
        scale = -scale
    longest = float(lengths.max(initial=0.0))
    panels = make_panels(rows, lengths) if distance == "cosine" else NO_PANELS
    return FeatureShard(
        offset, kernel_array(rows), kernel_array(lengths), kernel_array(scale), kernel_array(shift), longest, panels
    )


def cut_shard(shard: Shard, first: int, stop: int) -> Shard:
    """Return rows first ... stop - 1 of a shard, in the same memory; `first` is a multiple of ALIGNED."""
    if isinstance(shard, CodeShard):
        return CodeShard(shard.offset + first, stop - first, shard.planes[first // CHUNK : -(-stop // CHUNK)])
    panels = shard.panels
    return shard._replace(
        offset=shard.offset + first,
        **{name: getattr(shard, name)[first:stop] for name in ("rows", "lengths", "scale", "shift")},
        panels=panels._replace(
            values=panels.values[first // PANEL : -(-stop // PANEL)], steps=panels.steps[first:stop]
        ),
    )


class PreparedArchive:
    """An archive checked and laid out once, to be searched many times: give it to `search` in the array's place.

    Attributes:
        shape: of the archive.
        distance: the only one that it can be searched by.
        shard: all of it.
    """

    def __init__(self, archive: Any, distance: str) -> None:
        """Prepare an archive.

        Args:
            archive: (N, D) float32 features, or (N, B) packed uint8 codes for hamming; anything that slices by rows.
            distance: cosine, euclidean, chi2 or hamming.

        Raises:
            SearchError: see `make_shard`.
        """
        check_distance(distance)
        self._rows = archive
        self.shape: tuple[int, ...] = tuple(archive.shape)
        self.distance = distance
        self.shard = make_shard(archive[0 : self.shape[0]], 0, distance)

    def __getitem__(self, rows: slice) -> Any:
        """Return consecutive rows as they were given."""
        return self._rows[rows]
