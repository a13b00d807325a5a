from pathlib import Path

import h5py
import numpy as np

from bigearthnet_cbir.storage.statistics import (
    DirectionStatistics,
    Groups,
    OtherCurves,
    read_statistics,
    write_statistics,
)


def test_statistics_are_read_back_as_written(tmp_path: Path) -> None:
    figures = {"F1@10": np.array([[0.5, 0.4, 0.6], [np.nan] * 3])}
    classes = Groups(np.array([3, 0]), figures, confusion=np.eye(2))
    counts = Groups(np.array([2, 1]), figures, labels=np.array([1, 4]))
    ties = OtherCurves({"average_precision": np.arange(3.0)}, {"mean_group": 1.5, "largest_group": 3})
    within = OtherCurves({"precision": np.arange(2.0)}, {"radius": 0, "dropped_mean": 0.5, "dropped_queries": 1})
    with h5py.File(tmp_path / "retrieval.h5", "w") as file:
        group = file.create_group("fused")
        write_statistics(group, DirectionStatistics({"F1@10": np.array([0.25, 0.75])}, classes, counts, ties, within))
        found = read_statistics(group)
        assert group["per_class/queries"].dtype == np.int64
        assert group["per_label_count/labels"][:].tolist() == [1, 4]
        assert group["intervals/F1@10"][:].tolist() == [0.25, 0.75]
    assert found.per_class is not None
    assert found.per_class.labels is None
    assert np.array_equal(found.per_class.confusion, np.eye(2))
    assert np.array_equal(found.per_class.figures["F1@10"], figures["F1@10"], equal_nan=True)
    assert found.per_label_count is not None
    assert found.per_label_count.confusion is None
    assert found.tie_aware is not None
    assert found.tie_aware.numbers == ties.numbers
    assert found.exclude_within is not None
    assert found.exclude_within.numbers == within.numbers
    assert found.exclude_within.curves["precision"].tolist() == [0, 1]


def test_a_file_without_statistics_reads_as_none(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "retrieval.h5", "w") as file:
        assert read_statistics(file.create_group("fused")) == DirectionStatistics()
