from pathlib import Path

import h5py
import numpy as np
import pytest

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.storage.features import read_fingerprint, read_labels, read_names, write_features
from bigearthnet_cbir.storage.results import (
    ORIGINAL,
    PartialResults,
    link_at_root,
    open_results,
    read_results,
    write_curves,
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


def found(rows: int, value: int) -> Neighbours:
    return Neighbours(np.full((rows, 2), value, np.int32), np.full((rows, 2), value / 2, np.float32))


def test_interrupted_results_keep_their_finished_rows(tmp_path: Path) -> None:
    path = tmp_path / "retrieval.h5"
    partial = PartialResults(path)
    assert not partial.open("f", ("fused", "s1_s1"), 5, 2, {"k": 2})
    with partial.writing() as file:
        partial.store(file, "fused", 0, found(3, 7))
    again = PartialResults(path)
    assert again.open("f", ("fused", "s1_s1"), 5, 2, {"k": 2})
    assert (again.finished("fused"), again.finished("s1_s1")) == (3, 0)
    with again.writing() as file:
        again.store(file, "fused", 3, found(2, 9))
        again.store(file, "s1_s1", 0, found(5, 1))
        write_curves(file["fused"], {"precision": np.array([0.5, 0.25])})
        write_curves(file["fused"].require_group(ORIGINAL), {"precision": np.array([1.0, 0.0])})
        link_at_root(file)
    again.publish()
    with open_results(path) as file:
        assert file["fused/retrieval_result"][:, 0].tolist() == [7, 7, 7, 9, 9]
        assert file["precision"][:].tolist() == [0.5, 0.25]
        assert file["retrieval_result"].dtype == np.int32
    assert sorted(item.name for item in tmp_path.iterdir()) == ["retrieval.h5"]


def test_results_of_another_search_are_not_continued(tmp_path: Path) -> None:
    partial = PartialResults(tmp_path / "retrieval.h5")
    partial.open("one", ("fused",), 5, 2, {})
    with partial.writing() as file:
        partial.store(file, "fused", 0, found(3, 7))
    assert not partial.open("another", ("fused",), 5, 2, {})
    assert partial.finished("fused") == 0


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
    with pytest.raises(ResultsError, match="holds no retrieval results"):
        read_results(path)
