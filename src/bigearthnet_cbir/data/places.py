"""Check that two patches have the same location, from their names, JSONs or files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from bigearthnet_cbir.data.geotiff import read_corner
from bigearthnet_cbir.types import PatchPair

_TILE: Final = re.compile(r"T?(\d{1,2}[A-Z]{3})")
_EPSG: Final = re.compile(r"(\d{4,6})\D*$")
_NEAR: Final = 10.0
"""Tolerance of the corner coordinates in metres: one pixel."""


class Corner(NamedTuple):
    """The upper left corner of a patch.

    Attributes:
        system: EPSG code of the coordinate system, or its full description if it has none.
        left: easting in metres.
        top: northing in metres.
    """

    system: str
    left: float
    top: float

    def __str__(self) -> str:
        return f"{self.left:.0f}, {self.top:.0f} ({self.system[:40]})"

    def is_near(self, other: Corner) -> bool:
        """Return whether both are the same location."""
        distances = abs(self.left - other.left), abs(self.top - other.top)
        return self.system == other.system and max(distances) < _NEAR


def names_agree(pair: PatchPair) -> bool | None:
    """Return whether tile, column and row of both names agree; None if a name lacks one of them.

    Version 1 names of Sentinel-2 have no tile, so they can disagree but not agree.
    """
    one, two = grid_cell(pair.s1), grid_cell(pair.s2)
    if one is None or two is None:
        return None
    if one[1:] != two[1:]:
        return False
    return None if one[0] is None or two[0] is None else one[0] == two[0]


def grid_cell(name: str) -> tuple[str | None, int, int] | None:
    """Return tile, column and row from the end of a name; the tile is None if the name has none."""
    parts = name.rsplit("_", 3)
    if len(parts) < 4 or not all(part.isascii() and part.isdecimal() for part in parts[2:]):
        return None
    tile = _TILE.fullmatch(parts[1])
    return (None if tile is None else tile[1].zfill(5)), int(parts[2]), int(parts[3])


def corner_in_json(content: Mapping[str, Any]) -> Corner | None:
    """Return the location in a version 1 JSON, or None if it has none."""
    try:
        corners, projection = content["coordinates"], content["projection"]
        return Corner(_system(projection), float(corners["ulx"]), float(corners["uly"]))
    except (KeyError, TypeError, ValueError):
        return None


@lru_cache(maxsize=1024)
def _system(projection: str) -> str:
    """Return the EPSG code of a coordinate system, or its description; cached, because a country has few of them."""
    found = _EPSG.search(projection)
    return " ".join(projection.split()) if found is None else f"EPSG:{found[1]}"


def corner_in_file(path: Path) -> Corner | None:
    """Return the location of a GeoTIFF, or None if it cannot be read or has no georeference."""
    found = read_corner(path)
    return None if found is None else Corner(*found)
