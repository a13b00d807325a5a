"""Locations of patches from their names: tile, column and row give the corner in UTM, and thus longitude and latitude.

Names of version 1 and 2 and of both sensors end in column and row on the 1.2 km grid of a Sentinel-2 tile. The tile
precedes them in Sentinel-1 names of both versions and in Sentinel-2 names of version 2. A test compares the result with
the georeference of every real sample (tests/data/test_positions.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.mgrs import SQUARE, grid_square
from bigearthnet_cbir.data.places import grid_cell
from bigearthnet_cbir.data.projection import DEGREES, transform_points
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import DoubleArray, IntArray, PatchPair

PATCH_METRES: Final = 1200
"""Side length of a patch in metres."""

_RASTER: Final = 60
"""Sentinel-2 tiles start at whole multiples of their coarsest pixel size, in metres."""

_DATE: Final = re.compile(r"S[12][A-D]_(?:\w+?_)?(\d{4})(\d\d)(\d\d)T")


@dataclass(frozen=True)
class PatchPositions:
    """Locations of N patches; NaN, 0 and "" if the names do not contain them.

    Attributes:
        tile: (N,) MGRS tile, "33UUP".
        column: (N,) int32, in patches from the left edge of the tile, -1 if unknown.
        row: (N,) int32, in patches from the top edge of the tile, -1 if unknown.
        epsg: (N,) int32 code of the UTM zone.
        left: (N,) float64 easting of the upper left corner, metres.
        top: (N,) float64 northing of the upper left corner, metres.
        longitude: (N,) float64 of the centre, degrees east on WGS 84.
        latitude: (N,) float64 of the centre, degrees north.
    """

    tile: npt.NDArray[np.object_]
    column: IntArray
    row: IntArray
    epsg: IntArray
    left: DoubleArray
    top: DoubleArray
    longitude: DoubleArray
    latitude: DoubleArray


def upper_left(tile: str, column: int, row: int) -> tuple[int, int, int]:
    """Return EPSG code, easting and northing of the upper left corner of a patch.

    Raises:
        DataError: the tile is not an MGRS tile.
    """
    square = grid_square(tile)
    left = _RASTER * (square.easting // _RASTER) + PATCH_METRES * column
    top = _RASTER * -(-(square.northing + SQUARE) // _RASTER) - PATCH_METRES * row
    return square.epsg, left, top


def pair_cell(pair: PatchPair) -> tuple[str, int, int] | None:
    """Return tile, column and row of a pair, or None if its names lack them or contradict each other."""
    one, two = grid_cell(pair.s1), grid_cell(pair.s2)
    known = [cell for cell in (one, two) if cell is not None]
    tile = next((cell[0] for cell in known if cell[0] is not None), None)
    if tile is None or len({cell[1:] for cell in known}) != 1 or {cell[0] for cell in known} - {tile, None}:
        return None
    return tile, known[0][1], known[0][2]


def positions_of(pairs: Sequence[PatchPair]) -> PatchPositions:
    """Return the locations of pairs according to their names."""
    size = len(pairs)
    tiles = np.full(size, "", object)
    column, row, epsg = np.full(size, -1, np.int32), np.full(size, -1, np.int32), np.zeros(size, np.int32)
    left, top = np.full(size, np.nan), np.full(size, np.nan)
    for index, pair in enumerate(pairs):
        cell = pair_cell(pair)
        if cell is None:
            continue
        try:
            epsg[index], left[index], top[index] = upper_left(*cell)
        except DataError:
            continue
        tiles[index], column[index], row[index] = cell
    return PatchPositions(tiles, column, row, epsg, left, top, *centres(epsg, left, top))


def centres(epsg: IntArray, left: DoubleArray, top: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Return longitude and latitude, (N,) degrees, of the centres of patches; NaN if the corner is unknown."""
    longitude, latitude = np.full(len(epsg), np.nan), np.full(len(epsg), np.nan)
    for code in np.unique(epsg[epsg > 0]).tolist():
        chosen = np.flatnonzero(epsg == code)
        x, y = left[chosen] + PATCH_METRES / 2, top[chosen] - PATCH_METRES / 2
        longitude[chosen], latitude[chosen] = transform_points(code, DEGREES, x, y)
    return longitude, latitude


def acquisition_dates(names: Sequence[str]) -> npt.NDArray[np.datetime64]:
    """Return the (N,) datetime64[D] acquisition days of patches; NaT if the name has no date.

    Only the date of a name is used, because the times in version 1 names are unreliable.
    """
    return np.array([_date(name) for name in names], "datetime64[D]")


def _date(name: str) -> str:
    found = _DATE.match(name)
    if found is None:
        return "NaT"
    try:
        return str(np.datetime64("-".join(found.groups()), "D"))
    except ValueError:
        return "NaT"
