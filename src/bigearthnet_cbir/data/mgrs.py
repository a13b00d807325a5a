"""MGRS 100 km squares, computed from their letters: 33UUP is the square at 300 000 m E, 5 300 000 m N in UTM zone 33.

Rules: NGA.STND.0037 (2014), "Universal Grids and the Transverse Mercator and Polar Stereographic Map Projections",
chapter 3, https://earth-info.nga.mil. The wider zones around Norway and Svalbard need no special case, because a tile
name contains its zone.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final, NamedTuple

from bigearthnet_cbir.errors import DataError, short

SQUARE: Final = 100_000
"""Side length of a square in metres."""

_TILE: Final = re.compile(r"T?(\d{1,2})([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])")
_BANDS: Final = "CDEFGHJKLMNPQRSTUVWX"
_COLUMNS: Final = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")
"""Column letters of zones 3, 6, 9 ...; 1, 4, 7 ...; 2, 5, 8 ..., for eastings of 100 to 800 km."""

_ROWS: Final = "ABCDEFGHJKLMNPQRSTUV"
_EVEN_ZONES_START: Final = 5
"""Row letters of even zones start at F."""

_ROW_CYCLE: Final = len(_ROWS) * SQUARE
_BAND_DEGREES: Final = 8
_SOUTHERNMOST: Final = -80
_FALSE_NORTHING: Final = 10_000_000
_SCALE: Final = 0.9996
_SEMI_MAJOR: Final = 6_378_137.0
_FLATTENING: Final = 1 / 298.257223563
_BULGE: Final = 20_000
"""Upper bound, in metres, of the difference in northing of a parallel between the middle and the edge of a zone."""


class GridSquare(NamedTuple):
    """A 100 km square.

    Attributes:
        zone: UTM zone, 1 to 60.
        is_north: whether its latitude band is on the northern hemisphere.
        easting: of its south-west corner, whole metres.
        northing: of its south-west corner, whole metres.
    """

    zone: int
    is_north: bool
    easting: int
    northing: int

    @property
    def epsg(self) -> int:
        """EPSG code of the zone's coordinate system, WGS 84 / UTM."""
        return (32600 if self.is_north else 32700) + self.zone


@lru_cache(maxsize=4096)
def grid_square(tile: str) -> GridSquare:
    """Return the 100 km square of a tile, "33UUP" or "T33UUP".

    Raises:
        DataError: it is not an MGRS tile.
    """
    found = _TILE.fullmatch(tile)
    zone = int(found[1]) if found else 0
    if found is None or not 1 <= zone <= 60 or found[3] not in _COLUMNS[zone % 3]:
        raise DataError(f"tile {short(tile)} is no 100 km square of MGRS; one is written 33UUP, say")
    easting = SQUARE * (1 + _COLUMNS[zone % 3].index(found[3]))
    row = (_ROWS.index(found[4]) - (0 if zone % 2 else _EVEN_ZONES_START)) % len(_ROWS)
    south = _SOUTHERNMOST + _BAND_DEGREES * _BANDS.index(found[2])
    # The letters repeat every 2 000 km; the square of this tile overlaps the latitude band.
    least = _northing(south) - SQUARE - _BULGE
    northing = SQUARE * row + _ROW_CYCLE * math.ceil((least - SQUARE * row) / _ROW_CYCLE)
    return GridSquare(zone, south >= 0, easting, northing)


def _northing(latitude: float) -> float:
    """Return the northing of a parallel in the middle of a zone, in the convention of its hemisphere.

    The meridian arc is computed as a series in the third flattening (Karney 2011, https://arxiv.org/abs/1002.1417),
    accurate to less than a metre.
    """
    n = _FLATTENING / (2 - _FLATTENING)
    radius = _SEMI_MAJOR / (1 + n) * (1 + n**2 / 4)
    phi = math.radians(latitude)
    arc = radius * (phi - 1.5 * n * math.sin(2 * phi) + 15 / 16 * n**2 * math.sin(4 * phi))
    return _SCALE * arc + (0 if latitude >= 0 else _FALSE_NORTHING)
