"""Spatial exclusion: archive patches near a query or of the same acquisition, excluded from its results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.types import IntArray, PatchPair

_S1: Final = re.compile(r"(?P<acquisition>S1.+)_T?(?P<tile>\d{1,2}[A-Z]{3})_(?P<column>\d+)_(?P<row>\d+)")
_S2: Final = re.compile(r"(?P<acquisition>S2.+?)(_T\d{1,2}[A-Z]{3})?_\d+_\d+")
_SHORT_TIME: Final = re.compile(r"T(?=\d{5}$)")
"""Names of version 1 may lack the leading zero of the hour."""


class Place(NamedTuple):
    """Location and acquisitions of a pair, from its names.

    Attributes:
        tile: MGRS tile.
        column: in patches of 1.2 km from the left of the tile.
        row: in patches from the top of the tile.
        s1: Sentinel-1 acquisition: the name up to the tile.
        s2: Sentinel-2 acquisition: the name up to tile (version 2) or column (version 1).
    """

    tile: str
    column: int
    row: int
    s1: str
    s2: str


def place_of(pair: PatchPair) -> Place:
    """Return location and acquisitions from the names of a pair.

    Raises:
        ResultsError: a name does not end in tile, column and row (Sentinel-1) or in column and row (Sentinel-2).
    """
    one, two = _S1.fullmatch(pair.s1), _S2.fullmatch(pair.s2)
    if one is None or two is None:
        name, form = (pair.s1, "S1..._<tile>_<column>_<row>") if one is None else (pair.s2, "S2..._<column>_<row>")
        raise ResultsError(f"exclude_within: {name} is not of the form {form}; remove exclude_within")
    s2 = _SHORT_TIME.sub("T0", two["acquisition"])
    return Place(one["tile"], int(one["column"]), int(one["row"]), one["acquisition"], s2)


def self_match_positions(queries: Sequence[PatchPair], archive: Sequence[PatchPair]) -> IntArray | None:
    """Return (Q, 1) archive positions of the queries themselves, -1 if not in the archive; None if no query is.

    Patches are identified by their Sentinel-2 name.
    """
    positions = {pair.s2: position for position, pair in enumerate(archive)}
    own = np.array([[positions.get(pair.s2, -1)] for pair in queries], dtype=np.int32)
    return own if (own >= 0).any() else None


def _grouped(keys: Iterable[str]) -> dict[str, IntArray]:
    groups: dict[str, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return {key: np.array(positions, np.int32) for key, positions in groups.items()}


class SpatialExclusion:
    """The excluded archive positions of each query; rows are computed when they are sliced.

    An acquisition can have thousands of patches, so the positions of 100,000 queries would take gigabytes; a block
    takes megabytes. The search accepts this object as `exclude` and is therefore exact.

    Attributes:
        shape: (Q, most positions of a query).
        counts: (Q,) int64 positions of each query, including itself if it is in the archive.
        left_out: (Q,) bool; queries that keep fewer than `least` archive patches. Their rows are empty (-1), so that
            a search with k >= `least` is valid; exclude them from the means.
    """

    def __init__(self, queries: Sequence[PatchPair], archive: Sequence[PatchPair], radius: int, least: int = 1) -> None:
        """Find the excluded patches of every query.

        Args:
            queries: names of the query pairs.
            archive: names of the archive pairs.
            radius: patches of the same tile at most this many columns and rows away are excluded.
            least: smallest number of remaining archive patches per query.

        Raises:
            ResultsError: a name has no location.
        """
        self._queries = [place_of(pair) for pair in queries]
        places = [place_of(pair) for pair in archive]
        self._radius = radius
        at = np.array([(place.column, place.row) for place in places], np.int32).reshape(-1, 2)
        tiles = _grouped(place.tile for place in places)
        self._tiles = {tile: (positions, *at[positions].T.copy()) for tile, positions in tiles.items()}
        self._s1, self._s2 = _grouped(place.s1 for place in places), _grouped(place.s2 for place in places)
        self._taken: dict[tuple[str, str], IntArray] = {}
        self.counts = np.array([len(self._near(place)) for place in self._queries], np.int64)
        self.left_out: npt.NDArray[np.bool_] = len(archive) - self.counts < least
        self.shape = (len(queries), int(self.counts.max(initial=0)))

    def __getitem__(self, rows: slice) -> IntArray:
        """Return (queries, E) positions in arbitrary order, padded with -1; E is the length of the longest row."""
        chosen = zip(self._queries[rows], self.left_out[rows], strict=True)
        near = [self._none() if left_out else self._near(place) for place, left_out in chosen]
        filled = np.full((len(near), max(map(len, near), default=0)), -1, np.int32)
        for row, positions in zip(filled, near, strict=True):
            row[: len(positions)] = positions
        return filled

    @staticmethod
    def _none() -> IntArray:
        return np.empty(0, np.int32)

    def _near(self, place: Place) -> IntArray:
        positions, columns, rows = self._tiles.get(place.tile, (self._none(),) * 3)
        close = (abs(columns - place.column) <= self._radius) & (abs(rows - place.row) <= self._radius)
        beside, taken = positions[close], self._taken_with(place)
        # Both are ascending; a position in both is counted once, so that lengths count patches.
        slots = np.searchsorted(taken, beside)
        known = np.append(taken, -1)[slots] == beside
        return np.concatenate([taken, beside[~known]])

    def _taken_with(self, place: Place) -> IntArray:
        key = place.s1, place.s2
        if key not in self._taken:
            self._taken[key] = np.union1d(self._s1.get(place.s1, self._none()), self._s2.get(place.s2, self._none()))
        return self._taken[key]
