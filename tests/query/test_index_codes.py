"""The codes of an index: those that retrieval compares, for every method, and their binarizers for queries."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.conftest import Archive
from tests.query.conftest import make_run

import bigearthnet_cbir as cbir
from bigearthnet_cbir.cli import query as command
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.errors import CheckpointError, QueryError
from bigearthnet_cbir.pipelines.codes import fit_codes
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.pipelines.hashing import train_hash_heads
from bigearthnet_cbir.pipelines.index import build_index
from bigearthnet_cbir.pipelines.index_state import open_current_index
from bigearthnet_cbir.pipelines.retrieve import retrieve
from bigearthnet_cbir.query.filters import Filters
from bigearthnet_cbir.query.find import find, query_vector
from bigearthnet_cbir.query.index import SIDES, Index, open_index
from bigearthnet_cbir.query.query_codes import read_binarizer
from bigearthnet_cbir.search.binarizers import Binarizer
from bigearthnet_cbir.serve.requests import SearchQuestion
from bigearthnet_cbir.serve.served_run import ServedRun
from bigearthnet_cbir.serve.thumbnails import Thumbnails
from bigearthnet_cbir.storage.code_arrays import read_code_arrays
from bigearthnet_cbir.storage.features import DATASETS, read_names
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.hashing import HashSettings

pytestmark = pytest.mark.slow

METHODS = [("median", None), ("mean", None), ("rotation", 24), ("itq", 16), ("learned", 16)]


def coded_run(folder: Path, archive: Archive, code: str, bits: int | None, **changes: object) -> RunFolder:
    """Write a run folder with codes of a method; with one trained epoch of heads for learned codes."""
    given = {"distance": "hamming", "code": code, **({} if bits is None else {"code_bits": bits}), **changes}
    run = make_run(folder, archive, num_cpu=0, **given)
    if code == "learned":
        train_hash_heads(load_config(run.parameters), settings=HashSettings(epochs=1))
    return run


def fitted(run: RunFolder) -> dict[str, Binarizer]:
    return {kind: Binarizer.from_arrays(arrays) for kind, arrays in (read_code_arrays(run.codes) or {}).items()}


def assert_equal_binarizers(one: Binarizer, other: Binarizer) -> None:
    assert (one.method, one.unit) == (other.method, other.unit)
    assert np.array_equal(one.thresholds, other.thresholds)
    assert (one.projection is None) == (other.projection is None)
    assert one.projection is None or np.array_equal(one.projection, other.projection)


@pytest.mark.parametrize(("code", "bits"), METHODS)
def test_an_index_lists_what_retrieval_lists(
    tmp_path: Path, archives: dict[str, Archive], code: str, bits: int | None
) -> None:
    run = coded_run(tmp_path, archives["rico"], code, bits)
    retrieve(run.parameters)
    index = open_index(build_index(run.root))
    for kind, binarizer in fitted(run).items():
        assert_equal_binarizers(read_binarizer(index, kind), binarizer)
    queries, archive = read_names(run.query), read_names(run.archive)
    only = Filters(splits=("test",))
    with h5py.File(run.retrieval) as file:
        for name, direction in DIRECTIONS.items():
            for row, pair in enumerate(queries):
                vector = query_vector(index, pair.s2, direction.query, direction.archive)
                found = find(index, vector, archive=direction.archive, query=direction.query, k=2, filters=only)
                expected = [archive[int(place)].s2 for place in file[name]["retrieval_result"][row]]
                assert [index.names_s2[int(place)] for place in found.indices] == expected, name
                assert np.array_equal(found.distances, file[name]["distance"][row]), name


@pytest.mark.parametrize(("code", "bits"), METHODS)
def test_a_patch_of_the_archive_is_at_distance_0_of_itself(
    tmp_path: Path, archives: dict[str, Archive], code: str, bits: int | None
) -> None:
    run = coded_run(tmp_path, archives["rico"], code, bits)
    index = open_index(build_index(run.root))
    for side in SIDES:
        for position in range(len(index)):
            found = find(index, query_vector(index, position, side, side), archive=side, k=6)
            assert found.distances[found.indices.tolist().index(position)] == 0
    if bits is not None:
        assert index.codes("fused").shape == (6, bits // 8)


def test_without_retrieval_codes_are_fitted_on_the_rows_of_the_index(
    tmp_path: Path, archives: dict[str, Archive]
) -> None:
    run = coded_run(tmp_path, archives["rico"], "itq", 16)
    index = open_index(build_index(run.root))
    assert not run.codes.exists()
    rows = {DATASETS[side]: np.asarray(index.vectors(side)) for side in SIDES}
    expected = fit_codes(load_config(run.parameters), FeatureExtractor({}, lambda _: {}), rows)
    assert set(expected) == set(index.manifest["codes"])
    for kind, binarizer in expected.items():
        assert_equal_binarizers(read_binarizer(index, kind), binarizer)
    for side in SIDES:
        assert np.array_equal(index.codes(side), expected[side].codes(rows[DATASETS[side]]))


def test_the_command_and_the_server_use_the_codes_of_the_index(
    tmp_path: Path, archives: dict[str, Archive], capsys: pytest.CaptureFixture[str]
) -> None:
    run = coded_run(tmp_path, archives["rico"], "rotation", 24)
    index = open_index(build_index(run.root))
    name, answer = index.names_s2[0], tmp_path / "answer.json"
    options = ["--sensor", "s1", "--in", "fused", "--top", "5", "--json", str(answer)]
    assert command.main(["--filepath", str(run.root), "--patch", name, *options]) == 0
    hits = json.loads(answer.read_text())["hits"]
    binarizer = read_binarizer(index, "s1_as_fused")
    vector = np.asarray(index.vectors("s1")[:1])
    code = binarizer.codes(np.concatenate([vector, vector], axis=1))[0]
    away = np.unpackbits(np.asarray(index.codes("fused")) ^ code, axis=1).sum(axis=1)
    expected = sorted(range(1, 6), key=lambda position: (away[position], position))
    assert [hit["position"] for hit in hits] == expected
    assert [hit["distance"] for hit in hits] == away[expected].tolist()
    served = ServedRun("run", index, Thumbnails(index, None, None))
    served.warm()
    found = served.answer(SearchQuestion(patch=name, direction="s1_fused", k=5))
    assert [(one.position, one.distance) for one in found.results] == [(h["position"], h["distance"]) for h in hits]


def as_earlier_version(index: Index) -> None:
    """Change an index into one of an earlier version: median codes, thresholds of s1, s2 and fused only."""
    manifest = dict(index.manifest)
    for key in ("codes", "code", "code_bits"):
        del manifest[key]
    for path in index.folder.glob("*_as_fused.npy"):
        del manifest["arrays"][path.name]
        path.unlink()
    (index.folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("fusion", ["concat", "sum", "avg"])
def test_an_index_of_an_earlier_version_gives_the_same_lists(
    tmp_path: Path, archives: dict[str, Archive], fusion: str
) -> None:
    run = coded_run(tmp_path, archives["rico"], "median", None, fusion=fusion)

    def lists() -> list[tuple[list[int], list[float]]]:
        index = open_current_index(run.root)
        found = [
            find(index, query_vector(index, row, one.query, one.archive), query=one.query, archive=one.archive, k=6)
            for one in DIRECTIONS.values()
            for row in range(6)
        ]
        return [(hits.indices.tolist(), hits.distances.tolist()) for hits in found]

    kept = build_index(run.root)
    expected = lists()
    as_earlier_version(open_index(kept))
    assert lists() == expected
    written = (kept / "manifest.json").stat().st_mtime_ns
    build_index(run.root)  # it is up to date
    assert (kept / "manifest.json").stat().st_mtime_ns == written


def test_an_index_with_other_codes_is_refused_and_built_again(tmp_path: Path, archives: dict[str, Archive]) -> None:
    run = coded_run(tmp_path, archives["rico"], "rotation", 24)
    build_index(run.root)
    text = run.parameters.read_text()
    run.parameters.write_text(text.replace("code_bits: 24", "code_bits: 32"))
    with pytest.raises(QueryError, match=r"built with code_bits: 24, now 32; run project/index\.py again"):
        open_current_index(run.root)
    assert open_index(build_index(run.root)).codes("s1").shape == (6, 4)


def test_median_codes_of_an_earlier_version_are_refused_for_other_codes(
    tmp_path: Path, archives: dict[str, Archive]
) -> None:
    run = coded_run(tmp_path, archives["rico"], "median", None)
    as_earlier_version(open_index(build_index(run.root)))
    run.parameters.write_text(run.parameters.read_text().replace("code: median", "code: rotation"))
    with pytest.raises(QueryError, match=r"built with code: median, now rotation; run project/index\.py again"):
        open_current_index(run.root)
    build_index(run.root)
    assert open_current_index(run.root).manifest["code"] == "rotation"


def test_codes_that_cannot_be_made_are_one_line(tmp_path: Path, archives: dict[str, Archive]) -> None:
    run = make_run(tmp_path / "a", archives["rico"], distance="hamming", code="learned", num_cpu=0)
    with pytest.raises(CheckpointError, match=r"train them with project/train\.py --hash"):
        build_index(run.root)
    averaged = coded_run(tmp_path / "b", archives["rico"], "learned", 16, fusion="avg")
    index = open_index(build_index(averaged.root))
    assert len(find(index, query_vector(index, 0, "s1", "fused"), query="s1", k=3).indices) == 3
    with pytest.raises(QueryError, match=r"fusion is avg, but learned codes .* need concat"):
        find(index, query_vector(index, 0), k=3)


def test_vectors_from_files_are_indexed_with_the_codes_of_their_retrieval(
    tmp_path: Path, archives: dict[str, Archive]
) -> None:
    run = make_run(tmp_path, archives["rico"], num_cpu=0)
    retrieve(run.parameters)
    written = cbir.evaluate_files(
        run.query, run.archive, output=tmp_path / "outside", distance="hamming", code="itq", code_bits=16
    )
    outside = RunFolder(written.parent)
    index = open_index(build_index(outside.root))
    for kind, binarizer in fitted(outside).items():
        assert_equal_binarizers(read_binarizer(index, kind), binarizer)
    with h5py.File(outside.archive) as file:
        expected = fitted(outside)["s2"].codes(file["feature_s2"][:])
    assert np.array_equal(index.codes("s2")[: len(expected)], expected)
