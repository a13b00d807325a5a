"""Run folders written by version 0.1 still print, compare, report and resume.

The fixture holds two runs on six real pairs, written by that version's scripts. Its checkpoints' tensors are zero, so
that they compress to a few kilobytes; everything else is as written. print.txt and compare.txt are what its
utils/utils.py printed; the numbers are compared, the words may change.
"""

import re
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from tests.conftest import Archive

from bigearthnet_cbir.cli import report, show, train
from bigearthnet_cbir.storage.features import read_names

FIXTURE = Path(__file__).parent / "fixtures" / "runs_of_version_0_1.tar.xz"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "runs"


def numbers(text: str, runs: Path) -> list[str]:
    found = re.findall(r"[-+]?\d*\.\d+|\d+", text.replace(str(runs), "RUNS"))
    assert len(found) > 100
    return found


def test_metrics_are_printed_as_then(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show.main(["--filepath", str(runs / "first")]) == 0
    assert numbers(capsys.readouterr().out, runs) == numbers((runs / "print.txt").read_text(), runs)


def test_runs_are_compared_as_then(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show.main(["--filepath", str(runs / "second"), "--against", str(runs / "first")]) == 0
    assert numbers(capsys.readouterr().out, runs) == numbers((runs / "compare.txt").read_text(), runs)


def test_reports_are_written(runs: Path) -> None:
    assert report.main(["--filepath", str(runs / "first")]) == 0
    page = (runs / "first" / "report.html").read_text()
    assert "there is no such LMDB" in page, "the page does not say why it shows no patches"
    assert "Training" in page
    assert report.main(["--filepath", str(runs / "first"), str(runs / "second")]) == 0
    assert (runs / "comparison.html").exists()


@pytest.mark.slow
def test_training_resumes(runs: Path, archives: dict[str, Archive]) -> None:
    archive = archives["rico"]
    path = runs / "first" / "parameters.yaml"
    values = yaml.safe_load(path.read_text())
    pairs = runs.parent / "all.csv"
    pairs.write_text("".join(f"{pair.s2},{pair.s1}\n" for pair in read_names(runs / "first" / "query.h5")))
    values |= dict.fromkeys(("train_csv", "val_csv", "test_csv"), str(pairs))
    values |= {"bigEarthPthLMDB_S2": str(archive.s2), "bigEarthPthLMDB_S1": str(archive.s1), "epochs": 2}
    values["name"], values["logging_params"] = runs.name, {"save_dir": str(runs.parent), "name": "first"}
    path.write_text(yaml.safe_dump(values))
    assert train.main(["--filepath", str(path), "--resume"]) == 0
    content = torch.load(runs / "first" / "checkpoints_model_last.pth.tar", weights_only=True)
    assert content["epoch"] == 2
