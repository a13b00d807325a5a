"""What a sweep plans, refuses and names; the whole of it runs in tests/test_scripts.py."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Archive

from bigearthnet_cbir.cli import sweep
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.models.fusion import FUSIONS
from bigearthnet_cbir.pipelines.sweep import plan_sweep, run_sweep, table_name

BASE: dict[str, Any] = {
    **dict.fromkeys(("train_csv", "val_csv", "test_csv", "bigEarthPthLMDB_S2", "bigEarthPthLMDB_S1"), "x"),
    "type": "separate", "fusion": "max", "name": "other", "logging_params": {"name": "single", "save_dir": "out"},
}  # fmt: skip


def plan(root: Path, loss: str = "contrastive", base: dict[str, Any] | None = None, **chosen: Any) -> list[Any]:
    return plan_sweep({**BASE, **(base or {})}, "group", loss, root, chosen)


def cells(runs: list[Any]) -> list[tuple[str, str]]:
    return [(run.config.type, run.config.fusion) for run in runs]


def test_type_and_fusion_of_the_base_are_those_of_one_run_and_restrict_nothing(tmp_path: Path) -> None:
    runs = plan(tmp_path)
    assert len(set(cells(runs))) == 8
    assert table_name(runs) == "sweep_contrastive.csv"
    assert {run.config.run_folder.parent for run in runs} == {tmp_path / "out" / "group"}


@pytest.mark.parametrize(
    ("chosen", "expected", "table"),
    [
        ({"type": "joint"}, [("joint", fusion) for fusion in FUSIONS], "sweep_contrastive_joint.csv"),
        ({"fusion": "MAX"}, [("joint", "max"), ("separate", "max")], "sweep_contrastive_max.csv"),
        ({"type": "joint", "fusion": ["sum", "avg"]}, [("joint", "avg"), ("joint", "sum")],
         "sweep_contrastive_joint_avg-sum.csv"),
    ],
)  # fmt: skip
def test_a_swept_key_that_is_set_restricts_the_grid(
    chosen: dict[str, Any], expected: list[tuple[str, str]], table: str, tmp_path: Path
) -> None:
    runs = plan(tmp_path, **chosen)
    assert cells(runs) == expected
    assert table_name(runs) == table


def test_a_part_of_the_grid_uses_the_trainings_of_the_whole(tmp_path: Path) -> None:
    whole = {run.config.logging_params.name: run for run in plan(tmp_path)}
    for run in plan(tmp_path, fusion="sum"):
        assert run == whole[run.config.logging_params.name]
        assert run.trained_by.fusion == "concat"
    for run in plan(tmp_path, "classification", fusion="sum"):
        assert run.trained_by == run.config


@pytest.mark.parametrize(
    ("base", "chosen", "words"),
    [
        ({"state_dict": "x.pth"}, {}, "state_dict is 'x.pth'; a sweep trains its networks"),
        ({}, {"state_dict": "x.pth"}, "state_dict is 'x.pth'; a sweep trains its networks"),
        ({"code": "learned"}, {"distance": "Hamming"}, "a sweep trains no hash heads"),
        ({}, {"type": "both"}, "--set type='both': choose one of joint, separate"),
        ({}, {"fusion": []}, "selects no runs"),
        ({}, {"loss_func": "classification"}, "--loss_func is contrastive"),
        ({}, {"name": "mine"}, "use --folder_name for the name"),
        ({}, {"logging_params": {"name": "mine"}}, "give save_dir only"),
        ({"logging_params": "logs"}, {}, "logging_params is 'logs'"),
        ({}, {"epochs": 0}, "epochs is 0"),
        ({"init_weights_s1": "x"}, {}, "init_weights_s1 is for the separate type"),
    ],
)
def test_what_contradicts_a_sweep_is_refused(
    base: dict[str, Any], chosen: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(tmp_path, "contrastive", base, **chosen)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_base_without_a_state_dict_and_one_that_says_so_are_taken(tmp_path: Path) -> None:
    assert len(plan(tmp_path, "contrastive", {"state_dict": None}, state_dict=None)) == 8
    assert len(plan(tmp_path, "contrastive", {"init_weights_s1": "x"}, type="separate")) == 4


def test_a_full_disk_in_one_cell_is_one_line_and_does_not_stop_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train(_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    _, failed = run_sweep(plan(tmp_path, "classification"), tmp_path, train, train)  # type: ignore[arg-type]
    assert len(failed) == 8
    assert "Traceback" not in caplog.text


class Config:
    """Nothing beside the base file."""


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train_csv", "/nowhere.csv", "/nowhere.csv: there is no such split list"),
        ("test_csv", "/nowhere.csv", "/nowhere.csv: there is no such split list"),
        ("bigEarthPthLMDB_S1", "/nowhere.lmdb", "/nowhere.lmdb"),
        ("init_weights", "/nowhere.pth", "/nowhere.pth"),
        ("device", "cuda:9", "device is 'cuda:9'"),
        ("logging_params", {"save_dir": "/dev/null/logs"}, "save_dir is /dev/null/logs"),
    ],
)
def test_a_base_that_no_run_could_use_ends_the_sweep_once(
    key: str, value: object, words: str, archives: dict[str, Archive], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    archive = archives["rico"]
    table = dict.fromkeys(("train_csv", "val_csv", "test_csv"), f"{archive.parquet}:train")
    stores = dict.fromkeys(("bigEarthPthLMDB_S2", "bigEarthPthLMDB_S1"), str(archive.s2))
    own = {"backbone": "resnet10", "device": "cpu", "num_workers": 0, "logging_params": {"save_dir": str(tmp_path)}}
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump({**table, **stores, **own, key: value}))
    words_given = ["--folder_name", f"g_{tmp_path.name}", "--loss_func", "contrastive", "--base", str(base)]
    assert sweep.main(Config, words_given) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("error:") == 1
    assert "failed" not in caplog.text
    assert not list(tmp_path.glob("g_*/*")), "a run was begun"
