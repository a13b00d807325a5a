"""The scripts, on real patches: from GeoTIFF folders to printed metrics, and every mistake.

Where a script has shown that it works, further tests of its command run in this process.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from tests.commands import run_command
from tests.conftest import RealPairs

from bigearthnet_cbir.cli import retrieve, show, sweep, train

ROOT = Path(__file__).resolve().parents[1]


def run_script(*words: object, cwd: Path = ROOT, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


class World:
    """The six real pairs encoded, and a way to write configurations for them."""

    def __init__(self, folder: Path, s2_root: Path, s1_root: Path) -> None:
        self.folder = folder
        self.s2_root, self.s1_root = s2_root, s1_root
        self.store = folder / "patches.lmdb"

    def write(self, run: str, **keys: object) -> Path:
        values: dict[str, object] = {
            "train_csv": str(self.folder / "all.csv"),
            "val_csv": str(self.folder / "all.csv"),
            "test_csv": str(self.folder / "all.csv"),
            "bigEarthPthLMDB_S2": str(self.store),
            "bigEarthPthLMDB_S1": str(self.store),
            "backbone": "resnet10",
            "projection_dim": 8,
            "projection_head": "mlp",  # signed features, which chi2 refuses
            "out_channels": 4,
            "batch_size": 3,
            "epochs": 1,
            "num_workers": 0,
            "device": "cpu",
            "name": "group",
            "logging_params": {"save_dir": str(self.folder / "logs"), "name": run},
        }
        values.update(keys)
        path = self.folder / f"{run}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def run_folder(self, run: str) -> Path:
        return self.folder / "logs" / "group" / run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, real_pairs: RealPairs) -> World:
    made = World(tmp_path_factory.mktemp("world"), real_pairs.s2_root, real_pairs.s1_root)
    run_script(
        "project/encode_patches.py", "--s2-root", made.s2_root, "--s1-root", made.s1_root,
        "--output", made.store, "--splits", made.folder, "--workers", 0,
    )  # fmt: skip
    lists = [made.folder / f"{split}.csv" for split in ("train", "val", "test")]
    (made.folder / "all.csv").write_text("".join(path.read_text() for path in lists))
    return made


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("joint", "contrastive"),
        pytest.param("separate", "contrastive", marks=pytest.mark.slow),
        pytest.param("joint", "classification", marks=pytest.mark.slow),
        pytest.param("separate", "classification", marks=pytest.mark.slow),
    ],
)
def test_real_patches_go_all_the_way(
    world: World, kind: str, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = f"{kind}_{loss}"
    path = world.write(run, type=kind, loss_func=loss)
    elsewhere = tmp_path if loss == "classification" else ROOT
    monkeypatch.chdir(elsewhere)

    def command(script: str, main: Callable[..., int], given: Path) -> str:
        if kind == "separate":
            return run_command(main, "--filepath", given).stdout
        return run_script(ROOT / script, "--filepath", given, cwd=elsewhere).stdout

    command("project/train.py", train.main, path)
    folder = world.run_folder(run)
    assert {"parameters.yaml", "checkpoints_model_best.pth.tar", "checkpoints_model_last.pth.tar", "training"} <= {
        item.name for item in folder.iterdir()
    }
    command("project/retrieval.py", retrieve.main, folder / "parameters.yaml")
    with h5py.File(folder / "retrieval.h5") as results:
        assert set(results["fused"]) >= {"precision", "average_precision", "original_convention", "chance", "distance"}
        assert results["s1_s2/retrieval_result"].shape == (6, 5)
        assert np.array_equal(results["precision"][:], results["fused/precision"][:])
        for direction in ("fused", "s1_s1", "s2_s2", "s1_s2", "s2_s1", "s1_fused", "s2_fused"):
            neighbours = results[direction]["retrieval_result"][:]
            assert not (neighbours == np.arange(6)[:, None]).any(), "a query retrieved itself"
    printed = command("utils/utils.py", show.main, folder / "parameters.yaml")
    for word in ("S1 -> S2", "precision", "recall", "mAP", "chance"):
        assert word in printed


@pytest.fixture(scope="module")
def trained(world: World) -> Path:
    run_command(train.main, "--filepath", world.write("trained"))
    return world.run_folder("trained")


@pytest.mark.slow
@pytest.mark.parametrize("distance", ["hamming"])
def test_ray_workers_give_what_one_process_gives(world: World, trained: Path, distance: str) -> None:
    found = {}
    for workers in (2, 0):
        values = yaml.safe_load((trained / "parameters.yaml").read_text())
        values |= {"num_cpu": workers, "distance": distance}
        (trained / "parameters.yaml").write_text(yaml.safe_dump(values))
        run_script("project/retrieval.py", "--filepath", trained / "parameters.yaml", "--recompute")
        with h5py.File(trained / "retrieval.h5") as results:
            found[workers] = {
                (group, name): results[group][name][:]
                for group in ("fused", "s1_s1", "s2_s2", "s1_s2", "s2_s1", "s1_fused", "s2_fused")
                for name in ("retrieval_result", "distance", "precision")
            }
    for key, values in found[0].items():
        assert np.array_equal(values, found[2][key]), key


@pytest.mark.slow
def test_results_are_reused_only_while_they_match(trained: Path) -> None:
    again = run_command(retrieve.main, "--filepath", trained / "parameters.yaml", "--recompute")
    assert "extracted" in again.stderr
    for path in (trained, trained / "parameters.yaml"):
        again = run_command(retrieve.main, "--filepath", path)
        assert "extracted" not in again.stderr
    values = yaml.safe_load((trained / "parameters.yaml").read_text())
    (trained / "parameters.yaml").write_text(yaml.safe_dump({**values, "fusion": "max"}))
    again = run_command(retrieve.main, "--filepath", trained / "parameters.yaml")
    assert "extracted" in again.stderr


@pytest.mark.slow
def test_retrieval_ends_with_the_report_unless_told_not_to(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("report.html"))
    command = (retrieve.main, "--filepath", copy / "parameters.yaml")
    report = copy / "report.html"
    assert "report:" not in run_command(*command, "--no-report").stdout
    assert not report.exists()
    first = run_command(*command).stdout
    assert f"report: {report}" in first
    assert "no learning-free baseline yet" in first
    assert "This run has no baseline" in report.read_text()
    run_command(*command, "--baseline", "band_statistics")
    assert "band mean and std" in report.read_text(), "a baseline measured later is missing beside the run"
    assert "no learning-free baseline yet" not in run_command(*command).stdout
    report.unlink()
    report.mkdir()  # where the page cannot be written, the results stand
    done = run_command(*command)
    assert "no report was written" in done.stderr
    assert "retrieved:" in done.stdout


@pytest.mark.slow
def test_sweep_trains_each_type_once_and_repeats_nothing(world: World, tmp_path: Path) -> None:
    group = f"sweep_{tmp_path.name}"
    base = world.write("base", logging_params={"save_dir": str(tmp_path / "logs"), "name": "base"})
    command = (
        "project/multi_train_retrieval.py", "--folder_name", group, "--loss_func", "contrastive",
        "--base", base, "--set", "top_k=4", "num_cpu=0", "fusion=[concat, max]",
    )  # fmt: skip
    try:
        first = run_script(*command)
        assert first.stderr.count("epoch 1/1:") == 2
        table = (tmp_path / "logs" / group / "sweep_contrastive_concat-max.csv").read_text().splitlines()
        assert len(table) == 1 + 2 * 2 * 7
        assert "Comparison of 4 runs" in (tmp_path / "logs" / group / "sweep_contrastive_concat-max.html").read_text()
        assert len(list((ROOT / "project/config").glob(f"{group}_*.yaml"))) == 4
        second = run_command(sweep.main, *command[1:])
        assert "epoch 1/1:" not in second.stderr
        assert "extracted" not in second.stderr
    finally:
        for path in (ROOT / "project/config").glob(f"{group}_*.yaml"):
            path.unlink()


@pytest.mark.slow
def test_start_epoch_resumes_or_is_refused(world: World) -> None:
    path = world.write("resumed", epochs=1, scheduler=False)
    run_command(train.main, "--filepath", path)
    world.write("resumed", epochs=2, scheduler=False, start_epoch=1)
    assert "resuming after epoch 1" in run_command(train.main, "--filepath", path).stderr
    world.write("resumed", epochs=9, scheduler=False, start_epoch=5)
    refused = run_command(train.main, "--filepath", path, code=2)
    assert "is at epoch 2, but start_epoch is 5" in refused.stderr


KILLED = """
import itertools, os, runpy, signal, sys
files, fatal, replace = itertools.count(1), int(sys.argv[1]), os.replace

