"""What retrieval computes anew and what it reuses: every input that decides a figure counts."""

import shutil
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.conftest import Archive, write_parquet

from bigearthnet_cbir.config import Config, parse_config
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.pipelines import extract
from bigearthnet_cbir.pipelines import retrieve as retrieve_stage
from bigearthnet_cbir.pipelines.retrieve import retrieve
from bigearthnet_cbir.storage.partial import PartialSearch
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import Neighbours

DIRECTION = "s2_s2/retrieval_result"


class World:
    """The six real pairs as a version 2 archive with its table, and one run without a network on them."""

    def __init__(self, folder: Path, archive: Archive) -> None:
        self.store, self.table = folder / "patches.lmdb", folder / "metadata.parquet"
        shutil.copytree(archive.s2, self.store)
        rows = pq.read_table(archive.parquet).to_pylist()
        self.rows = [(row["patch_id"], row["s1_name"], row["labels"]) for row in rows]
        self.write_labels([labels for _, _, labels in self.rows])
        self.config: Config = parse_config(
            {
                "train_csv": f"{self.table}:train", "val_csv": f"{self.table}:test", "test_csv": f"{self.table}:train",
                "bigEarthPthLMDB_S2": str(self.store), "bigEarthPthLMDB_S1": str(self.store), "num_workers": 0,
                "num_cpu": 0, "device": "cpu", "name": "g", "logging_params": {"save_dir": str(folder), "name": "run"},
            }
        )  # fmt: skip
        self.run = RunFolder(self.config.run_folder)
        self.folder = self.run.baseline("band_statistics")

    def write_labels(self, labels: list[list[str]]) -> None:
        splits = ("train",) * 4 + ("test",) * 2
        rows = zip(self.rows, labels, splits, strict=True)
        write_parquet(self.table, [(s2, s1, names, split) for (s2, s1, _), names, split in rows])

    def retrieve(self, *, recompute: bool = False) -> tuple[int, int, int]:
        """Run retrieval and return when its three files were written."""
        retrieve(self.config, self.run, baseline="band_statistics", recompute=recompute)
        files = (self.folder.query, self.folder.archive, self.folder.retrieval)
        return tuple(file.stat().st_mtime_ns for file in files)  # type: ignore[return-value]


@pytest.fixture
def world(tmp_path: Path, archives: dict[str, Archive]) -> World:
    return World(tmp_path, archives["rico"])


def read(path: Path, name: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file[name][:]


def test_nothing_changed_is_reused(world: World) -> None:
    assert world.retrieve() == world.retrieve()


def test_records_swapped_in_the_archive_are_noticed(world: World) -> None:
    world.retrieve()
    before = read(world.folder.archive, "feature_s2")
    with PatchStore(world.store):
        pass  # close this process's reader
    (one, _, _), (other, _, _) = world.rows[:2]
    environment = lmdb.open(str(world.store), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        first, second = (bytes(transaction.get(name.encode())) for name in (one, other))
        transaction.put(one.encode(), second)
        transaction.put(other.encode(), first)
    environment.close()
    world.retrieve()
    after = read(world.folder.archive, "feature_s2")
    assert np.array_equal(after[:2], before[1::-1])
    assert not np.array_equal(after, before)


def test_labels_rewritten_in_the_table_are_noticed(world: World) -> None:
    world.retrieve()
    before = read(world.folder.archive, "label")
    changed = [labels for _, _, labels in world.rows]
    changed[0] = ["Marine waters"] if list(changed[0]) != ["Marine waters"] else ["Pastures"]
    world.write_labels(changed)
    world.retrieve()
    after = read(world.folder.archive, "label")
    assert not np.array_equal(after[0], before[0])
    assert np.array_equal(after[1:], before[1:])


def test_another_class_order_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.retrieve()
    for stage in (extract, retrieve_stage):
        monkeypatch.setattr(stage, "CLASSES", tuple(sorted(CLASSES)))
    again = world.retrieve()
    assert all(new != old for new, old in zip(again, first, strict=True))


def test_features_changed_by_hand_are_computed_anew(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.retrieve()
    before = read(world.folder.archive, "feature")
    with h5py.File(world.folder.archive, "r+") as file:
        file["feature"][0] = 0
    world.retrieve()
    assert "is not what was written" in caplog.text
    assert np.array_equal(read(world.folder.archive, "feature"), before)


def test_results_of_other_features_are_not_reused(world: World) -> None:
    world.retrieve()
    true = read(world.folder.retrieval, DIRECTION)
    with h5py.File(world.folder.retrieval, "r+") as file:
        file.attrs["fingerprint"] = "of other features"
        file[DIRECTION][:] = 0
    world.retrieve()
    assert np.array_equal(read(world.folder.retrieval, DIRECTION), true)


@pytest.mark.parametrize("recompute", [False, True])
def test_recompute_drops_the_rows_of_an_interrupted_search(world: World, recompute: bool) -> None:
    world.retrieve()
    with h5py.File(world.folder.retrieval) as file:
        fingerprint, true = str(file.attrs["fingerprint"]), file[DIRECTION][:]
        distances = file["s2_s2/distance"][:]
    world.folder.retrieval.unlink()
    partial = PartialSearch(world.folder.retrieval)
    queries, k = true.shape
    partial.open(fingerprint, queries, k, 4)
    stale = Neighbours(true[:, ::-1], distances)
    partial.store("s2_s2", 0, Neighbours(stale.indices[:1], stale.distances[:1]))
    world.retrieve(recompute=recompute)
    found = read(world.folder.retrieval, DIRECTION)
    expected = true if recompute else np.concatenate([stale.indices[:1], true[1:]])
    assert np.array_equal(found, expected)
    assert not partial.folder.exists()
