"""Two runs compared through the command line."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.pipelines.test_evaluate import scored

from bigearthnet_cbir.cli.show import main
from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.report.compare_runs import compare
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder]:
    return scored(tmp_path_factory.mktemp("a")), scored(tmp_path_factory.mktemp("b"), fusion="sum", distance="hamming")


def show(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_every_direction_and_headline_is_compared(
    runs: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = show(capsys, "--filepath", runs[0].root, "--against", runs[1].retrieval)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert sum(line[:2] == ["excludes", "zero"] for line in lines) == len(DIRECTIONS)
    assert all(len(line) == 8 and set(line[2:]) <= {"yes", "no"} for line in lines if line[:1] == ["excludes"])
    assert len(lines) <= 50


def test_differences_are_those_of_the_headline_figures(runs: tuple[RunFolder, RunFolder]) -> None:
    one, other = (read_results(run.retrieval).directions for run in runs)
    for direction, differences in compare(runs[0].retrieval, runs[1].retrieval).items():
        expected = one[direction].curves["average_precision"][9] - other[direction].curves["average_precision"][9]
        assert differences["mAP@10"].value == pytest.approx(expected)
        harmonic = one[direction].curves["f1score_harmonic"][9] - other[direction].curves["f1score_harmonic"][9]
        assert differences["F1@10"].value == pytest.approx(harmonic)
        assert differences["F1@10"].lower <= differences["F1@10"].value <= differences["F1@10"].upper


def test_a_run_does_not_differ_from_itself(
    runs: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = show(capsys, "--filepath", runs[0].root, "--against", runs[0].root)
    assert "yes" not in out.split()


@pytest.mark.parametrize("side", ["query", "archive"])
def test_other_patches_are_refused_in_one_line(
    runs: tuple[RunFolder, RunFolder], side: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs[1].root, tmp_path / "run")
    with h5py.File(tmp_path / "run" / f"{side}.h5", "r+") as file:
        file["patch_name"][0] = ["S1A_other", "S2A_other"]
        del file["patch_name"].attrs["sha256"]  # it would tell that the names were changed
    code, _, error = show(capsys, "--filepath", runs[0].root, "--against", tmp_path / "run")
    assert code == 2
    assert error.startswith("error:")
    assert error.count("\n") == 1
    assert f"their {'queries' if side == 'query' else 'archive'} differ" in error


@pytest.mark.parametrize("attribute", ["content_sha256", "fingerprint"])
def test_features_of_another_extraction_are_refused(
    runs: tuple[RunFolder, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str], attribute: str
) -> None:
    shutil.copytree(runs[0].root, tmp_path / "run")
    with h5py.File(tmp_path / "run" / "query.h5", "r+") as file:
        file.attrs[attribute] = "another"
    with h5py.File(tmp_path / "run" / "retrieval.h5", "r+") as file:
        stored = file.attrs.pop("query_content")
        # Results of earlier versions name the features' fingerprint instead.
        file.attrs["query_content" if attribute == "content_sha256" else "query_fingerprint"] = stored
    code, _, error = show(capsys, "--filepath", tmp_path / "run", "--against", runs[1].root)
    assert (code, "run project/retrieval.py again" in error) == (2, True)


def test_results_of_the_original_scripts_and_missing_runs_are_refused(
    runs: tuple[RunFolder, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tmp_path / "retrieval.h5", "w") as file:
        file["average_precision"] = np.zeros(3)
    code, _, error = show(capsys, "--filepath", runs[0].root, "--against", tmp_path)
    assert (code, "original scripts" in error) == (2, True)
    code, _, error = show(capsys, "--filepath", runs[0].root, "--against", tmp_path / "nowhere")
    assert (code, "--against" in error) == (2, True)


def test_another_depth_is_refused(
    runs: tuple[RunFolder, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shallow = scored(tmp_path, top_k=5)
    code, _, error = show(capsys, "--filepath", runs[0].root, "--against", shallow.root)
    assert (code, "retrieve both with the same top_k" in error) == (2, True)
