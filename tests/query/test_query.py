"""project/query.py: every option, on six real pairs of version 1 and on patches of version 2."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from tests.conftest import RealPairs

from bigearthnet_cbir.cli import query as command
from bigearthnet_cbir.data.bands import MODEL_S2_BANDS
from bigearthnet_cbir.data.geotiff_stack import band_of, read_stack
from bigearthnet_cbir.errors import DataError, QueryError
from bigearthnet_cbir.pipelines.query_encoder import QueryEncoder
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import Patch

ROOT = Path(__file__).resolve().parents[2]
NAME = "S2A_MSIL2A_20170613T101031_87_48"
S1_NAME = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48"


class Asking:
    """Runs the command on a run, and reads the JSON that it writes."""

    def __init__(self, run: RunFolder, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._run, self._capsys = run, capsys
        self.folder = folder

    def __call__(self, *words: object) -> dict:
        answer = self.folder / "answer.json"
        code = command.main(["--filepath", str(self._run.root), "--json", str(answer), *map(str, words)])
        self.printed, self.errors = self._capsys.readouterr()
        assert code == 0, self.errors
        return json.loads(answer.read_text())

    def names(self, *words: object) -> list[str]:
        return [hit["name_s2"] for hit in self(*words)["hits"]]

    def mistake(self, *words: object) -> str:
        assert command.main(["--filepath", str(self._run.root), *map(str, words)]) == 2
        lines = self._capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("error: ")
        return lines[-1]


@pytest.fixture
def ask(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Asking:
    return Asking(run, tmp_path, capsys)


def test_either_name_asks_the_same(ask: Asking) -> None:
    one, two = ask("--patch", NAME), ask("--patch", S1_NAME)
    assert one["hits"] == two["hits"]
    assert len(one["hits"]) == 5
    assert NAME not in [hit["name_s2"] for hit in one["hits"]]
    assert one["asked"][0]["name_s1"] == S1_NAME


def test_prints_a_table_that_fits_the_terminal(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    found = ask("--patch", NAME)
    lines = ask.printed.splitlines()
    assert all(len(line) <= 72 for line in lines if not line.startswith("written"))
    for hit in found["hits"]:
        assert re.search(rf"^ +{hit['rank']} +\S+ {hit['name_s2']}$", ask.printed, re.MULTILINE)
        assert hit["date_s2"] in ask.printed
        for label in hit["shared"]:
            assert f"*{label.split(',')[0].split()[0]}" in ask.printed


@pytest.mark.parametrize("sensor", ["s1", "s2", "fused"])
@pytest.mark.parametrize("distance", ["cosine", "hamming", "euclidean"])
def test_a_folder_finds_what_its_name_finds(ask: Asking, real_pairs: RealPairs, sensor: str, distance: str) -> None:
    folders = {
        "s2": ("--s2", real_pairs.s2_root / NAME),
        "s1": ("--s1", real_pairs.s1_root / S1_NAME),
    }
    given = [word for side, words in folders.items() if sensor in (side, "fused") for word in words]
    by_folder = ask(*given, "--distance", distance)
    by_name = ask("--patch", NAME, "--sensor", sensor, "--distance", distance)
    assert by_folder["query"] == sensor
    assert [hit["name_s2"] for hit in by_folder["hits"]] == [hit["name_s2"] for hit in by_name["hits"]]
    distances = [[hit["distance"] for hit in found["hits"]] for found in (by_folder, by_name)]
    assert np.allclose(*distances, atol=1e-5)
    assert by_folder["labels"] == by_name["labels"]


@pytest.mark.parametrize(("sensor", "archive"), [("s1", "s2"), ("s2", "s1"), ("s1", "s1"), ("s2", "fused")])
def test_directions(ask: Asking, index: Index, sensor: str, archive: str) -> None:
    found = ask("--patch", NAME, "--sensor", sensor, "--in", archive, "--top", 6)
    own = index.position(NAME)
    asks, rows = np.asarray(index.vectors(sensor)[own], np.float64), np.asarray(index.vectors(archive), np.float64)
    if archive == "fused":
        asks = np.concatenate([asks, asks])
    away = 1 - rows @ asks / np.linalg.norm(rows, axis=1) / np.linalg.norm(asks)
    expected = sorted((row for row in range(6) if row != own), key=lambda row: away[row])
    assert [hit["position"] for hit in found["hits"]] == expected


def test_version_2_folders_and_top(ask: Asking, samples: Path) -> None:
    root = samples / "bigearthnet-v2"
    s2 = next(path for path in sorted(root.glob("BigEarthNet-S2/*/*")) if path.is_dir())
    s1 = next(path for path in sorted(root.glob("BigEarthNet-S1/*/*")) if path.is_dir())
    assert len(ask.names("--s2", s2, "--top", 2)) == 2
    assert len(ask.names("--s2", s2, "--s1", s1)) == 6
    assert ask("--s1", s1, "--in", "s2")["query"] == "s1"


def test_the_patch_at_a_point(ask: Asking) -> None:
    assert ask.names("--at", "13.7209,48.2223") == ask.names("--patch", NAME)
    assert ask("--at", "-8.2132,39.3638")["asked"][0]["name_s2"].endswith("_56_35")
    beside = ask("--at", "13.7300,48.2223")
    assert beside["asked"][0]["name_s2"] == NAME
    message = ask.mistake("--at", "2,41")
    assert "point is 2,41" in message
    assert "km away" in message
    assert "give longitude,latitude" in ask.mistake("--at", "13.7")
    assert "in degrees" in ask.mistake("--at", "200,4")


def test_marks(ask: Asking, index: Index) -> None:
    like, unlike = [NAME, index.names_s1[2]], [index.names_s2[4]]
    if index.position(NAME) in (2, 4):
        like, unlike = [NAME, index.names_s1[1]], [index.names_s2[3]]
    found = ask("--like", *like, "--unlike", *unlike)
    marked = {index.position(name) for name in (*like, *unlike)}
    rows = np.asarray(index.vectors("fused"), np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    wanted = [index.position(name) for name in like]
    towards = 2 * units[wanted].mean(axis=0) - units[index.position(unlike[0])]
    away = 1 - units @ towards / np.linalg.norm(towards)
    expected = sorted((row for row in range(6) if row not in marked), key=lambda row: away[row])
    assert [hit["position"] for hit in found["hits"]] == expected
    assert "mark one as relevant" in ask.mistake("--unlike", NAME)
    assert "marked as relevant and as not relevant" in ask.mistake("--like", NAME, "--unlike", S1_NAME)
    assert "a logistic regression needs 5" in ask.mistake(
        "--like", NAME, "--unlike", unlike[0], "--feedback", "logistic"
    )


def test_filters(ask: Asking, index: Index) -> None:
    kept = lambda *words: set(ask.names("--patch", NAME, *words))  # noqa: E731
    everything = kept()
    assert kept("--label", "arable land") == {
        name for name in everything if "Arable land" in index.labels_of(index.position(name))
    }
    forests = ("Coniferous forest", "Mixed forest")
    some = {name for name in everything if set(forests) & set(index.labels_of(index.position(name)))}
    assert kept("--any-label", *forests) == some
    assert kept("--without-label", *forests) == everything - some
    assert kept("--any-label", forests[0], "--any-label", forests[1]) == some
    assert kept("--country", "austria") == everything
    assert kept("--season", "Winter") == {name for name in everything if name[15:17] in ("12", "01", "02")}
    assert kept("--split", "test") == {
        name for name in everything if index.catalogue.split[index.position(name)] == "test"
    }
    assert kept("--from", "2017-06-13", "--to", "2017-06-30") == {name for name in everything if "_201706" in name}
    assert (
        kept("--box", "-9,39,-8,40")
        == kept("--box=-9,39,-8,40")
        == {name for name in everything if name.endswith("_56_35")}
    )
    assert kept("--exclude-within", "0") == everything


def test_exclude_within_leaves_out_the_same_acquisition(ask: Asking) -> None:
    two = ["S2A_MSIL2A_20170617T113321_4_55", "S2A_MSIL2A_20170617T113321_36_85"]
    assert two[1] in ask.names("--patch", two[0])
    assert two[1] not in ask.names("--patch", two[0], "--exclude-within", 1)


def test_files(ask: Asking, index: Index) -> None:
    folder = ask.folder
    found = ask("--patch", NAME, "--csv", folder / "a.csv", "--geojson", folder / "new" / "a.geojson")
    with (folder / "a.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name_s2"] for row in rows] == [hit["name_s2"] for hit in found["hits"]]
    assert rows[0]["labels"].split("; ") == found["hits"][0]["labels"]
    points = json.loads((folder / "new" / "a.geojson").read_text())
    assert points["type"] == "FeatureCollection"
    for feature, hit in zip(points["features"], found["hits"], strict=True):
        assert feature["geometry"] == {"type": "Point", "coordinates": [hit["longitude"], hit["latitude"]]}
        assert feature["properties"]["name_s1"] == hit["name_s1"]
    assert found["size"] == 6
    assert found["kept"] == 5


class Page(HTMLParser):
    """What a page asks for: sources of images, links, scripts."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]


