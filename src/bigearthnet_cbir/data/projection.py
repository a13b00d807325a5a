"""Transformation of coordinates between coordinate reference systems, by PROJ."""

from __future__ import annotations

import numpy as np

from bigearthnet_cbir.types import DoubleArray

DEGREES = 4326
"""EPSG code of longitude and latitude on WGS 84."""


def transform_points(source: int, target: int, x: DoubleArray, y: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Transform points from one coordinate reference system to another.

    Args:
        source: EPSG code of the points.
        target: EPSG code of the result.
        x: (N,) eastings in metres, or longitudes in degrees.
        y: (N,) northings in metres, or latitudes in degrees.
    """
    from rasterio.warp import transform  # imported only if there are points

    if not len(x):
        return np.empty(0), np.empty(0)
    found = transform(f"EPSG:{source}", f"EPSG:{target}", x.tolist(), y.tolist())
    return np.asarray(found[0], np.float64), np.asarray(found[1], np.float64)
