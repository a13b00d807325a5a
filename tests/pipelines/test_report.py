"""project/report.py on a run folder: with patches at hand, without them, as files, and for TensorBoard."""

import csv
import re
import shutil
from pathlib import Path

import h5py
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tests.report.samples import DIRECTIONS, HOSTILE, write_run

from bigearthnet_cbir.cli.report import main
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.pipelines import patch_images
from bigearthnet_cbir.pipelines.report import collect_study, write_report
from bigearthnet_cbir.report.compare_runs import compare
from bigearthnet_cbir.report.export_figures import write_figures
from bigearthnet_cbir.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(archives, real_pairs, tmp_path_factory) -> Path:
    """A run whose patches are the six real pairs, in a store that another tool wrote."""
    folder = tmp_path_factory.mktemp("logs") / "group" / "run"
    pairs = real_pairs.pairs
    return write_run(folder, queries=pairs[:4], archive=pairs, store=archives["rico"].s2)


def test_report_shows_the_patches_of_a_run(run: Path, tmp_path: Path) -> None:
    written = write_report([run], output=tmp_path / "page.html", queries=4)
    text = written.read_text()
    assert "group / run" in text
    # Six places, each at most once per sensor.
    assert 6 < text.count("data:image/jpeg") <= 12
    assert text.count("Sentinel-1 image of query") == 3 * 4
    assert text.count("Sentinel-2 image of result 1:") == 3 * 4
    assert HOSTILE not in text
    assert len(text) < 1_000_000
    assert not list(tmp_path.glob(".*"))


def test_the_page_lands_in_the_run_folder_and_is_the_same_again(run: Path) -> None:
    first = write_report([run / "retrieval.h5"], seed=3)
    content = first.read_text()
    assert first == run / "report.html"
    assert write_report([run], seed=3).read_text() == content


def test_moved_patches_leave_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    study = collect_study([RunFolder(run)])
    assert study.gallery is None
    assert "/nowhere/patches.lmdb: there is no such LMDB" in study.no_gallery
    assert "there is no such LMDB" in write_report([run]).read_text()


def test_missing_features_leave_one_sentence(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run / "retrieval.h5", alone)
    assert "query.h5" in collect_study([RunFolder(alone)]).no_gallery


def test_results_of_the_original_scripts_give_a_report(run: Path, tmp_path: Path) -> None:
    with h5py.File(run / "retrieval.h5") as source, h5py.File(tmp_path / "retrieval.h5", "w") as file:
        for name in ("precision", "recall", "average_precision"):
            file[name] = source["fused"][name][:]
    assert "written by the original scripts" in write_report([tmp_path]).read_text()


def test_several_runs_are_compared_in_the_folder_they_share(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name / "seed0", seed=seed) for seed, name in enumerate("ab")]
    written = write_report(runs)
    assert written == tmp_path / "comparison.html"
    assert "a/seed0" in written.read_text()
    assert "No paired differences." in written.read_text()
    assert "different labels" in collect_study([RunFolder(run) for run in runs]).no_differences
    with pytest.raises(ResultsError, match="given twice"):
        write_report([runs[0], runs[0] / "retrieval.h5"])


def test_comparison_says_how_each_run_differs_from_the_first(real_pairs, tmp_path: Path) -> None:
    pairs = real_pairs.pairs
    runs = [write_run(tmp_path / name, queries=pairs[:4], archive=pairs) for name in ("a", "b")]
    with h5py.File(runs[1] / "retrieval.h5", "r+") as file:
        file["fused/retrieval_result"][:] = file["fused/retrieval_result"][:][:, ::-1]
    study = collect_study([RunFolder(run) for run in runs])
    assert study.no_differences == ""
    assert study.differences == {"b": compare(runs[1] / "retrieval.h5", runs[0] / "retrieval.h5")}
    assert study.differences["b"]["fused"]["F1@5"].value != 0
    assert study.differences["b"]["s1_s1"]["F1@5"].value == 0


def test_a_gallery_of_noise_gives_up_quality_to_stay_small(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = write_report([run], output=tmp_path / "fine.html").stat().st_size
    monkeypatch.setattr(patch_images, "MAX_BYTES", 30_000)
    assert write_report([run], output=tmp_path / "coarse.html").stat().st_size < fine - 10_000


def test_a_figure_that_cannot_be_written_leaves_the_earlier_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = collect_study([RunFolder(run)], queries=0)
    (tmp_path / "curves_fused.png").write_bytes(b"earlier")

    def fail(figure: Figure, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        write_figures(study, tmp_path)
    assert (tmp_path / "curves_fused.png").read_bytes() == b"earlier"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_figures_are_written_for_a_paper(run: Path, tmp_path: Path) -> None:
    written = write_figures(collect_study([RunFolder(run)], queries=1), tmp_path)
    names = {path.name for path in written}
    for direction in DIRECTIONS:
        wanted = {f"curves_{direction}.png", f"gallery_{direction}_01_best.png", f"headline_{direction}.csv",
                  f"headline_{direction}.tex", f"per_class_{direction}.csv"}  # fmt: skip
        assert wanted <= names
    with Image.open(tmp_path / "gallery_s1_s2_01_best.png") as image:
        assert image.width > 5 * image.height / 2
    rows = list(csv.DictReader((tmp_path / "headline_fused.csv").open()))
    with h5py.File(run / "retrieval.h5") as file:
        assert float(rows[0]["this run"]) == file["fused/precision"][5]  # the archive ends before rank 10


def test_tensorboard_gets_figures_and_a_projector(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_report([run], queries=0, tensorboard=True)
    folder = run / "training" / "retrieval"
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {f"F1_at_10/{direction}" for direction in DIRECTIONS} <= set(events.Tags()["scalars"])
    metadata = (folder / "00000" / "archive" / "metadata.tsv").read_text().splitlines()
    assert metadata[0].split("\t") == ["patch", "labels", "labels_count"]
    assert len(metadata) == 7
    assert (folder / "00000" / "archive" / "sprite.png").exists()
    write_report([run], queries=0, tensorboard=True)
    assert len(list(folder.glob("events*"))) == 1


def test_command_prints_where_the_page_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--filepath", str(run), "--queries", "2"]) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    assert len(re.findall("<article", (run / "report.html").read_text())) == 2 * len(DIRECTIONS)


def test_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--filepath", str(tmp_path)]) == 2
    assert "run project/retrieval.py first" in capsys.readouterr().err
    assert main(["--filepath", str(tmp_path), "--queries", "-1"]) == 2
    assert "--queries is -1" in capsys.readouterr().err
