"""The index of a run: what it holds, that it resumes, what it reuses, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Archive, RealPairs
from tests.query.conftest import make_run

from bigearthnet_cbir.cli import index as command
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.errors import LockedError, MissingIndexError, QueryError, ResultsError
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines import extract
from bigearthnet_cbir.pipelines import index as index_stage
from bigearthnet_cbir.pipelines.index import build_index
from bigearthnet_cbir.pipelines.index_state import open_current_index
from bigearthnet_cbir.pipelines.retrieve import retrieve
from bigearthnet_cbir.query import index_writing
from bigearthnet_cbir.query.find import find, query_vector
from bigearthnet_cbir.query.index import SIDES, Index, open_index
from bigearthnet_cbir.query.index_writing import IndexWriter
from bigearthnet_cbir.search.binary_codes import binarize, pack
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow


def test_holds_every_pair_once(index: Index, real_pairs: RealPairs) -> None:
    assert len(index) == 6
    assert {index.pair(position) for position in range(6)} == set(real_pairs.pairs)
    for position, pair in enumerate(map(index.pair, range(6))):
        assert index.position(pair.s1) == index.position(pair.s2) == position
    assert index.vectors("fused").shape == (6, 16)
    assert index.vectors("s1").shape == index.vectors("s2").shape == (6, 8)
    assert sorted(index.catalogue.split) == ["test", "test", "train", "train", "train", "val"]
    assert set(index.catalogue.country) == {"Austria"}
    for side in SIDES:
        rows = np.asarray(index.vectors(side))
        assert np.array_equal(index.thresholds(side), np.median(rows, axis=0).astype(np.float32))
        assert np.array_equal(index.codes(side), pack(binarize(rows, np.asarray(index.thresholds(side)))))


def test_finds_the_nearest(index: Index) -> None:
    vectors = np.asarray(index.vectors("fused"), np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for position in range(6):
        found = find(index, query_vector(index, position, "fused", "fused"), k=5, asked=position)
        others = [other for other in range(6) if other != position]
        expected = sorted(others, key=lambda other: (1 - units[position] @ units[other], other))
        assert found.indices.tolist() == expected
        assert np.allclose(found.distances, [1 - units[position] @ units[other] for other in expected], atol=1e-6)


def test_names_are_completed_and_the_nearest_told(index: Index) -> None:
    name = index.names_s2[0]
    with pytest.raises(QueryError, match=f"not in the index; similar names: {name}"):
        index.position(name[:-1] + "x")
    with pytest.raises(QueryError, match="give the name of a Sentinel-1 or Sentinel-2 patch"):
        index.position("nothing")
    known = sorted([*index.names_s1, *index.names_s2])
    assert index.names.complete("S2A") == [one for one in known if one.startswith("S2A")]
    assert index.names.complete("", 3) == known[:3]
    assert index.names.complete("S3") == []


def test_no_index_and_a_broken_one_are_one_line(tmp_path: Path, run: RunFolder) -> None:
    with pytest.raises(MissingIndexError, match=r"create it with project/index\.py"):
        open_index(tmp_path)
    copy = shutil.copytree(run.index, tmp_path / "index")
    (copy / "codes_s1.npy").write_bytes((copy / "codes_s1.npy").read_bytes()[:-3])
    with pytest.raises(QueryError, match=r"codes_s1\.npy: missing or damaged"):
        open_index(tmp_path).codes("s1")
    np.save(copy / "labels.npy", np.zeros((5, 19), np.uint8))
    with pytest.raises(QueryError, match=r"labels\.npy: is \(5, 19\) uint8, expected \(6, 19\) uint8"):
        _ = open_index(tmp_path).labels
    (copy / "catalogue.parquet").write_text("")
    with pytest.raises(QueryError, match=r"run project/index\.py again"):
        _ = open_index(tmp_path).catalogue
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(QueryError, match="the index has format 99"):
        open_index(tmp_path)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(QueryError, match="damaged"):
        open_index(tmp_path)


def test_the_same_index_is_kept_and_another_is_made_anew(
    run: RunFolder, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    before = (run.index / "manifest.json").stat().st_mtime_ns
    assert command.main(["--filepath", str(run.root)]) == 0
    assert f"index: {run.index}" in capsys.readouterr().out
    assert (run.index / "manifest.json").stat().st_mtime_ns == before
    assert "is up to date" in caplog.text
    assert command.main(["--filepath", str(run.parameters), "--splits", "prod"]) == 2
    assert "choose from train, val, test, or all" in capsys.readouterr().err


def test_splits_and_the_whole_archive(tmp_path: Path, archives: dict[str, Archive]) -> None:
    archive = archives["rico"]
    table = archive.parquet
    run = make_run(tmp_path, archive, val_csv=f"{table}:test", test_csv=f"{table}:test")
    build_index(run.root, splits=["val", "test"])
    assert list(open_index(run.root).catalogue.split) == ["val", "val"]  # the splits are equal: each pair is there once
    build_index(run.root, splits=["all"])
    found = open_index(run.root)
    assert sorted(found.catalogue.split) == ["train", "train", "train", "val", "val", "val"]
    assert found.manifest["splits"] == {"train": 3, "val": 2, "test": 0, "no split": 1}
    # The pair that no list has gets no labels: the archive's records have none.
    assert found.labels.sum(axis=1).tolist()[-1] == 0


def blocks_of_one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "EXTRACTION_BATCH", 1)
    monkeypatch.setattr(extract, "BLOCK_BATCHES", 1)


def test_interrupted_index_goes_on_and_is_the_same(
    tmp_path: Path, archives: dict[str, Archive], run: RunFolder, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    other = make_run(tmp_path, archives["rico"])
    build_index(other.root, splits=["test"])
    blocks_of_one_pair(monkeypatch)
    monkeypatch.setattr(index_writing, "RECORD_ROWS", 2)
    append, calls = IndexWriter.append, []

    def failing(self: IndexWriter, vectors: dict, labels: np.ndarray) -> None:
        calls.append(len(labels))
        if len(calls) == 6:
            raise OSError(28, "No space left on device")
        append(self, vectors, labels)

    monkeypatch.setattr(IndexWriter, "append", failing)
    with pytest.raises(OSError, match="No space left"):
        build_index(other.root)
    assert len(open_index(other.root)) == 2  # the index before is still there
    build_index(other.root)
    assert "after 4 pairs" in caplog.text
    assert len(calls) == 6 + 2
    one, two = open_index(other.root), open_index(run.root)
    for side in SIDES:
        assert np.allclose(one.vectors(side), two.vectors(side), atol=1e-5)
    assert np.array_equal(one.labels, two.labels)
    assert list(one.names_s2) == list(two.names_s2)
    assert not list(other.root.glob(".index*"))


def test_recompute_keeps_no_row_of_an_interrupted_index(
    tmp_path: Path, archives: dict[str, Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, archives["rico"])
    blocks_of_one_pair(monkeypatch)
    monkeypatch.setattr(index_writing, "RECORD_ROWS", 1)
    append, rows = IndexWriter.append, []

    def counted(self: IndexWriter, vectors: dict, labels: np.ndarray) -> None:
        if len(rows) == 3:
            raise KeyboardInterrupt
        rows.append(self.rows)
        append(self, vectors, labels)

    monkeypatch.setattr(IndexWriter, "append", counted)
    with pytest.raises(KeyboardInterrupt):
        build_index(run.root)
    rows.append(-1)  # from here on nothing interrupts
    build_index(run.root, recompute=True)
    assert rows == [0, 1, 2, -1, 0, 1, 2, 3, 4, 5]


def test_a_kill_between_the_last_two_steps_leaves_a_finished_index(
    tmp_path: Path, archives: dict[str, Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, archives["rico"])
    monkeypatch.setattr(IndexWriter, "_publish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_index(run.root)
    with pytest.raises(MissingIndexError):
        open_index(run.root)
    monkeypatch.setattr(index_stage, "_fill", None)  # nothing is left to compute
    assert len(open_index(build_index(run.root))) == 6


def test_what_retrieval_computed_is_reused(
    tmp_path: Path, archives: dict[str, Archive], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = make_run(tmp_path, archives["rico"], query_split="test", archive_split="train", protocol="custom")
    retrieve(load_config(run.parameters), run)
    build_index(run.root)
    assert f"{run.archive}: the embeddings of train are reused" in caplog.text
    assert f"{run.query}: the embeddings of test are reused" in caplog.text
    assert "the embeddings of val" not in caplog.text


def test_an_index_that_is_out_of_date_is_refused(tmp_path: Path, archives: dict[str, Archive]) -> None:
    archive = archives["rico"]
    here = Archive(
        *(shutil.copytree(archive.s2, tmp_path / "lmdb"),) * 2, shutil.copy(archive.parquet, tmp_path / "m.parquet")
    )
    run = make_run(tmp_path, here)
    build_index(run.root)
    assert len(open_current_index(run.root)) == 6
    text = run.parameters.read_text()
    run.parameters.write_text(text.replace("fusion: concat", "fusion: sum"))
    with pytest.raises(QueryError, match=r"built with fusion: concat, now sum; run project/index\.py again"):
        open_current_index(run.root)
    run.parameters.write_text(text)
    content = load_checkpoint(run.best)
    save_checkpoint(run.best, {**content, "epoch": 9})
    with pytest.raises(QueryError, match="was built with another checkpoint"):
        open_current_index(run.root)
    save_checkpoint(run.best, content)
    build_index(run.root)
    other = shutil.copy(archive.parquet, tmp_path / "kept.parquet")
    (tmp_path / "m.parquet").write_bytes(Path(other).read_bytes() + b" ")
    with pytest.raises(QueryError, match=r"m\.parquet has changed since"):
        open_current_index(run.root)
    shutil.copy(other, tmp_path / "m.parquet")
    (tmp_path / "lmdb" / "data.mdb").touch()
    with pytest.raises(QueryError, match="lmdb has changed since"):
        open_current_index(run.root)
    shutil.rmtree(tmp_path / "lmdb")  # as on another machine
    (tmp_path / "m.parquet").unlink()
    assert len(open_current_index(run.root)) == 6


def test_jsons_of_version_1_win_where_they_differ(
    tmp_path: Path, archives: dict[str, Archive], real_pairs: RealPairs
) -> None:
    root = shutil.copytree(real_pairs.s1_root, tmp_path / "S1")
    moved = real_pairs.pairs[0].s1
    path = root / moved / f"{moved}_labels_metadata.json"
    told = json.loads(path.read_text())
    told["coordinates"]["ulx"] += 1200
    path.write_text(json.dumps(told))
    run = make_run(tmp_path, archives["rico"])
    index = open_index(build_index(run.root, json_root=root))
    assert len(index.catalogue) == 6
    plain = open_index(build_index(run.root))
    with pytest.raises(QueryError, match="was rebuilt after it was opened; open it again"):
        index.vectors("s1")
    for position, pair in enumerate(map(index.pair, range(6))):
        shift = 1200 if pair.s1 == moved else 0
        assert index.catalogue.left[position] - plain.catalogue.left[position] == shift
        assert (index.catalogue.longitude[position] != plain.catalogue.longitude[position]) == bool(shift)


def test_only_one_writes_at_a_time_and_broken_vectors_are_refused(tmp_path: Path, run: RunFolder) -> None:
    with folder_lock(run.root, "index"):
        build_index(run.root)  # the same process may go in again
    writer = IndexWriter(tmp_path / "index", "x", 2)
    broken = {side: np.full((1, 4), np.inf, np.float32) for side in SIDES}
    with pytest.raises(ResultsError, match="the s1 embeddings of pairs 0 to 0 are not finite"):
        writer.append(broken, np.zeros((1, 19), np.uint8))
    assert issubclass(LockedError, Exception)


def test_every_kind_of_archive_can_be_indexed(
    tmp_path: Path, archives: dict[str, Archive], real_pairs: RealPairs, run: RunFolder
) -> None:
    lists = tmp_path / "all.csv"
    lists.write_text("\n".join(f"{pair.s2},{pair.s1}" for pair in real_pairs.pairs))
    wanted = open_index(run.root)
    for kind in ("encoder", "original"):
        splits = {f"{split}_csv": str(lists) for split in ("train", "val", "test")}
        # Beside the fixture's archives lies a table of version 2, which names countries too.
        copies = [
            shutil.copytree(place, tmp_path / kind / place.name, dirs_exist_ok=True) for place in archives[kind][:2]
        ]
        other = make_run(tmp_path / kind, Archive(*copies), **splits)
        found = open_index(build_index(other.root, splits=["all"]))
        assert len(found) == 6
        for position, pair in enumerate(map(found.pair, range(6))):
            there = wanted.position(pair.s2)
            assert np.allclose(found.vectors("fused")[position], wanted.vectors("fused")[there], atol=1e-4)
            assert np.array_equal(found.labels[position], wanted.labels[there])
        # The official lists of version 1 know these patches.
        assert set(found.catalogue.country) == {"Austria", "Finland", "Ireland", "Portugal"}
        assert set(found.catalogue.season) == {"Summer", "Fall", "Winter"}


def test_released_pages_are_read_again(index: Index) -> None:
    before = np.array(index.vectors("fused"))
    index.release_pages()
    assert np.array_equal(index.vectors("fused"), before)


KILLED = """
import os, signal, sys
from bigearthnet_cbir.pipelines import extract
from bigearthnet_cbir.pipelines import index as stage
from bigearthnet_cbir.query import index_writing
extract.EXTRACTION_BATCH = extract.BLOCK_BATCHES = index_writing.RECORD_ROWS = 1
append, calls = index_writing.IndexWriter.append, []
def killed(self, vectors, labels):
    calls.append(1)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, vectors, labels)
index_writing.IndexWriter.append = killed
stage.build_index(sys.argv[1])
"""


def test_a_killed_process_loses_no_finished_pair(
    tmp_path: Path, archives: dict[str, Archive], run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    other = make_run(tmp_path, archives["rico"])
    done = subprocess.run([sys.executable, "-c", KILLED, str(other.root)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(MissingIndexError):
        open_index(other.root)
    one, two = open_index(build_index(other.root)), open_index(run.root)
    assert "after 4 pairs" in caplog.text
    for side in SIDES:
        assert np.allclose(one.vectors(side), two.vectors(side), atol=1e-5)
