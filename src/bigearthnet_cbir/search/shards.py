"""Shards of an archive, prepared once and searched by many queries."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import kernel_array
from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.distances import check_distance, check_features, row_lengths
from bigearthnet_cbir.search.kernels.bit_planes import CHUNK
from bigearthnet_cbir.search.kernels.int16_dot import PANEL
from bigearthnet_cbir.search.kernels.int16_screen import NO_PANELS, Panels, make_panels
from bigearthnet_cbir.search.planes import as_planes, check_code_bytes
from bigearthnet_cbir.search.rows import Sliceable, all_rows, row_pieces
from bigearthnet_cbir.types import DoubleArray, FloatArray


class FeatureShard(NamedTuple):
    """Consecutive float features of an archive.

    Attributes:
        offset: archive index of the first row.
        rows: (N, D) float32 features, unchanged.
        lengths: (N,) float64 Euclidean lengths.
        scale: (N,) float32 factor from a screen product to a similarity.
        shift: (N,) float32; screen values are shift minus similarity.
        longest: maximum of `lengths`.
        panels: the rows as integers for the cosine screen; NO_PANELS for other distances.
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
        offset: archive index of the first code.
        size: number of codes, N.
        planes: (ceil(N / 256), P, 4) uint64 bit planes.
    """

    offset: int
    size: int
    planes: npt.NDArray[np.uint64]


Shard = FeatureShard | CodeShard

ALIGNED = max(CHUNK, PANEL)
"""Shards start at multiples of this: whole groups of codes, whole panels of features."""


def lengths_of(features: npt.NDArray[np.float32]) -> DoubleArray:
    """Return the (N,) float64 Euclidean lengths of (N, D) float32 features."""
    lengths = np.empty(len(features), np.float64)
    row_lengths(kernel_array(features), lengths)
    return lengths


def read_shard(archive: Sliceable, first: int, stop: int, distance: str) -> Shard:
    """Read and validate rows first ... stop - 1 of an archive, without the integer panels of the cosine screen.

    The result is the same on every machine; panels depend on the processor (see `with_panels`).

    Raises:
        SearchError: the rows have no defined distance (see `distances.check_features`).
    """
    if distance == "hamming":
        pieces = row_pieces(archive, first, stop, distance, CHUNK)
        return CodeShard(first, stop - first, as_planes(pieces, stop - first, archive.shape[1]))
    rows = all_rows(archive, first, stop, distance)
    lengths = lengths_of(rows)
    check_features(rows, lengths, distance, "archive", first)
    scale, shift = np.ones(len(rows), np.float32), np.zeros(len(rows), np.float32)
    if distance == "cosine":
        np.divide(1.0, lengths, out=scale, where=lengths > 0, casting="unsafe")
        scale[lengths == 0] = 0.0
    elif distance == "euclidean":
        shift = (lengths**2 / 2).astype(np.float32)
    else:
        scale = -scale
    longest = float(lengths.max(initial=0.0))
    return FeatureShard(
        first, rows, kernel_array(lengths), kernel_array(scale), kernel_array(shift), longest, NO_PANELS
    )


def with_panels(shard: Shard, distance: str) -> Shard:
    """Return a shard with the panels for this processor, if its distance uses them."""
    if isinstance(shard, CodeShard) or distance != "cosine":
        return shard
    return shard._replace(panels=make_panels(shard.rows, shard.lengths))


def without_panels(shard: Shard) -> Shard:
    """Return a shard without its processor-dependent panels."""
    return shard if isinstance(shard, CodeShard) else shard._replace(panels=NO_PANELS)


def make_shard(archive: Sliceable, first: int, stop: int, distance: str) -> Shard:
    """Return rows first ... stop - 1 of an archive, prepared for this processor.

    Raises:
        SearchError: the rows have no defined distance (see `distances.check_features`).
    """
    return with_panels(read_shard(archive, first, stop, distance), distance)


def cut_shard(shard: Shard, first: int, stop: int) -> Shard:
    """Return rows first ... stop - 1 of a shard as a view; `first` is a multiple of ALIGNED."""
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
    """An archive validated and prepared once for many searches; pass it to `search` instead of the array.

    Attributes:
        shape: shape of the archive.
        distance: the distance that it was prepared for.
        shard: the whole archive as one shard.
        given: the archive as it was given.
    """

    def __init__(self, archive: Sliceable, distance: str) -> None:
        """Prepare an archive.

        Args:
            archive: (N, D) float32 features, or (N, B) packed uint8 codes for hamming; any object with row slices.
            distance: cosine, euclidean, chi2 or hamming.

        Raises:
            SearchError: see `make_shard`.
        """
        check_distance(distance)
        if len(archive.shape) != 2:
            raise SearchError(f"the archive has shape {tuple(archive.shape)}; a search needs (N, D)")
        if distance == "hamming":
            check_code_bytes(archive.shape[1])
        self.given = archive
        self.shape: tuple[int, ...] = tuple(archive.shape)
        self.distance = distance
        self.shard = make_shard(archive, 0, self.shape[0], distance)

    @property
    def lengths(self) -> DoubleArray | None:
        """(N,) Euclidean lengths of the features; None for codes."""
        return None if isinstance(self.shard, CodeShard) else self.shard.lengths

    def __getitem__(self, rows: slice) -> Any:
        """Return consecutive rows of the given array."""
        return self.given[rows]
