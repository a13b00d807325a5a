"""Embeddings from files: every kind of file gives the figures of the run that they are from; mistakes are one line."""

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Archive, write_parquet

import bigearthnet_cbir as cbir
from bigearthnet_cbir.cli.evaluate import main
from bigearthnet_cbir.cli.index import main as index_command
from bigearthnet_cbir.cli.retrieve import main as retrieve_command
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.official_splits import read_official_lists
from bigearthnet_cbir.data.pair_filter import BEN14K_ACQUISITIONS
from bigearthnet_cbir.errors import CbirError, ResultsError
from bigearthnet_cbir.pipelines import embedding_splits, index_sources
from bigearthnet_cbir.pipelines.index import build_index
from bigearthnet_cbir.pipelines.query import Question, ask
from bigearthnet_cbir.pipelines.query_encoder import QueryEncoder
from bigearthnet_cbir.pipelines.retrieve import retrieve
from bigearthnet_cbir.query.index import open_index

ROOT = Path(__file__).resolve().parents[2]
SPLITS = ("validation", "validation", "test", "test", "test", "test")


class Run:
    """Six real pairs: a run of an untrained network, and what its feature files hold."""

    def __init__(self, folder: Path, archive: Archive) -> None:
        self.archive = archive
        self.table = folder / "metadata.parquet"
        rows = pq.read_table(archive.parquet).to_pylist()
        write_parquet(
            self.table, [(r["patch_id"], r["s1_name"], r["labels"], s) for r, s in zip(rows, SPLITS, strict=True)]
        )
        config = {
            "train_csv": f"{self.table}:test", "val_csv": f"{self.table}:val", "test_csv": f"{self.table}:test",
            "bigEarthPthLMDB_S2": str(archive.s2), "bigEarthPthLMDB_S1": str(archive.s1), "backbone": "resnet10",
            "projection_dim": 8, "out_channels": 4, "num_workers": 0, "device": "cpu", "precision": "fp32",
            "name": "g", "logging_params": {"save_dir": str(folder), "name": "own"},
        }  # fmt: skip
        self.results = retrieve(config, baseline="untrained")
        self.query, self.found = (self.results.with_name(f"{side}.h5") for side in ("query", "archive"))
        self.files = {"query": self.query, "archive": self.found}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, archives: dict[str, Archive]) -> Run:
    return Run(tmp_path_factory.mktemp("own"), archives["rico"])


