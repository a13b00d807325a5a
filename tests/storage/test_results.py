import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.results import CurveVariant, DirectionResult, GroupMetrics
from bigearthnet_cbir.storage.feature_stamps import read_fingerprint, stamped_digest
from bigearthnet_cbir.storage.features import content_digest, read_labels, read_names, reusable_digest, write_features
from bigearthnet_cbir.storage.partial import PartialSearch
from bigearthnet_cbir.storage.results import (
    open_results,
    read_neighbours,
    read_results,
    write_results,
)
from bigearthnet_cbir.types import Neighbours, PatchPair

PAIRS = [PatchPair("s2_a", "s1_a"), PatchPair("s2_b", "s1_b"), PatchPair("s2_c", "s1_c")]


def columns(rows: int, start: float = 0.0) -> dict[str, np.ndarray]:
    values = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) + start
    return {
        "feature": np.hstack([values, values]),
        "feature_s1": values,
        "feature_s2": -values,
        "label": np.eye(19, dtype=np.uint8)[:rows],
    }


def test_features_are_written_batch_by_batch_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "query.h5"
    with write_features(path, PAIRS, ("a", "b"), {"fingerprint": "f", "split": "val"}) as writer:
        writer.append(columns(2))
        writer.append(columns(1, 10))
    assert read_names(path) == PAIRS
    assert read_fingerprint(path) == "f"
    assert read_labels(path).tolist() == [*np.eye(19)[:2].tolist(), np.eye(19)[0].tolist()]
    with h5py.File(path) as file:
        assert file["feature"].shape == (3, 4)
        assert file["feature_s2"][2].tolist() == [-10, -11]
        assert file["patch_name"].asstr()[0].tolist() == ["s1_a", "s2_a"]
        assert {"package_version", "git_commit", "class_names"} <= set(file.attrs)


def test_features_that_are_not_finite_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "query.h5"
    bad = columns(3)
    bad["feature_s2"][1, 1] = np.nan
    with pytest.raises(ResultsError, match="feature_s2"), write_features(path, PAIRS, (), {}) as writer:
        writer.append(bad)
    assert not path.exists()


def found(rows: int, first: int) -> Neighbours:
    indices = np.arange(first, first + 2, dtype=np.int32)[None].repeat(rows, 0)
    return Neighbours(indices, indices.astype(np.float32) / 2)


def a_search(path: Path, fingerprint: str = "f") -> PartialSearch:
    partial = PartialSearch(path)
    partial.open(fingerprint, 5, 2, 100)
    return partial


def test_interrupted_search_keeps_its_finished_rows(tmp_path: Path) -> None:
    path = tmp_path / "retrieval.h5"
    a_search(path).store("fused", 0, found(3, 7))
    again = PartialSearch(path)
    assert again.open("f", 5, 2, 100)
    assert (again.finished("fused"), again.finished("s1_s1")) == (3, 0)
    again.store("fused", 3, found(2, 9))
    assert again.neighbours("fused").indices.tolist() == [[7, 8]] * 3 + [[9, 10]] * 2
    assert again.neighbours("fused").distances[:, 0].tolist() == [3.5] * 3 + [4.5] * 2
    again.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bytes_kept", range(0, 25))
def test_search_cut_at_any_byte_goes_on_behind_its_last_whole_row(tmp_path: Path, bytes_kept: int) -> None:
    path = tmp_path / "retrieval.h5"
    partial = a_search(path)
    partial.store("fused", 0, found(3, 7))
    with (partial.folder / "fused.distances").open("r+b") as stream:
        stream.truncate(bytes_kept)
    again = PartialSearch(path)
    rows = bytes_kept // 8
    assert again.open("f", 5, 2, 100) == (rows > 0)
    assert again.finished("fused") == rows
    again.store("fused", rows, found(5 - rows, 20))
    assert again.neighbours("fused").indices[:, 0].tolist() == [7] * rows + [20] * (5 - rows)


@pytest.mark.parametrize("damage", ["zeros", "outside"])
def test_damaged_rows_begin_anew_with_a_warning(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    partial = a_search(tmp_path / "retrieval.h5")
    partial.store("fused", 0, found(3, 7))
    values = np.full(6, 0 if damage == "zeros" else 100, "<i4")
    (partial.folder / "fused.indices").write_bytes(values.tobytes())
    assert not PartialSearch(tmp_path / "retrieval.h5").open("f", 5, 2, 100)
    assert "damaged" in caplog.text


def test_rows_of_another_search_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "retrieval.h5"
    a_search(path, "one").store("fused", 0, found(3, 7))
    assert a_search(path, "another").finished("fused") == 0


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"\xff"])
def test_unreadable_header_begins_anew(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "retrieval.h5"
    partial = a_search(path)
    partial.store("fused", 0, found(3, 7))
    (partial.folder / "search.json").write_bytes(header)
    assert a_search(path).finished("fused") == 0


def test_unfinished_search_of_an_earlier_version_is_removed_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".retrieval.h5.partial").write_bytes(b"x")
    (tmp_path / ".retrieval.h5.progress.json").write_bytes(b"{}")
    a_search(tmp_path / "retrieval.h5")
    assert "cannot be continued" in caplog.text
    assert [item.name for item in tmp_path.iterdir()] == [".retrieval.h5.rows"]


def direction(value: float, **more: object) -> DirectionResult:
    curves = {"precision": np.array([value, 0.25])}
    chance, original = {"precision": np.array([0.1, 0.1])}, {"precision": np.array([1.0, 0.0])}
    return DirectionResult(curves, chance, original, neighbours=found(5, 7), depth=2, **more)


