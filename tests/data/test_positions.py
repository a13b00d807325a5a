"""Positions from names: MGRS squares by their letters, corners against the georeference of every real sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import transform
from tests.conftest import RealPairs

from bigearthnet_cbir.data.geotiff import read_corner
from bigearthnet_cbir.data.metadata import read_metadata
from bigearthnet_cbir.data.mgrs import GridSquare, grid_square
from bigearthnet_cbir.data.official_splits import read_official_lists
from bigearthnet_cbir.data.places import corner_in_json
from bigearthnet_cbir.data.positions import acquisition_dates, pair_cell, positions_of
from bigearthnet_cbir.data.synthetic import acquisition_of
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import PatchPair

BANDS = "CDEFGHJKLMNPQRSTUVWX"
ROWS = "ABCDEFGHJKLMNPQRSTUV"


def slow_tile(zone: int, longitude: float, latitude: float) -> tuple[str, int, int]:
    """The square that holds a point, from the picture of the grid: letters drawn in order along both axes."""
    x, y = transform("EPSG:4326", f"EPSG:{(32600 if latitude >= 0 else 32700) + zone}", [longitude], [latitude])
    column, row = int(x[0] // 100_000), int(y[0] // 100_000)
    columns = {1: "ABCDEFGH", 2: "JKLMNPQR", 0: "STUVWXYZ"}[zone % 3]
    letters = ROWS if zone % 2 else ROWS[5:] + ROWS[:5]
    band = BANDS[min(int((latitude + 80) // 8), 19)]
    return f"{zone:02d}{band}{columns[column - 1]}{letters[row % 20]}", column * 100_000, row * 100_000


@given(
    st.integers(1, 60),
    st.floats(-2.9, 2.9),
    st.integers(-79_900, 83_900).map(lambda thousandth: thousandth / 1000 + 0.0005),
)
def test_square_of_any_point_of_the_grid(zone: int, off: float, latitude: float) -> None:
    tile, easting, northing = slow_tile(zone, (zone - 1) * 6 - 177 + off, latitude)
    found = grid_square(tile)
    assert found == GridSquare(zone, latitude >= 0, easting, northing)
    assert found.epsg == (32600 if latitude >= 0 else 32700) + zone
    assert grid_square(f"T{tile.lstrip('0')}") == found


@pytest.mark.parametrize("tile", ["", "33U", "61UUP", "0UUP", "33IUP", "33UIP", "33UUO", "33UAP", "33UUW", "33uup"])
def test_what_is_no_square_is_refused(tile: str) -> None:
    with pytest.raises(DataError, match="is no 100 km square of MGRS"):
        grid_square(tile)


@pytest.mark.slow
def test_tiles_of_bigearthnet_lie_in_its_countries(real_pairs: RealPairs) -> None:
    """Every pair of version 1, against rough bounds of its country."""
    bounds = {
        "Austria": (9.3, 46.2, 17.3, 49.1), "Belgium": (2.4, 49.4, 6.5, 51.6), "Finland": (19, 59.3, 31.7, 70.2),
        "Ireland": (-10.9, 51.2, -5.3, 55.7), "Kosovo": (19.9, 41.7, 21.9, 43.4), "Lithuania": (20.8, 53.8, 27, 56.6),
        "Luxembourg": (5.6, 49.3, 6.7, 50.3), "Portugal": (-9.6, 36.9, -6.1, 42.3), "Serbia": (18.7, 42.1, 23.1, 46.3),
        "Switzerland": (5.8, 45.7, 10.6, 47.9),
    }  # fmt: skip
    pairs = read_official_lists()[::97]
    found = positions_of([PatchPair(pair.s2, pair.s1) for pair in pairs])
    assert set(found.epsg.tolist()) == {32629, 32631, 32632, 32633, 32634, 32635, 32636}
    for position, pair in enumerate(pairs):
        west, south, east, north = bounds[pair.country]
        assert west - 0.2 < found.longitude[position] < east + 0.2, pair
        assert south - 0.2 < found.latitude[position] < north + 0.2, pair


def test_names_of_version_1_tell_the_place_of_their_files(real_pairs: RealPairs) -> None:
    found = positions_of(real_pairs.pairs)
    for position, pair in enumerate(real_pairs.pairs):
        for root, name, band in ((real_pairs.s2_root, pair.s2, "B02"), (real_pairs.s1_root, pair.s1, "VV")):
            path = root / name / f"{name}_{band}.tif"
            assert read_corner(path) == (f"EPSG:{found.epsg[position]}", found.left[position], found.top[position])
            told = corner_in_json(json.loads((root / name / f"{name}_labels_metadata.json").read_text()))
            assert told == (f"EPSG:{found.epsg[position]}", found.left[position], found.top[position])
            with rasterio.open(path) as source:
                (x,), (y,) = transform(source.crs, "EPSG:4326", *([value] for value in source.xy(59.5, 59.5)))
            assert abs(found.longitude[position] - x) < 1e-9
            assert abs(found.latitude[position] - y) < 1e-9


def test_both_names_of_version_2_tell_one_place(samples: Path) -> None:
    """The v2 samples carry no coordinates of their own; the tiles of both names must agree."""
    rows = read_metadata(samples / "bigearthnet-v2" / "metadata.parquet")
    pairs = [PatchPair(row.s2, row.s1) for row in rows]
    found = positions_of(pairs)
    for position, pair in enumerate(pairs):
        tile = pair.s2.split("_")[5].removeprefix("T")
        assert found.tile[position] == tile == pair.s1.split("_")[5]
    assert np.isfinite(found.longitude).all()


def test_pairs_that_tell_no_place_have_none() -> None:
    one = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48"
    none = [
        PatchPair("S2A_MSIL2A_20170613T101031_87_49", one),
        PatchPair("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUQ_87_48", one),
        PatchPair("S2A_something", "S1A_something"),
        PatchPair("S2A_MSIL2A_20170613T101031_87_48", "S1A_x_99UUP_87_48"),
    ]
    found = positions_of(none)
    assert not np.isfinite(found.longitude).any()
    assert found.tile.tolist() == [""] * 4
    assert found.column.tolist() == found.row.tolist() == [-1] * 4
    assert pair_cell(PatchPair("S2A_something", one)) == ("33UUP", 87, 48)


def test_dates_are_those_of_the_names() -> None:
    names = [
        "S2B_MSIL2A_20170924T93020_69_24",
        "S1A_IW_GRDH_1SDV_20180204T043253_35VPK_57_38",
        "S2A_x",
        "S2A_20171350T1_1",
    ]
    assert acquisition_dates(names).astype(str).tolist() == ["2017-09-24", "2018-02-04", "NaT", "NaT"]


def test_names_of_the_demo_world_tell_where_it_is_written() -> None:
    places = [acquisition_of(number) for number in range(0, 4000, 53)]
    found = positions_of([place.names for place in places])
    for position, place in enumerate(places):
        assert (found.left[position], found.top[position]) == place.upper_left