def columns_of(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        names = file["patch_name"].asstr()[:].astype(str)
        return {
            "name_s1": names[:, 0], "name_s2": names[:, 1], "fused": file["feature"][:], "s1": file["feature_s1"][:],
            "s2": file["feature_s2"][:], "label": file["label"][:], "class_names": np.array(CLASSES),
        }  # fmt: skip


def as_npz(path: Path, columns: dict[str, np.ndarray]) -> Path:
    np.savez(path.with_suffix(".npz"), **columns)
    return path.with_suffix(".npz")


def as_parquet(path: Path, columns: dict[str, np.ndarray]) -> Path:
    table = {name: list(columns[name]) for name in ("name_s1", "name_s2", "fused", "s1", "s2") if name in columns}
    if "label" in columns:
        table["labels"] = [[CLASSES[c] for c in np.flatnonzero(row)] for row in columns["label"]]
    pq.write_table(pa.table(table), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def figures(path: Path) -> dict[str, dict[str, np.ndarray]]:
    return {name: dict(found.curves) for name, found in cbir.read_results(path).directions.items()}


def assert_equal_figures(one: Path, other: Path) -> None:
    left, right = figures(one), figures(other)
    assert list(left) == list(right)
    for direction, curves in left.items():
        for name, values in curves.items():
            np.testing.assert_array_equal(values, right[direction][name], f"{direction} {name}")


def neighbours(path: Path, direction: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file[direction]["retrieval_result"][:]


@pytest.mark.parametrize("distance", ["cosine", "hamming"])
@pytest.mark.parametrize("kind", ["h5", "npz", "parquet"])
def test_every_kind_of_file_gives_the_figures_of_the_run(own: Run, tmp_path: Path, kind: str, distance: str) -> None:
    files = own.files
    if kind != "h5":
        write = as_npz if kind == "npz" else as_parquet
        files = {side: write(tmp_path / side, columns_of(path)) for side, path in files.items()}
    written = cbir.evaluate_files(
        files["query"], files["archive"], name="ours", output=tmp_path / "run", distance=distance
    )
    if distance == "cosine":
        assert_equal_figures(written, own.results)
    else:
        config = load_config(written.with_name("parameters.yaml"))
        assert config.distance == "hamming"
        assert list(figures(written)) == list(figures(own.results))


def test_the_folder_is_a_run_like_any_other(own: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Print, compare and report read it; it says where its vectors came from, and nothing can extract them anew."""
    from bigearthnet_cbir.cli.show import main as show

    run = tmp_path / "run"
    given = ["--queries", str(own.query), "--archive", str(own.found), "--name", "ours", "--output", str(run)]
    assert main([*given, "--labels", str(own.table)]) == 0
    shown = capsys.readouterr().out
    assert "model ours, vectors from files" in shown
    assert "S1 -> S2" in shown
    assert (run / "report.html").is_file()
    assert show(["--filepath", str(run / "parameters.yaml"), "--against", str(own.results)]) == 0
    attributes = cbir.read_results(run / "retrieval.h5").attributes
    assert attributes["vectors"] == "made outside this project"
    assert attributes["model"] == "ours"
    assert str(own.query) in attributes["query_files"]
    assert cbir.read_split(run / "val.csv") == cbir.read_split(f"{own.table}:val")
    with pytest.raises(ResultsError, match=r"project/evaluate\.py"):
        retrieve(run / "parameters.yaml")
    assert retrieve_command(["--filepath", str(run / "parameters.yaml")]) == 2
    assert "measure files by project/evaluate.py" in capsys.readouterr().err


def test_labels_of_an_archive_whose_patches_the_report_then_shows(
    own: Run, tmp_path: Path, archives: dict[str, Archive]
) -> None:
    bare = [as_npz(tmp_path / side, spoiled(columns_of(path), "no labels")) for side, path in own.files.items()]
    written = cbir.evaluate_files(*bare, labels=archives["encoder"].s2, output=tmp_path / "run")
    assert_equal_figures(written, own.results)
    page = cbir.report(written.parent).read_text()
    assert "data:image/jpeg" in page


def test_an_index_of_vectors_from_outside(own: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_sources, "is_installed", lambda: False)  # the official lists take seconds
    written = cbir.evaluate_files(own.query, own.found, labels=own.table, output=tmp_path / "run", name="ours")
    folder = build_index(written.parent)
    index = open_index(folder)
    assert index.size == 6
    assert set(index.catalogue.split) == {""}  # no protocol was given
    for path in (own.query, own.found):
        with h5py.File(path) as file:
            for name, vector in zip(file["patch_name"].asstr()[:, 0], file["feature"][:], strict=True):
                np.testing.assert_array_equal(index.vectors("fused")[index.position(name)], vector)
    answer = ask(index, Question(patch=index.names_s2[0]), written.parent)
    assert len(answer.hits) == 5
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert index_command(["--filepath", str(written.parent)]) == 0
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ResultsError, match="no network here can make more of them"):
        QueryEncoder(written.parent)


def test_what_was_measured_already_is_reused(own: Run, tmp_path: Path) -> None:
    times = []
    for _ in range(2):
        written = cbir.evaluate_files(own.query, own.found, output=tmp_path / "run")
        times.append([written.with_name(name).stat().st_mtime_ns for name in ("query.h5", "archive.h5", written.name)])
    assert times[0] == times[1]
    again = cbir.evaluate_files(own.query, own.found, output=tmp_path / "run", top_k=1)
    assert again.stat().st_mtime_ns != times[1][2]
    assert len(figures(again)["fused"]["precision"]) == 1


def test_further_keys_of_the_measurement(own: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--queries", str(own.query), "--archive", str(own.found), "--output", str(tmp_path / "run"), "--no-report"]
    assert main([*given, "--set", "top_k=2"]) == 0
    assert load_config(tmp_path / "run/parameters.yaml").top_k == 2
    capsys.readouterr()
    for key in ("encoder=a:b", "learning_rate=1", "protocol=csmae"):
        assert main([*given, "--set", key]) == 2
        assert "not a key of this evaluation" in capsys.readouterr().err
    assert main([*given, "--top-k", "0"]) == 2
    assert "top_k is 0; give a whole number >= 1" in capsys.readouterr().err


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_one_sensor_has_its_own_direction_only(own: Run, tmp_path: Path, sensor: str) -> None:
    """A .npy matrix with one name a line is of the sensor whose patches are named."""
    for side, path in (("q", own.query), ("a", own.found)):
        columns = columns_of(path)
        np.save(tmp_path / f"{side}.npy", columns[sensor].astype(np.float64))
        (tmp_path / f"{side}.csv").write_text("\n".join(columns[f"name_{sensor}"]))
    written = cbir.evaluate_files(
        tmp_path / "q.npy", tmp_path / "a.npy", labels=own.table, output=tmp_path / "run", name="one"
    )
    direction = f"{sensor}_{sensor}"
    assert list(figures(written)) == [direction]
    np.testing.assert_array_equal(neighbours(written, direction), neighbours(own.results, direction))
    with h5py.File(written.with_name("query.h5")) as file:
        assert set(file) == {f"feature_{sensor}", "label", "patch_name"}
        assert (
            file["patch_name"].asstr()[:].tolist()
            == np.stack([columns_of(own.query)[f"name_{s}"] for s in ("s1", "s2")], axis=1).tolist()
        )


def test_one_file_of_each_sensor_and_a_query_of_one_in_the_other(own: Run, tmp_path: Path) -> None:
    parts = {}
    for side, path in (("q", own.query), ("a", own.found)):
        columns = columns_of(path)
        for sensor in ("s1", "s2"):
            kept = {name: columns[name] for name in (f"name_{sensor}", sensor)}
            parts[side, sensor] = as_npz(tmp_path / f"{side}{sensor}", kept)
    both = [[parts[side, sensor] for sensor in ("s1", "s2")] for side in ("q", "a")]
    written = cbir.evaluate_files(*both, labels=own.table, output=tmp_path / "both")
    assert_equal_figures(written, own.results)
    across = cbir.evaluate_files(
        parts["q", "s1"], parts["a", "s2"], labels=own.table, output=tmp_path / "across", top_k=1000
    )
    assert list(figures(across)) == ["s1_s2"]
    np.testing.assert_array_equal(neighbours(across, "s1_s2"), neighbours(own.results, "s1_s2"))


def test_a_protocol_restricts_and_orders_the_rows_of_one_file(own: Run, tmp_path: Path) -> None:
    query, found = columns_of(own.query), columns_of(own.found)
    columns = {name: np.concatenate([query[name], found[name]])[::-1] for name in query if name != "class_names"}
    everything = as_npz(tmp_path / "all", {**columns, "class_names": np.array(CLASSES)})
    written = cbir.evaluate_files(
        everything, everything, protocol="csmae", splits=own.table, output=tmp_path / "run", name="all"
    )
    assert_equal_figures(written, own.results)
    attributes = cbir.read_results(written).attributes
    assert (attributes["protocol"], attributes["query_split"], attributes["archive_split"]) == ("csmae", "val", "test")
    assert attributes["rows_left_out"] == "4 of the queries' files, 2 of the archive's"


@pytest.mark.slow
def test_ben14k_takes_the_official_lists_of_its_acquisitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = read_official_lists()  # seconds, so it is read once
    monkeypatch.setattr(embedding_splits, "read_official_lists", lambda: official)
    wanted = [
        info for info in official
        if info.split in ("val", "test") and info.labels != () and info.s2.split("_")[2] in BEN14K_ACQUISITIONS
    ]  # fmt: skip
    assert len(wanted) == 3508 + 3563
    rng = np.random.default_rng(0)
    names = np.array([info.s2 for info in wanted])
    labels = np.zeros((len(names), 19), np.uint8)
    labels[np.arange(len(names)), rng.integers(0, 19, len(names))] = 1
    columns = {"name_s2": names, "s2": rng.normal(size=(len(names), 4)).astype(np.float32), "label": labels}
    order = rng.permutation(len(names))
    file = as_npz(tmp_path / "all", {k: v[order] for k, v in columns.items()} | {"class_names": np.array(CLASSES)})
    written = cbir.evaluate_files(file, file, protocol="ben14k", top_k=10, output=tmp_path / "run", name="random")
    attributes = cbir.read_results(written).attributes
    assert (attributes["queries"], attributes["archive_size"]) == (3508, 3563)
    assert attributes["lists"] == "official lists, ben14k"
    assert [pair.s2 for pair in cbir.read_split(written.with_name("val.csv"))] == [
        info.s2 for info in wanted if info.split == "val"
    ]
    few = as_npz(tmp_path / "few", {k: v[:100] for k, v in columns.items()} | {"class_names": np.array(CLASSES)})
    with pytest.raises(CbirError, match=r"3,4\d\d of the 3,508 patches in the list are missing"):
        cbir.evaluate_files(few, few, protocol="ben14k", output=tmp_path / "run2", name="random")


def spoiled(columns: dict[str, np.ndarray], how: str) -> dict[str, np.ndarray]:
    new = {name: values.copy() for name, values in columns.items()}
    if how == "nan":
        new["s2"][1, 3] = np.nan
    elif how == "duplicate":
        new["name_s2"][1] = new["name_s2"][0]
    elif how == "unknown name":
        new["name_s2"][1] = "tile_7.png"
    elif how == "another place":
        new["name_s2"] = np.array([name.replace("MSIL2A", "MSIL2B") for name in new["name_s2"]])
        del new["label"], new["class_names"]
    elif how == "width":
        new["s2"] = new["s2"][:, :5]
    elif how == "class order":
        order = np.argsort(CLASSES)
        new["class_names"], new["label"] = new["class_names"][order], new["label"][:, order]
    elif how == "no class names":
        del new["class_names"]
    elif how == "rows":
        new["s2"] = new["s2"][:-1]
    elif how == "no vectors":
        for name in ("s1", "s2", "fused"):
            del new[name]
    elif how == "no names":
        del new["name_s1"], new["name_s2"]
    elif how == "no labels":
        del new["label"], new["class_names"]
    elif how == "codes":
        new["s2"] = (new["s2"] > 0).astype(np.uint8)
    elif how == "objects":
        new["extra"] = np.array([{}, {}], dtype=object)
    elif how == "label values":
        new["label"][0, 0] = 7
    return new


MISTAKES = {
    "nan": "has NaN or infinity in 1 rows, first in row 1",
    "duplicate": "row 1: .* is also in row 0",
    "unknown name": "row 1: 'tile_7.png' is not the name of a Sentinel-2 patch",
    "another place": "has no labels for 2 of 2 patches",
    "width": "s2 vectors have dimension 5, but 8 in",
    "class order": "classes in another order: column 0 is 'Agro-forestry areas', expected 'Urban fabric'",
    "no class names": "add class_names",
    "rows": "has 1 rows, but the file has 2 patch names",
    "no vectors": "no column of vectors among",
    "no names": "has no patch names; add a column",
    "no labels": "has no labels; .* with --labels",
    "codes": "is uint8 of shape",
    "objects": "cannot be read as a .npz file without Python objects",
    "label values": "values other than 0 and 1",
}


@pytest.mark.parametrize("how", sorted(MISTAKES))
def test_a_mistake_is_one_line(own: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    query = as_npz(tmp_path / "q", spoiled(columns_of(own.query), how))
    options = ["--labels", str(own.table)] if how == "another place" else []
    given = ["--queries", str(query), "--archive", str(own.found), "--output", str(tmp_path / "run"), *options]
    assert main(given) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert re.search(MISTAKES[how], said), said
    assert not (tmp_path / "run" / "retrieval.h5").exists()


@pytest.mark.parametrize("names", ["same kind", "each its own"])
def test_two_files_in_another_order_are_refused(own: Run, tmp_path: Path, names: str) -> None:
    columns = columns_of(own.found)
    one = as_npz(tmp_path / "one", {"name_s1": columns["name_s1"], "s1": columns["s1"]})
    key = "name_s1" if names == "same kind" else "name_s2"
    other = as_npz(tmp_path / "other", {key: columns[key][::-1], "s2": columns["s2"][::-1]})
    with pytest.raises(CbirError, match=r"row 0: .* write both files in the same order"):
        cbir.evaluate_files([one, other], [one, other], labels=own.table, output=tmp_path / "run")


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    for end in ("h5", "npz", "npy", "parquet", "txt"):
        file = tmp_path / f"bad.{end}"
        file.write_bytes(b"no such thing")
        with pytest.raises(CbirError, match=r"bad\."):
            cbir.evaluate_files(file, file, output=tmp_path / "run")


def test_a_pickle_in_an_array_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(CbirError, match="without Python objects"):
        cbir.evaluate_files(tmp_path / "evil.npy", tmp_path / "evil.npy", output=tmp_path / "run")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_the_script_runs_from_another_folder(own: Run, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "project/evaluate.py"), "--queries", str(own.query), "--archive"]
    command += [str(own.found), "--output", str(tmp_path / "run"), "--no-report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "evaluated:" in done.stdout
