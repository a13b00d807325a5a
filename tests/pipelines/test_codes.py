"""Retrieval by codes of every kind: what it compares, records and keeps, and the list that reranking gives."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tests.pipelines.test_evaluate import RADIUS, config_of, scored, write_run
from tests.search.oracles import distance_matrix, slow_search

from bigearthnet_cbir.directions import DIRECTIONS, SAME_FEATURES
from bigearthnet_cbir.errors import CheckpointError, ConfigError, SearchError
from bigearthnet_cbir.evaluation.metrics import retrieval_curves
from bigearthnet_cbir.evaluation.spatial_exclusion import SpatialExclusion
from bigearthnet_cbir.models.hash_heads import HashHeads
from bigearthnet_cbir.pipelines import code_comparison
from bigearthnet_cbir.pipelines.codes import learned_binarizers, prepare_codes
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.pipelines.retrieve import search_and_score
from bigearthnet_cbir.search.binarizers import Binarizer
from bigearthnet_cbir.storage.code_arrays import read_code_arrays
from bigearthnet_cbir.storage.features import read_labels, read_names
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _short_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare codes of one length beside each search; tests/report/test_codes_section.py looks at them all."""
    monkeypatch.setattr(code_comparison, "LENGTHS", (16,))


SOURCE = FeatureExtractor({"checkpoint": "c"}, lambda _: {})


def written(run: RunFolder, direction: str) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(run.retrieval) as file:
        return file[direction]["retrieval_result"][:], file[direction]["distance"][:]


def side_vectors(run: RunFolder, direction: str) -> tuple[np.ndarray, np.ndarray]:
    """The vectors that a direction compares, for fusion concat."""
    datasets = {"s1": "feature_s1", "s2": "feature_s2", "fused": "feature"}
    asked, searched = DIRECTIONS[direction][1:]
    with h5py.File(run.query) as one, h5py.File(run.archive) as other:
        queries, archive = one[datasets[asked]][:], other[datasets[searched]][:]
    return (np.concatenate([queries, queries], axis=1) if searched == "fused" != asked else queries), archive


@pytest.mark.parametrize(
    ("code", "bits", "expected"), [("median", None, 6), ("mean", None, 6), ("rotation", 40, 40), ("itq", 16, 16)]
)
def test_every_direction_compares_codes_of_one_space(
    tmp_path: Path, code: str, bits: int | None, expected: int
) -> None:
    run = scored(tmp_path, distance="hamming", code=code, code_bits=bits)
    arrays = read_code_arrays(run.codes)
    assert set(arrays) == {"s1", "s2", "fused", "s1_as_fused", "s2_as_fused"}
    made = {kind: Binarizer.from_arrays(values) for kind, values in arrays.items()}
    for direction, (_, asked, searched) in DIRECTIONS.items():
        queries, archive = side_vectors(run, direction)
        kind = f"{asked}_as_fused" if searched == "fused" != asked else asked
        exclude = np.where(np.arange(25) >= 20, np.arange(25) - 20, -1)[:, None]
        found = slow_search(made[kind].codes(queries), made[searched].codes(archive), 30, "hamming", exclude)
        indices, distances = written(run, direction)
        assert np.array_equal(indices, found.indices), direction
        assert np.array_equal(distances, found.distances), direction
    attributes = read_results(run.retrieval).attributes
    assert (attributes["code"], attributes["code_bits"]) == (code, expected)
    assert attributes["constant_bits"] == ["s1 0", "s2 0", "fused 0"]
    assert "rerank" not in attributes


def test_codes_stay_when_other_queries_ask(tmp_path: Path) -> None:
    """The archive decides the codes: with half of the queries gone, the others get the same lists."""
    run = scored(tmp_path, distance="hamming", code="itq", code_bits=16)
    before, kept = written(run, "s1_s2"), run.codes.read_bytes()
    with h5py.File(run.query, "r+") as file:
        for name in ("feature", "feature_s1", "feature_s2", "label", "patch_name"):
            values = file[name][::2]
            del file[name]
            file[name] = values
    config = config_of(tmp_path, distance="hamming", code="itq", code_bits=16)
    search_and_score(config, run, SOURCE, "other")
    assert run.codes.read_bytes() == kept
    for full, half in zip(before, written(run, "s1_s2"), strict=True):
        assert np.array_equal(full[::2], half)