def replace_or_die(*paths):
    if next(files) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)

os.replace = replace_or_die
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script that dies by SIGKILL when its n-th file is written whole and about to get its name."""


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(world: World) -> None:
    command = ("project/train.py", "--filepath", world.write("whole", epochs=3, seed=3))
    run_script(*command)
    command = ("project/train.py", "--filepath", world.write("killed", epochs=3, seed=3), "--resume")
    last = {run: world.run_folder(run) / "checkpoints_model_last.pth.tar" for run in ("whole", "killed")}
    # The first file is parameters.yaml; an epoch writes one checkpoint or two.
    run_script("-c", KILLED, 4, *command, code=-signal.SIGKILL)
    assert 0 < torch.load(last["killed"], weights_only=True)["epoch"] < 3, "the run was not killed halfway"
    run_script(*command)
    contents = {run: torch.load(path, weights_only=True) for run, path in last.items()}
    assert contents["killed"]["epoch"] == contents["whole"]["epoch"] == 3
    for name, tensor in contents["whole"]["state_dict"].items():
        assert torch.equal(tensor, contents["killed"]["state_dict"][name]), name


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in done.stderr
    return line


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"fusion": "mean", "epochs": 0}, ["fusion is 'mean'; choose one of", "epochs is 0"]),
        ({"tpye": "joint"}, ["tpye is not a key; did you mean type?"]),
        ({"n_features": 2048}, ["write 512"]),
        ({"train_csv": "/nowhere.csv"}, ["/nowhere.csv"]),
        ({"bigEarthPthLMDB_S1": "/nowhere.lmdb"}, ["/nowhere.lmdb"]),
        ({"device": "cuda:9"}, ["device is 'cuda:9'"]),
    ],
)
def test_a_mistake_in_the_yaml_is_one_line_and_code_2(world: World, keys: dict[str, object], words: list[str]) -> None:
    line = one_line(run_script("project/train.py", "--filepath", world.write("mistake", **keys), code=2))
    assert all(word in line for word in words), line
    assert not world.run_folder("mistake").exists()


def test_names_that_the_archive_lacks_are_counted_before_training(world: World) -> None:
    csv = world.folder / "wrong.csv"
    unknown = "S2A_MSIL2A_20990101T000000_1_1,S1A_IW_GRDH_1SDV_20990101T000000_33UUP_1_1\n"
    csv.write_text((world.folder / "all.csv").read_text() + unknown)
    line = one_line(run_script("project/train.py", "--filepath", world.write("lacks", train_csv=str(csv)), code=2))
    assert "1 of 7 Sentinel-2 patches" in line
    assert "S2A_MSIL2A_20990101T000000_1_1" in line


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_list_without_pairs_is_refused_by_name(world: World, trained: Path, split: str) -> None:
    empty = world.folder / "empty.csv"
    empty.write_text("")
    path = world.write("empty", **{f"{split}_csv": str(empty)})
    if split == "test":
        shutil.copytree(trained, world.run_folder("empty"), dirs_exist_ok=True)
    script = "project/retrieval.py" if split == "test" else "project/train.py"
    assert "empty.csv: this split list is empty" in one_line(run_script(script, "--filepath", path, code=2))


def test_a_trained_run_is_not_overwritten_unasked(world: World, trained: Path) -> None:
    before = (trained / "checkpoints_model_last.pth.tar").read_bytes()
    line = one_line(run_script("project/train.py", "--filepath", world.write("trained"), code=2))
    assert "--overwrite" in line
    assert (trained / "checkpoints_model_last.pth.tar").read_bytes() == before


@pytest.mark.slow
def test_signed_features_are_refused_by_chi2(world: World, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    values = yaml.safe_load((copy / "parameters.yaml").read_text())
    (copy / "parameters.yaml").write_text(yaml.safe_dump({**values, "distance": "chi2", "num_cpu": 0}))
    assert "chi2" in one_line(run_command(retrieve.main, "--filepath", copy / "parameters.yaml", code=2))


@pytest.mark.parametrize("script", ["project/train.py", "project/retrieval.py", "utils/utils.py"])
def test_a_missing_file_names_both_places(script: str) -> None:
    line = one_line(run_script(script, "--filepath", "nothing/here.yaml", code=2))
    assert str(ROOT / "nothing/here.yaml") in line
    assert str(ROOT / "project/nothing/here.yaml") in line


def test_filepath_is_found_from_project(world: World) -> None:
    line = one_line(run_script("project/train.py", "--filepath", "config/args.yaml", code=2))
    assert "data/" in line


@pytest.mark.slow
def test_utils_reads_without_torch_and_takes_folder_file_or_yaml(world: World, trained: Path) -> None:
    run_command(retrieve.main, "--filepath", trained / "parameters.yaml")
    outputs = {
        run_script("utils/utils.py", "--filepath", path).stdout
        for path in (trained, trained / "retrieval.h5", trained / "parameters.yaml")
    }
    assert len(outputs) == 1
    code = (
        "import sys; sys.argv = ['utils.py', '--filepath', sys.argv[1]]; sys.path.insert(0, 'src');"
        "from bigearthnet_cbir.cli.show import main; main(); assert not {'torch', 'ray', 'numba'} & set(sys.modules)"
    )
    run_script("-c", code, trained)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top", "0"], "--top is 0"),
        (["--keys", "mAP"], "--keys mAP: not in this file; choose from"),
    ],
)
def test_mistakes_of_utils_are_one_line(trained: Path, words: list[str], message: str) -> None:
    run_command(retrieve.main, "--filepath", trained / "parameters.yaml")
    assert message in one_line(run_command(show.main, "--filepath", trained, *words, code=2))
