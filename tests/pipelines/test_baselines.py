"""A baseline stands beside a run only where both were measured alike."""

import json
import logging
from pathlib import Path

import h5py
import pytest

from bigearthnet_cbir.pipelines.baselines import find_baselines

TOLD = {"query_split": "val", "archive_split": "test", "queries": 3, "archive_size": 9, "distance": "cosine", "k": 9}


def write(path: Path, backbone: str = "resnet50", **told: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_group("fused")
        file.attrs.update({**TOLD, **told, "configuration": json.dumps({"backbone": backbone, "epochs": 3})})
    return path


def test_baselines_measured_alike_are_found_by_name(tmp_path: Path) -> None:
    run = write(tmp_path / "retrieval.h5")
    names = ("untrained", "band_statistics")
    expected = {name: write(tmp_path / f"baseline_{name}" / "retrieval.h5") for name in names}
    (tmp_path / "baseline_begun").mkdir()
    assert find_baselines(run) == expected
    assert find_baselines(run.rename(tmp_path / "copied.h5")) == expected


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        ("band_statistics", {"distance": "hamming"}, "distance hamming instead of cosine"),
        ("untrained", {"archive_size": 8}, "archive_size 8 instead of 9"),
        ("untrained", {"backbone": "resnet18"}, "backbone resnet18 instead of resnet50"),
    ],
)
def test_a_baseline_measured_otherwise_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, other: dict[str, object], words: str
) -> None:
    run = write(tmp_path / "retrieval.h5")
    write(tmp_path / f"baseline_{name}" / "retrieval.h5", **other)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        assert find_baselines(run) == {}
    assert words in caplog.text
    assert f"--baseline {name}" in caplog.text


def test_band_statistics_do_not_depend_on_the_network(tmp_path: Path) -> None:
    run = write(tmp_path / "retrieval.h5")
    write(tmp_path / "baseline_band_statistics" / "retrieval.h5", backbone="resnet18")
    assert list(find_baselines(run)) == ["band_statistics"]


def test_one_bit_per_feature_is_the_same_setting_for_any_number_of_features(tmp_path: Path) -> None:
    run = write(tmp_path / "retrieval.h5", distance="hamming", code="median", code_bits=128)
    write(
        tmp_path / "baseline_band_statistics" / "retrieval.h5", distance="hamming", code="median", code_bits=4
    )  # fmt: skip
    assert list(find_baselines(run)) == ["band_statistics"]