def test_codes_are_fitted_once_and_again_for_another_archive(tmp_path: Path) -> None:
    run = scored(tmp_path, distance="hamming", code="itq", code_bits=16)
    config = config_of(tmp_path, distance="hamming", code="itq", code_bits=16)
    first = run.codes.read_bytes()
    with h5py.File(run.archive) as archive:
        kept = prepare_codes(config, run, SOURCE, archive)
        assert run.codes.read_bytes() == first
        prepare_codes(replace(config, seed=7), run, SOURCE, archive)
        assert run.codes.read_bytes() != first
    assert kept.binarizers["s1"].bits == 16


def test_codes_read_again_are_described_as_those_that_were_fitted(tmp_path: Path) -> None:
    """A resumed search reads codes.h5, whose kinds are in another order than fitted ones."""
    run, config = (
        scored(tmp_path, distance="hamming", code="median"),
        config_of(tmp_path, distance="hamming", code="median"),
    )
    with h5py.File(run.archive) as archive:
        again = prepare_codes(config, run, SOURCE, archive)
        assert list(again.binarizers) != ["s1", "s2", "fused"]
        described = again.describe(archive)
    kept = read_results(run.retrieval).attributes
    assert {name: kept[name] for name in described} == described
    assert [text.split()[0] for text in described["constant_bits"]] == ["s1", "s2", "fused"]


@pytest.mark.parametrize("direction", list(DIRECTIONS))
def test_reranking_everything_is_the_exact_cosine_search(tmp_path: Path, direction: str) -> None:
    """For the five queries that stand in the archive; for others one candidate of 70 is missing."""
    exact = scored(tmp_path / "exact")
    run = scored(tmp_path / "two", distance="hamming", code="rotation", code_bits=8, rerank=1000)
    for one, other in zip(written(exact, direction), written(run, direction), strict=True):
        assert np.array_equal(one[20:], other[20:])
    result = read_results(run.retrieval).directions[direction]
    assert result.rerank.curves["recall_of_cosine"].min() > 0.995
    assert result.tie_aware is None


def test_figures_without_neighbours_rerank_candidates_that_are_none(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"exclude_within": RADIUS, "fusion": "avg"}
    run = scored(tmp_path, distance="hamming", code="rotation", code_bits=16, rerank=40, **keys)
    near = SpatialExclusion(read_names(run.query), read_names(run.archive), RADIUS)
    count = min(40, 70 - int(near.counts.max()))
    made = {kind: Binarizer.from_arrays(values) for kind, values in read_code_arrays(run.codes).items()}
    queries, archive = side_vectors(run, "s1_s2")
    candidates = slow_search(made["s1"].codes(queries), made["s2"].codes(archive), count, "hamming", near[:]).indices
    cosine = distance_matrix(queries, archive, "cosine")
    depth = min(30, 70 - int(near.counts.max()))
    lists = [
        sorted(row, key=lambda item, query=query: (cosine[query, item], item))[:depth]
        for query, row in enumerate(candidates)
    ]
    expected = retrieval_curves(read_labels(run.query), read_labels(run.archive), np.array(lists), near[:])
    found = read_results(run.retrieval).directions["s1_s2"].exclude_within.curves
    for name, curve in expected.items():
        assert found[name] == pytest.approx(curve), name


def test_a_reranked_list_is_as_deep_as_its_candidates_and_says_what_it_misses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exact = scored(tmp_path / "exact")
    with caplog.at_level(logging.INFO):
        run = scored(tmp_path / "two", distance="hamming", code="rotation", code_bits=8, rerank=12)
    assert "rerank is 12: the lists are that long" in caplog.text
    results = read_results(run.retrieval)
    assert (results.attributes["rerank"], results.attributes["k"]) == (12, 12)
    indices, distances = written(run, "s1_s2")
    assert indices.shape == (25, 12)
    true, _ = written(exact, "s1_s2")
    recall = results.directions["s1_s2"].rerank
    for k in (1, 5, 12):
        shares = [len(set(a[:k]) & set(b[:k])) / k for a, b in zip(indices, true, strict=True)]
        assert recall.curves["recall_of_cosine"][k - 1] == pytest.approx(np.mean(shares))
    assert recall.numbers == {"candidates": 12}
    assert 0 < recall.curves["recall_of_cosine"][-1] < 1
    queries, archive = side_vectors(run, "s1_s2")
    cosine = 1 - queries @ archive.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(archive, axis=1)
    assert distances == pytest.approx(np.take_along_axis(cosine, indices.astype(int), 1), abs=1e-5)


