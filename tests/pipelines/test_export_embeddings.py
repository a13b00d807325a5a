"""Embeddings out: what the files hold, that others open them, and that evaluate reads them back to equal figures."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Archive
from tests.pipelines.test_evaluate_files import Run, assert_equal_figures
from tests.pipelines.test_foreign_encoder import EXAMPLE
from tests.query.conftest import make_run

import bigearthnet_cbir as cbir
from bigearthnet_cbir.cli.export_embeddings import main
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.errors import CbirError
from bigearthnet_cbir.pipelines import export_embeddings as module
from bigearthnet_cbir.pipelines.hashing import train_hash_heads
from bigearthnet_cbir.query.missing_modality import vectors_of
from bigearthnet_cbir.search.binarizers import Binarizer
from bigearthnet_cbir.storage.code_arrays import read_code_arrays
from bigearthnet_cbir.storage.features import DATASETS
from bigearthnet_cbir.training.hashing import HashSettings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, archives: dict[str, Archive]) -> Run:
    return Run(tmp_path_factory.mktemp("own"), archives["rico"])


@pytest.fixture(scope="module")
def exported(own: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    assert main(["--filepath", str(own.results.parent), "--output", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {
        "query.parquet", "query.npz", "archive.parquet", "archive.npz",
    }  # fmt: skip
    return folder


@pytest.mark.parametrize("end", ["parquet", "npz"])
@pytest.mark.parametrize("distance", ["cosine", "hamming"])
def test_read_back_they_give_the_same_figures(
    own: Run, exported: Path, tmp_path: Path, end: str, distance: str
) -> None:
    files = exported / f"query.{end}", exported / f"archive.{end}"
    written = cbir.evaluate_files(*files, output=tmp_path / "run", distance=distance)
    expected = own.results
    if distance == "hamming":
        expected = cbir.evaluate_files(own.query, own.found, output=tmp_path / "own", distance=distance)
    assert_equal_figures(written, expected)
    assert len(cbir.read_results(written).directions) == 7


def test_columns_and_metadata_of_the_parquet_file(own: Run, exported: Path) -> None:
    table = pq.read_table(exported / "archive.parquet")
    with h5py.File(own.found) as file:
        for name in ("feature", "feature_s1", "feature_s2"):
            kind = table.schema.field(name).type
            assert kind == pa.list_(pa.float32(), file[name].shape[1])
            found = np.array(table.column(name).to_pylist(), np.float32)
            np.testing.assert_array_equal(found, file[name][:])
            medians = np.median(file[name][:], axis=0)
            code = f"code{name.removeprefix('feature')}"
            bits = np.unpackbits(np.array(table.column(code).to_pylist(), np.uint8), axis=1)
            np.testing.assert_array_equal(bits[:, : found.shape[1]], found > medians)
        assert table.column("name_s2").to_pylist() == file["patch_name"].asstr()[:, 1].tolist()
        labels = [[CLASSES[c] for c in np.flatnonzero(row)] for row in file["label"][:]]
    assert table.column("labels").to_pylist() == labels
    assert set(table.column("split").to_pylist()) == {"test"}
    first = table.column("name_s2")[0].as_py()
    assert str(table.column("date_s2")[0].as_py()).replace("-", "") in first
    told = json.loads(table.schema.metadata[b"bigearthnet_cbir"])
    assert told["inputs"]["s1"] == ["VV", "VH"]
    assert told["normalisation"]["B02"] == [429.9430203, 572.41639287]
    assert told["distance"] == "cosine"
    assert told["fusion"] == "concat"
    assert "seed 42" in told["checkpoint_sha256"]


@pytest.mark.parametrize(("code", "bits"), [("rotation", 24), ("itq", 16), ("mean", None), ("learned", 16)])
def test_codes_are_those_of_retrieval(
    tmp_path: Path, archives: dict[str, Archive], code: str, bits: int | None
) -> None:
    """Of codes.h5, and of the figures: evaluate fits the same codes on the exported vectors."""
    settings = {"distance": "hamming", "code": code, **({} if bits is None else {"code_bits": bits})}
    run = make_run(tmp_path, archives["rico"], num_cpu=0, **settings)
    if code == "learned":
        train_hash_heads(load_config(run.parameters), settings=HashSettings(epochs=1))
    measured = cbir.retrieve(run.parameters)
    kept = run.codes.read_bytes()
    files = cbir.export_embeddings(run.root)
    assert run.codes.read_bytes() == kept
    made = {kind: Binarizer.from_arrays(arrays) for kind, arrays in read_code_arrays(run.codes).items()}
    for path in (run.query, run.archive):
        with h5py.File(path) as file, np.load(run.root / "embeddings" / f"{path.stem}.npz") as exported:
            for side, name in DATASETS.items():
                vectors = vectors_of(side, file, "concat", made[side].method)
                found = exported[name.replace("feature", "code")]
                np.testing.assert_array_equal(found, made[side].codes(vectors))
                assert found.shape[1] == -(-(bits or file[name].shape[1]) // 8)
            assert str(exported["codes"]).startswith(f"{code}, ")
    if code == "learned":
        return  # heads belong to the encoder of the run
    queries, archive = (path for path in files if path.suffix == ".npz")
    written = cbir.evaluate_files(queries, archive, output=tmp_path / "again", top_k=2, **settings)
    assert_equal_figures(written, measured)


def test_points_are_where_the_patches_are(exported: Path) -> None:
    """By hand from the WKB: byte order, kind 1, x, y; 33UUP is in Austria, 29UPU in Ireland."""
    table = pq.read_table(exported / "archive.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["geometry_types"] == ["Point"]
    known = {
        "33UUP": (11, 16, 47, 50),
        "29UPU": (-9, -6, 51, 54),
        "35VPK": (26, 32, 59, 64),
        "29SND": (-10, -7, 36, 40),
    }
    for name, point in zip(table.column("name_s1").to_pylist(), table.column("geometry").to_pylist(), strict=True):
        west, east, south, north = known[name.split("_")[5]]
        assert point[:5] == b"\x01\x01\x00\x00\x00"
        x, y = np.frombuffer(point[5:], "<f8")
        assert west < x < east
        assert south < y < north


def test_row_groups_have_a_fixed_size(own: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.GROUP_ROWS == 65536
    monkeypatch.setattr(module, "GROUP_ROWS", 3)
    cbir.export_embeddings(own.results.parent, tmp_path)
    metadata = pq.read_metadata(tmp_path / "archive.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [3, 1]


def test_a_run_of_one_sensor_and_of_vectors_from_outside(exported: Path, tmp_path: Path) -> None:
    with np.load(exported / "archive.npz") as file:
        kept = {name: file[name] for name in ("name_s2", "feature_s2", "label", "class_names")}
    np.savez(tmp_path / "a.npz", **kept)
    written = cbir.evaluate_files(tmp_path / "a.npz", tmp_path / "a.npz", name="theirs", output=tmp_path / "run")
    files = cbir.export_embeddings(written.parent)
    table = pq.read_table(files[0])
    assert {"feature_s2", "code_s2"} <= set(table.column_names)
    assert not {"feature", "feature_s1"} & set(table.column_names)
    told = json.loads(table.schema.metadata[b"bigearthnet_cbir"])
    assert told["model"] == "theirs"
    assert told["vectors"] == "made outside this project"
    assert "normalisation" not in told


@pytest.mark.skipif(importlib.util.find_spec("geopandas") is None, reason="GeoPandas is not installed")
def test_geopandas_opens_it(exported: Path) -> None:
    import geopandas

    frame = geopandas.read_parquet(exported / "archive.parquet")
    assert len(frame) == 4
    assert frame.crs.to_epsg() == 4326 or frame.crs.to_authority() == ("OGC", "CRS84")


def test_a_folder_without_features_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CbirError, match="no features; run project"):
        cbir.export_embeddings(tmp_path)


def test_the_script_runs_from_another_folder(own: Run, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "project/export_embeddings.py"), "--filepath", str(own.results.parent)]
    done = subprocess.run([*command, "--output", str(tmp_path / "out")], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("exported: ") == 4


def test_real_v2_samples_through_an_encoder_out_and_back_in(samples: Path, tmp_path: Path) -> None:
    """18 pairs of version 2: another project's encoder that sees B01, its vectors exported, measured by protocol."""
    v2 = samples / "bigearthnet-v2"
    table, store = v2 / "metadata.parquet", v2 / "BigEarthNet-V2-LMDB"
    code = EXAMPLE.replace('"B02", "B08")', '"B02", "B01")')
    (tmp_path / "my_encoder.py").write_text(code)
    config = {
        **{f"{split}_csv": f"{table}:{split}" for split in ("train", "val", "test")},
        "bigEarthPthLMDB_S2": str(store), "bigEarthPthLMDB_S1": str(store), "num_workers": 0, "device": "cpu",
        "precision": "fp32", "encoder": "my_encoder:build", "encoder_path": str(tmp_path), "name": "v2",
        "logging_params": {"save_dir": str(tmp_path), "name": "run"},
    }  # fmt: skip
    measured = cbir.retrieve(config)
    files = cbir.export_embeddings(measured.parent)
    for end in ("parquet", "npz"):
        query, archive = (path for path in files if path.suffix == f".{end}")
        written = cbir.evaluate_files(
            query, archive, protocol="csmae", splits=table, labels=table, output=tmp_path / end, name="theirs"
        )
        assert_equal_figures(written, measured)
    told = json.loads(pq.read_schema(files[0]).metadata[b"bigearthnet_cbir"])
    assert told["encoder"]["bands"]["s2"] == ["B04", "B03", "B02", "B01"]
    assert pq.read_table(files[0]).column("split").to_pylist() == ["val"] * 6
