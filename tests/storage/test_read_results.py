"""What a report reads: statistics where a file has them, further directions, training curves of resumed runs."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.report.samples import DIRECTIONS, write_run

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.storage.results import read_neighbours, read_results
from bigearthnet_cbir.storage.training_log import Scalar, read_training_log


def test_statistics_are_read_where_they_are(tmp_path: Path) -> None:
    path = write_run(tmp_path) / "retrieval.h5"
    with h5py.File(path, "r+") as file:
        file.copy("fused", "s1_fused")
        tied = file["fused"].create_group("tie_aware")
        tied["average_precision"] = np.full(60, 0.25)
        tied.attrs.update(mean_group=2.5, largest_group=9)
    data = read_results(path)
    assert tuple(data.directions) == (*DIRECTIONS, "s1_fused")
    fused, other = data.directions["fused"], data.directions["s1_fused"]
    assert other.tie_aware is None
    assert fused.tie_aware is not None
    assert fused.tie_aware.numbers == {"mean_group": 2.5, "largest_group": 9.0}
    assert fused.tie_aware.curves["average_precision"].tolist() == [0.25] * 60
    lower, upper = fused.intervals["F1@5"]
    assert lower < fused.curves["f1score"][4] < upper
    assert fused.per_class is not None
    assert set(fused.per_class.values) == {"F1@10", "mAP@10", "NDCG@10"}
    assert fused.per_class.keys.tolist() == list(range(19))
    assert fused.per_label_count is not None
    assert fused.per_label_count.keys.tolist() == [1, 2, 3, 4]
    assert fused.confusion is not None
    assert fused.confusion.shape == (19, 19)
    assert data.configuration["seed"] == 0
    assert data.class_names(()) == CLASSES


def test_a_file_without_statistics_has_none(tmp_path: Path) -> None:
    data = read_results(write_run(tmp_path, statistics=False) / "retrieval.h5").directions["s1_s2"]
    assert data.intervals == {}
    assert (data.per_class, data.per_label_count, data.confusion, data.exclude_within) == (None, None, None, None)
    assert data.depth == 60


def test_neighbours_are_cut_to_the_first(tmp_path: Path) -> None:
    path = write_run(tmp_path) / "retrieval.h5"
    found = read_neighbours(path, "s2_s1", 10)
    with h5py.File(path) as file:
        assert np.array_equal(found.indices, file["s2_s1/retrieval_result"][:, :10])
    assert found.distances.shape == (30, 10)


def test_a_resumed_run_has_one_value_per_epoch(tmp_path: Path) -> None:
    from bigearthnet_cbir.training.tensorboard import TensorBoardCurves

    with TensorBoardCurves(tmp_path, 0) as curves:
        for epoch, loss in ((1, 4.0), (2, 3.0), (3, 9.0)):
            curves(epoch, {"loss/training": loss})
    with TensorBoardCurves(tmp_path, 2) as curves:
        curves(3, {"loss/training": 2.0})
    assert read_training_log(tmp_path) == {"loss/training": Scalar((1, 2, 3), (4.0, 3.0, 2.0))}


def test_the_later_run_counts_whatever_its_file_is_called(tmp_path: Path) -> None:
    # Names end in a counter without leading zeros: .10 sorts before .9 where both began in one second.
    from bigearthnet_cbir.training.tensorboard import TensorBoardCurves

    for completed, values, name in ((0, {1: 4.0, 2: 3.0, 3: 9.0, 4: 8.0}, "9"), (2, {3: 2.0}, "10")):
        with TensorBoardCurves(tmp_path / name, completed) as curves:
            for epoch, loss in values.items():
                curves(epoch, {"loss/training": loss})
        (written,) = (tmp_path / name).iterdir()
        written.rename(tmp_path / f"events.out.tfevents.1700000000.host.7.{name}")
    assert read_training_log(tmp_path) == {"loss/training": Scalar((1, 2, 3), (4.0, 3.0, 2.0))}


def test_no_training_log_is_no_error(tmp_path: Path) -> None:
    assert read_training_log(tmp_path / "missing") == {}


@pytest.mark.parametrize("configuration", ["not json", "[1]"])
def test_a_broken_configuration_is_left_out(tmp_path: Path, configuration: str) -> None:
    path = write_run(tmp_path) / "retrieval.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["configuration"] = configuration
    assert read_results(path).configuration == {}