def test_sensors_that_cannot_be_compared_are_fitted_apart(tmp_path: Path) -> None:
    together = scored(tmp_path / "both", distance="hamming", code="itq", code_bits=8)
    apart = scored(tmp_path / "one", SAME_FEATURES, distance="hamming", code="itq", code_bits=8)
    one, other = read_code_arrays(together.codes), read_code_arrays(apart.codes)
    assert np.array_equal(one["s1"]["projection"], one["s2"]["projection"])
    assert not np.array_equal(other["s1"]["projection"], other["s2"]["projection"])


def test_learned_codes_are_signs_of_the_heads_and_fused_ones_of_their_sum() -> None:
    torch.manual_seed(0)
    heads = HashHeads(6, 16)
    heads.start_from(torch.randn(6), torch.randn(6), 0.7, torch.randn(6, 16))
    heads.head_s1.bias.data.normal_()
    one, two = torch.randn(2, 50, 6)
    with torch.no_grad():
        u1, u2 = (values.atanh().numpy() for values in heads(one, two))
    made = learned_binarizers(heads)
    unit = [torch.nn.functional.normalize(values, dim=1).numpy() for values in (one, two)]
    for kind, vectors, values in (
        ("s1", one.numpy(), u1), ("s2", two.numpy(), u2), ("s1_as_fused", one.numpy(), u1),
        ("fused", np.concatenate(unit, axis=1), u1 + u2),
    ):  # fmt: skip
        bits = np.unpackbits(made[kind].codes(vectors), axis=1)
        clear = np.abs(values) > 1e-4
        assert clear.mean() > 0.9
        assert np.array_equal(bits[clear], (values > 0)[clear]), kind


def test_features_whose_median_is_zero_are_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder(config_of(tmp_path).run_folder)
    write_run(run)
    with h5py.File(run.archive, "r+") as file:
        values = file["feature_s1"][:]
        values[:50, 2] = 0
        values[50:, 2] = 1
        values[:, 3] = 0
        file["feature_s1"][:] = values
    with caplog.at_level(logging.INFO):
        search_and_score(config_of(tmp_path, distance="hamming"), run, SOURCE, "wanted")
    assert "constant bits over the archive: s1 1 of 6, s2 0 of 6, fused 0 of 12" in caplog.text
    assert "features with a median of 0" in caplog.text
    assert "s1 2, s2 0" in caplog.text


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="code_bits is 64, but code median has one bit for each feature"):
        config_of(tmp_path, distance="hamming", code_bits=64)
    with pytest.raises(ConfigError, match="code_bits is 12; give a multiple of 8"):
        config_of(tmp_path, distance="hamming", code="itq", code_bits=12)
    with pytest.raises(ConfigError, match="rerank is 50; it orders candidates of distance: hamming"):
        config_of(tmp_path, rerank=50)
    with pytest.raises(CheckpointError, match=r"missing; train them with project/train\.py --hash"):
        scored(tmp_path, distance="hamming", code="learned")
    with pytest.raises(SearchError, match="inconsistent shapes"):
        Binarizer.from_arrays({"method": "itq", "unit": True, "thresholds": np.zeros((2, 2))})


def test_a_damaged_codes_file_is_told_and_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = scored(tmp_path, distance="hamming", code="itq", code_bits=16)
    whole = read_code_arrays(run.codes)
    run.codes.write_bytes(run.codes.read_bytes()[:-200])
    config = config_of(tmp_path, distance="hamming", code="itq", code_bits=16)
    with h5py.File(run.archive) as archive:
        prepare_codes(config, run, SOURCE, archive)
    assert "codes.h5" in caplog.text
    assert "it is computed again" in caplog.text
    again = read_code_arrays(run.codes)
    assert all(np.array_equal(again[kind][name], whole[kind][name]) for kind in whole for name in whole[kind])


def test_files_of_fused_vectors_alone_have_codes_too(tmp_path: Path) -> None:
    config = config_of(tmp_path, distance="hamming", code="itq", code_bits=16, rerank=20)
    run = RunFolder(config.run_folder)
    write_run(run)
    for path in (run.query, run.archive):
        with h5py.File(path, "r+") as file:
            del file["feature_s1"], file["feature_s2"]
    search_and_score(config, run, replace(SOURCE, directions=("fused",)), "wanted")
    results = read_results(run.retrieval)
    assert set(results.directions) == {"fused"}
    assert {row.direction for row in results.codes} == {"fused"}
