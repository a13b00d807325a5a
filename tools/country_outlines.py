"""Make the country outlines of the map page: Natural Earth 1:50 million, clipped to Europe, as compact JSON.

Natural Earth (naturalearthdata.com) is in the public domain; the npm package world-atlas carries it as TopoJSON:

    npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz
    python tools/country_outlines.py package/countries-50m.json

The result, src/bigearthnet_cbir/serve/assets/outlines.json, holds for each country its rings as flat lists of whole
numbers: hundredths of a degree, first longitude and latitude, then the steps from point to point.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

Point: TypeAlias = tuple[float, float]
Ring: TypeAlias = list[Point]

WINDOW = (-45.0, 18.0, 75.0, 82.0)
"""West, south, east, north in degrees: Europe, and what a map of it shows around."""

UNITS_PER_DEGREE = 100
OUTPUT = Path(__file__).resolve().parents[1] / "src" / "bigearthnet_cbir" / "serve" / "assets" / "outlines.json"


def read_arcs(topology: dict[str, Any]) -> list[Ring]:
    """Return every arc of a TopoJSON file in degrees; its points are steps on an integer grid."""
    (scale_x, scale_y), (shift_x, shift_y) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = []
    for steps in topology["arcs"]:
        x = y = 0
        points = []
        for step in steps:
            x, y = x + step[0], y + step[1]
            points.append((x * scale_x + shift_x, y * scale_y + shift_y))
        arcs.append(points)
    return arcs


def rings_of(geometry: dict[str, Any], arcs: list[Ring]) -> Iterator[Ring]:
    """Yield the rings of a Polygon or MultiPolygon; ~i stands for arc i backwards, and arcs share their end points."""
    polygons = {"Polygon": [geometry.get("arcs")], "MultiPolygon": geometry.get("arcs", [])}.get(geometry["type"], [])
    for polygon in polygons:
        for indices in polygon:
            ring: Ring = []
            for index in indices:
                arc = arcs[index] if index >= 0 else arcs[~index][::-1]
                ring += arc[1:] if ring else arc
            yield unwrap(ring)


def unwrap(ring: Ring) -> Ring:
    """Return a ring that goes on beyond 180 degrees where it would jump from there to -180."""
    turns, found = 0, ring[:1]
    for (before, _), (x, y) in itertools.pairwise(ring):
        turns -= round((x - before) / 360)
        found.append((x + 360 * turns, y))
    return found


def clip(ring: Ring, window: tuple[float, float, float, float]) -> Ring:
    """Return what of a ring lies in the window (Sutherland and Hodgman 1974, side by side)."""
    west, south, east, north = window
    for axis, bound, sign in ((0, west, 1), (0, east, -1), (1, south, 1), (1, north, -1)):
        ring = _clip_side(ring, axis, bound, lambda p, a=axis, b=bound, s=sign: s * (p[a] - b) >= 0)
    return ring


def _clip_side(ring: Ring, axis: int, bound: float, inside: Callable[[Point], bool]) -> Ring:
    kept: Ring = []
    for before, point in zip(ring[-1:] + ring[:-1], ring, strict=True):
        if inside(before) != inside(point):
            share = (bound - before[axis]) / (point[axis] - before[axis])
            kept.append(tuple(a + share * (b - a) for a, b in zip(before, point, strict=True)))  # type: ignore[arg-type]
        if inside(point):
            kept.append(point)
    return kept


def encode(ring: Ring) -> list[int]:
    """Return a ring as whole steps; points that rounding makes equal to the one before are left out."""
    rounded = [(round(x * UNITS_PER_DEGREE), round(y * UNITS_PER_DEGREE)) for x, y in ring]
    points = [point for before, point in zip([None, *rounded], rounded, strict=False) if point != before]
    if len(points) < 4:
        return []
    flat = list(points[0])
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        flat += [x1 - x0, y1 - y0]
    return flat


def main() -> None:
    """Write the outlines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("topology", type=Path, help="countries-50m.json of world-atlas")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    topology = json.loads(given.topology.read_text(encoding="utf-8"))
    arcs, countries = read_arcs(topology), {}
    for geometry in topology["objects"]["countries"]["geometries"]:
        rings = [encode(clip(ring, WINDOW)) for ring in rings_of(geometry, arcs)]
        if any(rings):
            countries[geometry["properties"]["name"]] = [ring for ring in rings if ring]
    content = {
        "source": "Natural Earth 1:50 million, admin 0 countries, public domain; TopoJSON by world-atlas 2.0.2",
        "made_by": "tools/country_outlines.py",
        "window": WINDOW,
        "units_per_degree": UNITS_PER_DEGREE,
        "countries": countries,
    }
    given.output.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    points = sum(len(ring) // 2 for rings in countries.values() for ring in rings)
    print(f"{given.output}: {len(countries)} countries, {points:,} points, {given.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
