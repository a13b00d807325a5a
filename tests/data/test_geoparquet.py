"""GeoParquet 1.1: what other programs read in it, and what this project reads back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bigearthnet_cbir.data.catalogue import build_catalogue, read_catalogue, write_catalogue
from bigearthnet_cbir.data.geoparquet import Categories, label_lists, read_columns, write_points
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.pair_filter import PairInfo
from bigearthnet_cbir.data.pair_list import Names
from bigearthnet_cbir.data.positions import positions_of
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import PatchPair

X, Y = np.array([13.5, np.nan, -8.25]), np.array([48.0, np.nan, 39.5])
LABELS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.uint8)
COLUMNS = {
    "name": Names(["a", "b", "c"]),
    "country": Categories.of(["Austria", "", "Austria"]),
    "day": np.array(["2017-06-13", "NaT", "2018-02-04"], "datetime64[D]"),
    "vector": np.arange(6, dtype=np.float32).reshape(3, 2),
    "labels": label_lists(LABELS, ("x", "y", "z")),
    "number": np.array([1, 2, 3], np.int32),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_points(tmp_path / "points.parquet", COLUMNS, X, Y)
    return tmp_path / "points.parquet"


def test_is_valid_geoparquet(path: Path) -> None:
    table = pq.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    column = geo["columns"]["geometry"]
    # Without a crs the specification means OGC:CRS84, longitude and latitude.
    assert column == {"encoding": "WKB", "geometry_types": ["Point"], "bbox": [-8.25, 39.5, 13.5, 48.0]}
    points = table.column("geometry").to_pylist()
    assert points[1] is None
    assert points[0] == b"\x01\x01\x00\x00\x00" + np.array([13.5, 48.0], "<f8").tobytes()
    schema = pq.ParquetFile(path).schema
    kinds = {schema.column(number).name: schema.column(number).physical_type for number in range(len(schema))}
    assert kinds["geometry"] == "BYTE_ARRAY"


def test_pyarrow_reads_every_column(path: Path) -> None:
    table = pq.read_table(path)
    assert table.column("labels").to_pylist() == [["x", "z"], [], ["y"]]
    assert table.column("vector").to_pylist() == [[0, 1], [2, 3], [4, 5]]
    assert str(table.schema.field("vector").type).startswith("fixed_size_list")
    assert [str(day) for day in table.column("day").to_pylist()] == ["2017-06-13", "None", "2018-02-04"]
    assert table.column("country").to_pylist() == ["Austria", "", "Austria"]


def test_geopandas_reads_points(path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    found = geopandas.read_parquet(path)
    assert found.crs.to_string() == "OGC:CRS84"
    assert (found.geometry.x.iloc[0], found.geometry.y.iloc[2]) == (13.5, 39.5)
    assert found.geometry.iloc[1] is None
    assert found.total_bounds.tolist() == [-8.25, 39.5, 13.5, 48.0]


def test_columns_come_back(path: Path) -> None:
    found = read_columns(path, ["name"], ["country"])
    assert list(found["name"]) == ["a", "b", "c"]
    assert list(np.asarray(found["country"])) == ["Austria", "", "Austria"]
    assert found["country"].is_in(["Austria"]).tolist() == [True, False, True]
    assert np.array_equal(found["day"], COLUMNS["day"], equal_nan=True)
    assert found["number"].dtype == np.int32


def test_catalogue_comes_back(tmp_path: Path) -> None:
    pairs = [
        PatchPair("S2A_MSIL2A_20170613T101031_87_48", "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48"),
        PatchPair("S2A_odd", "S1A_odd"),
    ]
    known = {pairs[0].s2: PairInfo(*pairs[0], split="val", country="Austria", season="Summer")}
    made = build_catalogue(pairs, positions_of(pairs), known, ["", "test"])
    write_catalogue(tmp_path / "catalogue.parquet", made, np.zeros((2, 19), np.uint8), CLASSES)
    found = read_catalogue(tmp_path / "catalogue.parquet")
    assert list(found.split) == ["val", "test"]
    assert list(found.season) == ["Summer", ""]
    assert list(found.acquisition_s2) == ["S2A_MSIL2A_20170613T101031", ""]
    assert found.name_s1 == Names([pair.s1 for pair in pairs])
    for name in ("longitude", "latitude", "date_s1", "date_s2", "left"):
        assert np.array_equal(getattr(found, name), getattr(made, name), equal_nan=True)
        assert np.isnan(found.left[1])


def test_damaged_files_are_one_line(tmp_path: Path, path: Path) -> None:
    with pytest.raises(DataError, match="there is no such Parquet file"):
        read_columns(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="column town is missing"):
        read_columns(path, categories=["town"])
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_columns(path, ["name"], ["country"])
