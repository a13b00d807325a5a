"""retrieval.h5 of made-up features: every statistic is there, and neighbours are left out exactly."""

import weakref
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tests.evaluation.helpers import random_labels
from tests.test_files import resident

from bigearthnet_cbir.config import Config, parse_config
from bigearthnet_cbir.directions import DIRECTIONS, SAME_FEATURES
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.metrics import retrieval_curves
from bigearthnet_cbir.evaluation.random_ranking import chance_curves
from bigearthnet_cbir.evaluation.spatial_exclusion import SpatialExclusion
from bigearthnet_cbir.models.fusion import FUSIONS, fuse
from bigearthnet_cbir.pipelines.evaluate import evaluate_direction
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.pipelines.retrieve import search_and_score
from bigearthnet_cbir.query.missing_modality import MissingModality
from bigearthnet_cbir.search import shards
from bigearthnet_cbir.search.shards import PreparedArchive, Shard, make_shard
from bigearthnet_cbir.storage.feature_stamps import stamped_digest
from bigearthnet_cbir.storage.features import read_labels, read_names, write_features
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import Neighbours, PatchPair

RADIUS = 2


def names(rows: int, seed: int) -> list[PatchPair]:
    generator = np.random.default_rng(seed)
    places = generator.permutation(400)[:rows]
    days = generator.integers(1, 29, rows)
    return [
        PatchPair(
            f"S2A_MSIL2A_201706{day:02}T101031_{place // 20}_{place % 20}",
            f"S1A_IW_GRDH_1SDV_201707{day:02}T165043_33UUP_{place // 20}_{place % 20}",
        )
        for place, day in zip(places, days, strict=True)
    ]


def write_run(folder: RunFolder, fusion: str = "concat") -> None:
    """Write query.h5 and archive.h5; five queries stand in the archive too."""
    pairs = names(90, 1)
    features = np.random.default_rng(2).normal(size=(2, 90, 6)).astype(np.float32)
    labels = random_labels(90, 3)
    for path, rows in ((folder.query, slice(0, 25)), (folder.archive, slice(20, 90))):
        with write_features(path, pairs[rows], (), {"checkpoint": "c", "fingerprint": "f"}) as writer:
            one, two = features[0, rows], features[1, rows]
            fused = fuse(torch.from_numpy(one), torch.from_numpy(two), fusion).numpy()
            writer.append({"feature": fused, "feature_s1": one, "feature_s2": two, "label": labels[rows]})


def config_of(folder: Path, **keys: object) -> Config:
    values = dict.fromkeys(("train_csv", "val_csv", "test_csv", "bigEarthPthLMDB_S2", "bigEarthPthLMDB_S1"), "x")
    return parse_config(
        {**values, "name": "group", "logging_params": {"name": "run", "save_dir": str(folder)}, "top_k": 30, **keys}
    )


def scored(folder: Path, directions: tuple[str, ...] = tuple(DIRECTIONS), **keys: object) -> RunFolder:
    config = config_of(folder, **keys)
    run = RunFolder(config.run_folder)
    write_run(run, config.fusion)
    source = FeatureExtractor({"checkpoint": "c"}, lambda _: {}, directions)
    search_and_score(config, run, source, "wanted")
    return run


def test_features_removed_during_a_search_keep_their_digest_in_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []

    def removing(*arguments: object, **options: object) -> object:
        query = RunFolder(config_of(tmp_path).run_folder).query
        if query.exists():
            digests.append(stamped_digest(query))
            query.unlink()
        return evaluate_direction(*arguments, **options)

    monkeypatch.setattr("bigearthnet_cbir.pipelines.retrieve.evaluate_direction", removing)
    run = scored(tmp_path, directions=("s1_s2",))
    assert digests[0] is not None
    with h5py.File(run.retrieval) as file:
        assert [file.attrs["query_content"]] == digests


@pytest.mark.parametrize("radius", [None, RADIUS])
def test_each_archive_is_prepared_once_for_all_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, radius: float | None
) -> None:
    prepared = []

    def counted(given: Any, *arguments: Any) -> Shard:
        prepared.append(given.name)
        return make_shard(given, *arguments)

    monkeypatch.setattr(shards, "make_shard", counted)
    scored(tmp_path, exclude_within=radius)
    assert sorted(prepared) == ["/feature", "/feature_s1", "/feature_s2"]


def test_an_archive_is_released_before_the_next_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[PreparedArchive]] = []
    prepare = PreparedArchive.__init__

    def watched(self: PreparedArchive, *arguments: Any) -> None:
        assert not [archive for archive in alive if archive() is not None]
        alive.append(weakref.ref(self))
        prepare(self, *arguments)

    monkeypatch.setattr(PreparedArchive, "__init__", watched)
    scored(tmp_path)
    assert len(alive) == 3


def test_layout_is_the_documented_one(tmp_path: Path) -> None:
    run = scored(tmp_path, distance="hamming", exclude_within=RADIUS)
    with h5py.File(run.retrieval) as file:
        assert (file.attrs["protocol"], file.attrs["convention"]) == ("csmae", "standard")
        assert set(DIRECTIONS) <= set(file)
        for direction in DIRECTIONS:
            group = file[direction]
            assert set(group["intervals"]) == {"P@10", "R@10", "F1@10", "F1@5", "mAP@10", "NDCG@10"}
            lower, upper = group["intervals/mAP@10"][:]
            assert lower < group["average_precision"][9] < upper
            assert group["per_class/F1@10"].shape == group["per_class/NDCG@10"].shape == (19, 3)
            assert group["per_class/confusion"].shape == (19, 19)
            assert group["per_class/queries"].dtype == np.int64
            kinds = len(group["per_label_count/labels"])
            assert group["per_label_count/mAP@10"].shape == (kinds, 3)
            assert group["tie_aware/average_precision"].shape == (30,)
            assert group["tie_aware"].attrs["largest_group"] >= group["tie_aware"].attrs["mean_group"] > 1
            assert group["exclude_within"].attrs["radius"] == RADIUS