def test_results_are_written_in_one_step_and_linked_at_the_root(tmp_path: Path) -> None:
    path = tmp_path / "retrieval.h5"
    write_results(path, {"k": 2, "configuration": '{"seed": 1}'}, {"fused": direction(0.5), "s1_s1": direction(0.75)})
    with open_results(path) as file:
        assert file["fused/retrieval_result"][:, 0].tolist() == [7] * 5
        assert file["precision"][:].tolist() == [0.5, 0.25]
        assert file["retrieval_result"].dtype == np.int32
    read = read_results(path)
    assert (read.attributes["k"], read.configuration, read.original_only) == (2, {"seed": 1}, False)
    assert read.directions["s1_s1"].curves["precision"].tolist() == [0.75, 0.25]
    assert read.directions["s1_s1"].original["precision"].tolist() == [1.0, 0.0]
    assert read_neighbours(path, "s1_s1", 1).indices.tolist() == [[7]] * 5
    assert [item.name for item in tmp_path.iterdir()] == ["retrieval.h5"]


def test_everything_is_read_back_as_written(tmp_path: Path) -> None:
    values = {"F1@10": np.array([[0.5, 0.4, 0.6], [np.nan] * 3])}
    whole = direction(
        0.5,
        intervals={"F1@10": (0.25, 0.75)},
        per_class=GroupMetrics(np.arange(2), np.array([3, 0]), values),
        per_label_count=GroupMetrics(np.array([1, 4]), np.array([2, 1]), values),
        confusion=np.eye(2),
        tie_aware=CurveVariant({"average_precision": np.arange(3) / 4}, {"mean_group": 1.5, "largest_group": 3}),
        exclude_within=CurveVariant({"precision": np.arange(2.0)}, {"radius": 0, "dropped_mean": 0.5}),
    )
    path = tmp_path / "retrieval.h5"
    write_results(path, {}, {"fused": whole, "s1_s1": direction(0.75)})
    read = read_results(path).directions
    for name in ("curves", "chance", "original", "intervals", "confusion"):
        np.testing.assert_equal(getattr(read["fused"], name), getattr(whole, name))
    for name in ("per_class", "per_label_count", "tie_aware", "exclude_within"):
        np.testing.assert_equal(vars(getattr(read["fused"], name)), vars(getattr(whole, name)))
        assert getattr(read["s1_s1"], name) is None
    assert read["fused"].depth == 2
    assert (read["fused"].neighbours, read["s1_s1"].intervals, read["s1_s1"].confusion) == (None, {}, None)


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from bigearthnet_cbir.storage.features import write_features
from bigearthnet_cbir.types import PatchPair
path, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
pairs = [PatchPair(f"s2_{row}", f"s1_{row}") for row in range(300)]
values = np.ones((100, 16), np.float32)
columns = {"feature": values, "feature_s1": values, "feature_s2": values, "label": np.ones((100, 19), np.uint8)}
try:
    with write_features(path, pairs, (), {}) as writer:
        for _ in range(3):
            writer.append(columns)
except OSError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.mark.parametrize("limit", [0, 100, 2_000, 9_000, 20_000, 40_000, 60_000, 1_000_000])
def test_full_disk_is_an_error_and_leaves_the_earlier_file(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "query.h5"
    path.write_bytes(b"earlier")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(limit)], capture_output=True, text=True, check=False
    )
    if limit == 1_000_000:
        assert (done.returncode, len(read_names(path))) == (0, 300)
    else:
        assert done.returncode == 1, done.stderr
        assert done.stderr.strip() == f"refused: [Errno 27] File too large: '{path}'"
        assert path.read_bytes() == b"earlier"
    assert [item.name for item in tmp_path.iterdir()] == ["query.h5"]


def test_features_of_too_few_rows_are_not_published(tmp_path: Path) -> None:
    path = tmp_path / "query.h5"
    with pytest.raises(ResultsError, match="2 of 3 rows"), write_features(path, PAIRS, (), {}) as writer:
        writer.append(columns(2))
    assert not path.exists()


def test_digest_of_a_feature_file_tells_changed_content(tmp_path: Path) -> None:
    path = tmp_path / "query.h5"
    for start in (0, 0, 1):
        with write_features(path, PAIRS, (), {"fingerprint": "f"}) as writer:
            writer.append(columns(2, start))
            writer.append(columns(1, start))
        assert stamped_digest(path) == content_digest(path)
        if start == 0:
            first = content_digest(path)
    assert content_digest(path) != first
    assert reusable_digest(path, "f") == content_digest(path)
    assert reusable_digest(path, "other") is None
    with h5py.File(path, "r+") as file:
        file["feature_s1"][0, 0] += 1
    assert reusable_digest(path, "f") is None


def test_file_of_the_original_scripts_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "retrieval.h5"
    with h5py.File(path, "w") as file:
        file["retrieval_result"] = np.zeros((2, 3))
        file["average_precision"] = np.array([0.5, 0.6, 0.7])
    results = read_results(path)
    assert results.original_only
    assert results.directions["fused"].curves["average_precision"].tolist() == [0.5, 0.6, 0.7]


@pytest.mark.parametrize("content", [None, b"", b"not hdf5 at all"])
def test_missing_or_broken_results_are_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "retrieval.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"retrieval\.h5"):
        read_results(path)


def test_a_feature_file_is_not_taken_for_results(tmp_path: Path) -> None:
    path = tmp_path / "query.h5"
    with write_features(path, PAIRS, (), {}) as writer:
        writer.append(columns(3))
    with pytest.raises(ResultsError, match="has no retrieval results"):
        read_results(path)