def test_page_needs_nothing_else(ask: Asking) -> None:
    path = ask.folder / "page.html"
    ask("--patch", NAME, "--html", path)
    content = html.unescape(path.read_text())
    page = Page(path.read_text())
    assert len(page.sources) == 12
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "script" not in page.tags
    assert "default-src 'none'" in content
    assert "http" not in re.sub(r"data:[^\"]+|http-equiv", "", content)
    assert content.count("shared: ") == sum(len(hit["shared"]) for hit in ask("--patch", NAME)["hits"])


def test_found_patches_as_geotiffs_are_the_originals(
    ask: Asking, real_pairs: RealPairs, true_patches: dict[str, Patch]
) -> None:
    folder = ask.folder / "patches"
    found = ask("--patch", NAME, "--tiffs", folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        hit[f"name_{sensor}"] for hit in found["hits"] for sensor in ("s1", "s2")
    )
    for hit in found["hits"]:
        for name, root in ((hit["name_s2"], real_pairs.s2_root), (hit["name_s1"], real_pairs.s1_root)):
            files = sorted((folder / name).iterdir())
            assert len(files) == len(true_patches[name].bands)
            for path in files:
                with rasterio.open(path) as ours, rasterio.open(root / name / path.name) as theirs:
                    assert ours.crs == theirs.crs
                    assert ours.transform == theirs.transform
                    assert ours.dtypes == theirs.dtypes
                    assert np.array_equal(ours.read(1), theirs.read(1))
    again = next(hit["name_s2"] for hit in found["hits"])
    assert ask.names("--s2", folder / again) == ask.names("--patch", again, "--sensor", "s2")


