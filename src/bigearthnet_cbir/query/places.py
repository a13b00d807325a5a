"""The patch at a point on the map."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bigearthnet_cbir.data.positions import PATCH_METRES
from bigearthnet_cbir.data.projection import DEGREES, transform_points
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.types import DoubleArray

EARTH_METRES: Final = 6_371_008.8
"""Mean radius of the Earth in metres."""

NEAREST_METRES: Final = 2 * PATCH_METRES
"""Maximum distance in metres from a point outside all patches to the centre of the nearest one."""

_CANDIDATES: Final = 32
"""Number of nearest patches that are tested in their own UTM coordinates. Fewer tiles overlap at any point."""


def distances_to(index: Index, longitude: float, latitude: float) -> DoubleArray:
    """Return (N,) great-circle distances in metres from a point to the centres of all pairs; infinite if unknown."""
    x, y = np.radians(index.catalogue.longitude), np.radians(index.catalogue.latitude)
    east, north = math.radians(longitude), math.radians(latitude)
    half = np.sin((y - north) / 2) ** 2 + np.cos(y) * math.cos(north) * np.sin((x - east) / 2) ** 2
    found: DoubleArray = np.nan_to_num(2 * EARTH_METRES * np.arcsin(np.sqrt(np.minimum(half, 1.0))), nan=np.inf)
    return found


def patch_at(index: Index, longitude: float, latitude: float) -> int:
    """Return the position of the pair whose footprint contains a point, or else the nearest pair within NEAREST_METRES.

    Where tiles overlap, the pair with the nearest centre is returned, ties by position.

    Args:
        index: N pairs.
        longitude: degrees east.
        latitude: degrees north.

    Raises:
        QueryError: the coordinates are invalid, or the point is outside the covered area.
    """
    if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):  # also true for NaN
        raise QueryError(
            f"point is {longitude:g},{latitude:g}; give longitude,latitude in degrees, -180 to 180 and -90 to 90"
        )
    away = distances_to(index, longitude, latitude)
    near = np.argsort(away, kind="stable")[:_CANDIDATES]
    found = next((int(position) for position in near if _covers(index, int(position), longitude, latitude)), None)
    if found is not None:
        return found
    first = int(near[0])
    if away[first] > NEAREST_METRES:
        told = f"the nearest, {index.names_s2[first]}, is {away[first] / 1000:,.1f} km away: give another point"
        raise QueryError(
            f"point is {longitude:g},{latitude:g} (longitude,latitude), but no patch of this index is within "
            f"{NEAREST_METRES / 1000:g} km; "
            + (told if np.isfinite(away[first]) else "no pair has a known location: give a patch name")
        )
    return first


def _covers(index: Index, position: int, longitude: float, latitude: float) -> bool:
    """Return whether a patch, a square in its UTM zone, contains a point."""
    known = index.catalogue
    if not known.epsg[position]:
        return False
    x, y = transform_points(DEGREES, int(known.epsg[position]), np.array([longitude]), np.array([latitude]))
    right, down = float(x[0]) - known.left[position], known.top[position] - float(y[0])
    return bool(0 <= right < PATCH_METRES and 0 <= down < PATCH_METRES)