def test_cosine_has_no_tie_aware_curves_and_neighbours_stay_unless_asked(tmp_path: Path) -> None:
    run = scored(tmp_path, SAME_FEATURES)
    with h5py.File(run.retrieval) as file:
        assert "s1_fused" not in file
        assert "tie_aware" not in file["fused"]
        assert "exclude_within" not in file["fused"]


@pytest.mark.parametrize("direction", ["fused", "s1_s2", "s2_fused"])
def test_figures_without_neighbours_equal_filtering_the_whole_ranking(tmp_path: Path, direction: str) -> None:
    run = scored(tmp_path, exclude_within=RADIUS, top_k=70, fusion="avg")
    queries, archive = read_names(run.query), read_names(run.archive)
    with h5py.File(run.query) as one, h5py.File(run.archive) as other:
        left, right = {
            "fused": ("feature", "feature"), "s1_s2": ("feature_s1", "feature_s2"),
            "s2_fused": ("feature_s2", "feature"),
        }[direction]  # fmt: skip
        vectors, rows = one[left][:].astype(float), other[right][:].astype(float)
    cosine = vectors @ rows.T / np.linalg.norm(vectors, axis=1)[:, None] / np.linalg.norm(rows, axis=1)
    near = SpatialExclusion(queries, archive, RADIUS)
    taken = near[:]
    filtered = [[p for p in np.argsort(-row) if p not in out] for row, out in zip(cosine, taken, strict=True)]
    depth = min(map(len, filtered))
    expected = retrieval_curves(
        read_labels(run.query), read_labels(run.archive), np.array([row[:depth] for row in filtered]), taken
    )
    with h5py.File(run.retrieval) as file:
        group = file[direction]["exclude_within"]
        for name, curve in expected.items():
            assert group[name][:] == pytest.approx(curve), name
        own = np.array([query.s2 in {pair.s2 for pair in archive} for query in queries])
        dropped = near.counts - own
        assert group.attrs["dropped_mean"] == pytest.approx(dropped.mean())
        assert group.attrs["dropped_queries"] == (dropped > 0).sum()
        assert group.attrs["queries_left_out"] == 0


def test_an_archive_that_is_all_neighbours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="exclude_within is 20: no query keeps 10"):
        scored(tmp_path, exclude_within=20)


def test_the_search_without_neighbours_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scored(tmp_path / "whole", ("fused", "s1_s2"), exclude_within=RADIUS)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("bigearthnet_cbir.pipelines.retrieve.write_results", stop)
        with pytest.raises(KeyboardInterrupt):
            scored(tmp_path / "stopped", ("fused", "s1_s2"), exclude_within=RADIUS)
    run = RunFolder(config_of(tmp_path / "stopped").run_folder)
    kept = sorted(path.stat().st_size for path in (run.root / ".retrieval.h5.rows").rglob("*.indices"))
    assert kept == [25 * 30 * 4] * 4
    # Rows that are kept are not searched again, so what they hold is what comes out.
    monkeypatch.setattr("bigearthnet_cbir.pipelines.direction_search.iter_search", lambda *_, **__: iter(()))
    again = scored(tmp_path / "stopped", ("fused", "s1_s2"), exclude_within=RADIUS)
    for name, other in read_results(again.retrieval).directions.items():
        first = read_results(whole.retrieval).directions[name]
        assert first.exclude_within is not None
        assert other.exclude_within is not None
        assert all(
            np.array_equal(curve, other.exclude_within.curves[key])
            for key, curve in first.exclude_within.curves.items()
        )
    assert not (run.root / ".retrieval.h5.rows").exists()


@pytest.mark.parametrize("how", FUSIONS)
def test_one_sensor_is_the_fusion_of_a_vector_with_itself(how: str) -> None:
    vectors = np.random.default_rng(4).normal(size=(9, 5)).astype(np.float32)
    expected = fuse(torch.from_numpy(vectors), torch.from_numpy(vectors), how).numpy()
    found = MissingModality(vectors, how)
    assert found.shape == expected.shape
    assert np.array_equal(found[2:7], expected[2:7])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
@pytest.mark.parametrize("ties", [False, True])
def test_memory_maps_of_lists_do_not_stay_in_memory(tmp_path: Path, ties: bool) -> None:
    """Seven directions of BigEarthNet have lists of 7 GB."""
    generator = np.random.default_rng(0)
    labels = random_labels(600, 0)
    truth = GroundTruth.of(labels[:500], labels)
    found = Neighbours(
        np.argsort(generator.random((500, 600)), axis=1).astype(np.int32),
        np.sort(generator.integers(0, 9, (500, 600)), axis=1).astype(np.float32),
    )
    paths = tmp_path / "indices", tmp_path / "distances"
    for path, values in zip(paths, found, strict=True):
        values.tofile(path)
    maps = Neighbours(
        *(np.memmap(path, dtype, "r", shape=(500, 600)) for path, dtype in zip(paths, ("i4", "f4"), strict=True))
    )
    chance = chance_curves(truth, 600)
    mapped = evaluate_direction(maps, truth, chance, ties=ties)
    assert [resident(path) for path in paths] == [0, 0]
    expected = evaluate_direction(found, truth, chance, ties=ties)
    for name, curve in expected.curves.items():
        assert np.array_equal(mapped.curves[name], curve)