def write_stack(
    path: Path, bands: dict[str, np.ndarray], metres: float, crs: str | None = "EPSG:32633", **options
) -> Path:
    size = next(iter(bands.values())).shape
    options = {"dtype": next(iter(bands.values())).dtype, **options}
    if crs:
        options |= {"crs": crs, "transform": from_origin(404400, 5342400, metres, metres)}
    with rasterio.open(path, "w", driver="GTiff", width=size[1], height=size[0], count=len(bands), **options) as target:
        for number, (name, pixels) in enumerate(bands.items(), 1):
            target.write(pixels, number)
            target.set_band_description(number, name)
    return path


def ten_metres(patch: Patch) -> dict[str, np.ndarray]:
    """The bands of the encoders at 10 m, each pixel of 20 m four times, so that averaging gives it back."""
    bands = {band: np.asarray(patch.bands[band]) for band in MODEL_S2_BANDS}
    return {band: np.kron(pixels, np.ones((120 // len(pixels),) * 2, pixels.dtype)) for band, pixels in bands.items()}


def test_a_stack_of_named_bands_is_the_same_patch(ask: Asking, true_patches: dict[str, Patch]) -> None:
    path = write_stack(ask.folder / "stack.tif", ten_metres(true_patches[NAME]), 10)
    found = read_stack(path, "s2")
    assert found.changes == ()
    for band in MODEL_S2_BANDS:
        assert np.array_equal(found.bands[band], true_patches[NAME].bands[band])
    hits = ask("--s2", path)["hits"]
    assert (hits[0]["name_s2"], round(hits[0]["distance"], 5)) != ("", None)
    assert len(hits) == 6  # the stack is nobody's folder: its own patch may be found


def test_stacks_are_resampled_and_cut_with_a_warning(
    ask: Asking, true_patches: dict[str, Patch], caplog: pytest.LogCaptureFixture
) -> None:
    bands = ten_metres(true_patches[NAME])
    larger = {band: np.pad(pixels, ((10, 10), (40, 40)), "reflect") for band, pixels in bands.items()}
    path = write_stack(ask.folder / "larger.tif", larger, 10)
    found = read_stack(path, "s2")
    assert found.changes == ("cut from 200 x 140 to 120 x 120 pixels around its middle",)
    for band in MODEL_S2_BANDS:
        assert np.array_equal(found.bands[band], true_patches[NAME].bands[band])
    ask("--s2", path)
    assert "cut from 200 x 140 to 120 x 120" in caplog.text
    coarse = {band: pixels[::2, ::2] for band, pixels in bands.items()}
    coarse = read_stack(write_stack(ask.folder / "coarse.tif", coarse, 20), "s2")
    assert coarse.changes == ("resampled from 20 x 20 m to 10 m",)
    assert np.array_equal(coarse.bands["B05"], true_patches[NAME].bands["B05"])
    small = {band: pixels[:100, :90] for band, pixels in bands.items()}
    small = read_stack(write_stack(ask.folder / "small.tif", small, 10), "s2")
    assert small.changes == ("padded from 90 x 100 to 120 x 120 pixels around its middle",)
    assert np.array_equal(small.bands["B02"][10:110, 15:105], bands["B02"][:100, :90])
    bare = read_stack(write_stack(ask.folder / "bare.tif", bands, 10, crs=None), "s2")
    assert bare.changes == ("taken to have pixels of 10 m: it says no coordinate system",)


def test_a_stack_of_both_sensors(ask: Asking, true_patches: dict[str, Patch]) -> None:
    both = {name: pixels.astype(np.float32) for name, pixels in ten_metres(true_patches[NAME]).items()}
    both |= {band: np.asarray(pixels) for band, pixels in true_patches[S1_NAME].bands.items()}
    path = write_stack(ask.folder / "both.tif", both, 10)
    assert ask("--s1", path, "--s2", path)["query"] == "fused"
    assert np.array_equal(read_stack(path, "s1").bands["VV"], true_patches[S1_NAME].bands["VV"])


@pytest.mark.parametrize(
    ("description", "band"),
    [("B02", "B02"), ("b2", "B02"), ("B8A", "B8A"), ("sentinel-2 b08 nir", "B08"), ("VV", "VV"), ("vh_db", "VH"),
     ("B13", None), ("AB02", None), ("", None), (None, None), ("B1A", None)],
)  # fmt: skip
def test_names_of_bands(description: str | None, band: str | None) -> None:
    assert band_of(description) == band


def test_patches_that_no_encoder_can_take_are_one_line(
    ask: Asking, real_pairs: RealPairs, true_patches: dict[str, Patch]
) -> None:
    folder, bands = ask.folder, ten_metres(true_patches[NAME])
    assert "not found at" in ask.mistake("--filepath", folder / "none", "--patch", NAME)
    assert "there is no such file" in ask.mistake("--s2", folder / "none.tif")
    assert "needs --s1, which is missing" in ask.mistake("--s2", real_pairs.s2_root / NAME, "--sensor", "fused")
    assert "give exactly one" in ask.mistake("--s2", real_pairs.s2_root / NAME, "--patch", NAME)
    assert "give exactly one" in ask.mistake()
    missing = shutil.copytree(real_pairs.s2_root / NAME, folder / NAME)
    (missing / f"{NAME}_B03.tif").unlink()
    assert "this band is missing" in ask.mistake("--s2", missing)
    few = {band: pixels for band, pixels in bands.items() if band != "B11"}
    assert "no band is described as B11" in ask.mistake("--s2", write_stack(folder / "few.tif", few, 10))
    floats = {band: pixels.astype(np.float32) for band, pixels in bands.items()}
    floats["B04"][3, 4] = np.nan
    assert "1 pixels of band B04 are NaN" in ask.mistake("--s2", write_stack(folder / "nan.tif", floats, 10))
    unit = {band: pixels.astype(np.float32) / 10_000 for band, pixels in bands.items()}
    assert "must be reflectance x 10 000" in ask.mistake("--s2", write_stack(folder / "unit.tif", unit, 10))
    degrees = write_stack(folder / "degrees.tif", bands, 1e-4, "EPSG:4326")
    assert "warp it to UTM" in ask.mistake("--s2", degrees)
    power = {band: 10 ** (np.asarray(pixels) / 10) for band, pixels in true_patches[S1_NAME].bands.items()}
    assert "must be in dB" in ask.mistake("--s1", write_stack(folder / "power.tif", power, 10))
    (folder / "text.tif").write_text("text")
    assert "not a readable GeoTIFF" in ask.mistake("--s2", folder / "text.tif")
    big = np.zeros((1, 5000), np.uint16)
    assert "cut it to 4096" in ask.mistake(
        "--s2", write_stack(folder / "big.tif", dict.fromkeys(MODEL_S2_BANDS, big), 10)
    )


def test_options_that_cannot_be_meant_are_one_line(ask: Asking) -> None:
    assert "similar names: " in ask.mistake("--patch", NAME[:-1])
    assert "--top is 0" in ask.mistake("--patch", NAME, "--top", "0")
    assert "give a date as YYYY-MM-DD" in ask.mistake("--patch", NAME, "--from", "June")
    assert "give west,south,east,north" in ask.mistake("--patch", NAME, "--box", "1,2,3")
    assert "is not a retrieval direction" in ask.mistake("--patch", NAME, "--sensor", "fused", "--in", "s1")
    assert "did you mean 'Pastures'" in ask.mistake("--patch", NAME, "--label", "Pasture")
    (ask.folder / "file").write_text("")
    assert "--csv" in ask.mistake("--patch", NAME, "--csv", ask.folder / "file" / "a.csv")


def test_encoder_takes_one_sensor_or_both(run: RunFolder, index: Index, true_patches: dict[str, Patch]) -> None:
    encoder = QueryEncoder(run.root)
    both = encoder.encode(true_patches[NAME].bands, true_patches[S1_NAME].bands)
    assert list(both) == ["s1", "s2", "fused"]
    for side, vector in both.items():
        assert np.allclose(vector, index.vectors(side)[index.position(NAME)], atol=1e-5)
    assert list(encoder.encode(true_patches[NAME].bands)) == ["s2"]
    assert list(encoder.encode(s1=true_patches[S1_NAME].bands)) == ["s1"]
    with pytest.raises(QueryError, match="no bands are given"):
        encoder.encode()
    with pytest.raises(QueryError, match="has no band VH"):
        encoder.encode(s1={"VV": true_patches[S1_NAME].bands["VV"]})


def test_patches_of_a_run_in_8_bits_are_embedded_in_float(
    run: RunFolder, tmp_path: Path, true_patches: dict[str, Patch]
) -> None:
    """Quantising the network takes longer than embedding a patch."""
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    shutil.copy(run.best, folder.best)
    text = "".join(
        line for line in run.parameters.read_text().splitlines(True) if not line.startswith(("precision", "extract_b"))
    )
    folder.parameters.write_text(text + "precision: int8\n")
    encoder = QueryEncoder(folder.root)
    assert encoder.identity["precision"] in ("torch.float32", "torch.bfloat16")
    assert list(encoder.encode(true_patches[NAME].bands)) == ["s2"]


def test_two_bands_of_one_name_are_refused(tmp_path: Path, true_patches: dict[str, Patch]) -> None:
    bands = {**ten_metres(true_patches[NAME]), "b2": true_patches[NAME].bands["B02"]}
    with pytest.raises(DataError, match="two bands are described as B02"):
        read_stack(write_stack(tmp_path / "twice.tif", bands, 10), "s2")


@pytest.mark.slow
def test_scripts_run_from_any_folder(run: RunFolder, tmp_path: Path) -> None:
    """The commands as a user types them, away from the repository; a query by name loads no torch."""
    index = [sys.executable, str(ROOT / "project" / "index.py"), "--filepath", str(run.root)]
    done = subprocess.run(index, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"index: {run.index}"
    words = ["--filepath", str(run.parameters), "--patch", NAME, "--top", "2", "--csv", "found.csv"]
    script = [sys.executable, "-X", "importtime", str(ROOT / "project" / "query.py"), *words]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "written: found.csv" in done.stdout
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 3
    assert "import time" in done.stderr
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)
