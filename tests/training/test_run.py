"""The training command on six real pairs, in this process: what it refuses, replaces, resumes and changes."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import h5py
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tests.conftest import Archive

from bigearthnet_cbir.cli import export, retrieve, train
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines import export as exporting
from bigearthnet_cbir.pipelines import train as training
from bigearthnet_cbir.pipelines import training_checks
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.training.checkpoints import load_checkpoint, save_checkpoint
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.grad_cache import GradientCache

pytestmark = pytest.mark.slow

TRAINED: dict[str, bytes] = {}
"""Files of a run of one epoch."""


class Bench:
    """A YAML file for six pairs that a test can edit, and the commands on it."""

    def __init__(self, folder: Path, archive: Archive, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.path = folder / "args.yaml"
        table = f"{archive.parquet}:train"
        self.keys: dict[str, Any] = {
            **dict.fromkeys(("train_csv", "val_csv", "test_csv"), table),
            **dict.fromkeys(("bigEarthPthLMDB_S2", "bigEarthPthLMDB_S1"), str(archive.s2)),
            "backbone": "resnet10", "projection_dim": 4, "out_channels": 4, "batch_size": 3, "epochs": 1,
            "window": 32, "scheduler": False, "num_workers": 0, "device": "cpu", "precision": "fp32", "top_k": 2,
            "name": "group", "logging_params": {"save_dir": str(folder / "logs"), "name": "run"},
        }  # fmt: skip
        self.run = RunFolder(folder / "logs" / "group" / "run")

    def write(self, **keys: Any) -> Path:
        self.path.write_text(yaml.safe_dump({**self.keys, **keys}))
        return self.path

    def trained(self) -> None:
        """Put a run of one epoch in place; the first test that wants one trains it."""
        if not TRAINED:
            self.train()
            TRAINED.update({item.name: item.read_bytes() for item in self.run.root.iterdir() if item.is_file()})
        self.run.root.mkdir(parents=True, exist_ok=True)
        for name, content in TRAINED.items():
            (self.run.root / name).write_bytes(content)
        self.run.parameters.write_text(yaml.safe_dump(self.keys))

    def train(self, *words: str, code: int = 0, **keys: Any) -> str:
        """Run train.py with some keys of the YAML file replaced, and return what it told on stderr."""
        return self._tell(train.main(["--filepath", str(self.write(**keys)), *words]), code)

    def retrieve(self, *words: str, code: int = 0, path: Path | None = None) -> str:
        file = str(path or self.run.parameters)
        return self._tell(retrieve.main(["--filepath", file, "--no-report", *words]), code)

    def export(self, *words: str, code: int = 0, path: Path | None = None) -> str:
        return self._tell(export.main(["--filepath", str(path or self.run.parameters), *words]), code)

    def _tell(self, found: int, code: int) -> str:
        told = self.capsys.readouterr().err
        assert found == code, told
        if code == 2:
            lines = [line for line in told.splitlines() if line.startswith("error:")]
            assert len(lines) == 1, told
            assert "Traceback" not in told
        return told

    def epoch(self) -> int:
        return int(load_checkpoint(self.run.last)["epoch"])


@pytest.fixture
def bench(tmp_path: Path, archives: dict[str, Archive], capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, archives["rico"], capsys)


def nan_loss(trainer: Trainer, *_: object) -> float:
    trainer._check_finite([torch.tensor(float("nan"))], 0)
    return 0.0


def test_overwrite_leaves_nothing_of_the_old_network_to_be_scored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.trained()
    bench.retrieve()
    bench.retrieve("--baseline", "band_statistics")
    for made in (".retrieval.h5.rows", "export", "figures"):
        (bench.run.root / made).mkdir()
    (bench.run.root / "notes.txt").write_text("the user's own")
    monkeypatch.setattr(Trainer, "train_epoch", nan_loss)
    assert "there is no checkpoint yet" in bench.train("--overwrite", code=2, learning_rate=0.5)
    left = {item.name for item in bench.run.root.iterdir()}
    assert left == {"parameters.yaml", "notes.txt", "training", ".lock"}
    assert yaml.safe_load(bench.run.parameters.read_text())["learning_rate"] == 0.5
    assert "there is no such file; train first" in bench.retrieve(code=2)


def test_overwrite_with_a_mistake_in_the_lists_keeps_the_old_run(bench: Bench) -> None:
    bench.trained()
    before = bench.run.best.read_bytes()
    bench.train("--overwrite", code=2, train_csv="/nowhere.csv")
    assert bench.run.best.read_bytes() == before


@pytest.mark.parametrize("left", ["best", "last"])
def test_a_checkpoint_of_either_kind_is_not_replaced_unasked(bench: Bench, left: str) -> None:
    bench.trained()
    (bench.run.last if left == "best" else bench.run.best).unlink()
    kept = getattr(bench.run, left)
    before = kept.read_bytes()
    assert "already has a trained run; use --resume" in bench.train(code=2)
    assert kept.read_bytes() == before


def test_a_run_killed_between_its_two_checkpoints_goes_on_from_the_best(bench: Bench) -> None:
    bench.trained()
    bench.run.last.unlink()
    assert "resuming after epoch 1" in caplog_text(bench, "--resume", epochs=2)
    assert bench.epoch() == 2


def caplog_text(bench: Bench, *words: str, **keys: Any) -> str:
    """Return the log of a training, which a handler on its logger collects."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("bigearthnet_cbir")
    logger.addHandler(handler)
    try:
        bench.train(*words, **keys)
    finally:
        logger.removeHandler(handler)
    return "\n".join(lines)


def test_a_best_checkpoint_ahead_of_the_last_is_where_the_run_stands(bench: Bench) -> None:
    bench.trained()
    behind = bench.run.last.read_bytes()
    bench.train("--resume", epochs=2)
    ahead = load_checkpoint(bench.run.last)
    save_checkpoint(bench.run.best, ahead)
    bench.run.last.write_bytes(behind)
    bench.train("--resume", epochs=3)
    assert bench.epoch() == 3


def test_a_retrieval_with_other_settings_is_refused_with_both_values(bench: Bench) -> None:
    bench.trained()
    values = yaml.safe_load(bench.run.parameters.read_text())
    edited = bench.folder / "edited.yaml"
    edited.write_text(yaml.safe_dump({**values, "temperature": 0.5, "seed": 7, "learning_rate": 0.25}))
    line = bench.retrieve(code=2, path=edited)
    for words in ("temperature was 0.1, is 0.5", "seed was 42, is 7", "learning_rate was 0.001, is 0.25"):
        assert words in line
    assert "--allow-different" in line
    assert not bench.run.query.exists()
    assert "seed was 42, is 7" in bench.export(code=2, path=edited)
    assert "seed was 42, is 7" in bench.retrieve("--baseline", "untrained", code=2, path=edited)


def test_what_a_retrieval_chooses_for_itself_is_no_difference(bench: Bench) -> None:
    bench.trained()
    values = yaml.safe_load(bench.run.parameters.read_text())
    own = {
        "fusion": "max", "distance": "euclidean", "feature": "backbone", "protocol": "original", "top_k": 1,
        "precision": "auto", "num_workers": 1, "query_split": "train", "state_dict": str(bench.run.best),
    }  # fmt: skip
    bench.run.parameters.write_text(yaml.safe_dump({**values, **own}))
    bench.retrieve()


def test_allowed_differences_are_recorded_in_features_results_and_export(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "write_onnx", lambda *_: None)
    bench.trained()
    bench.retrieve()
    values = yaml.safe_load(bench.run.parameters.read_text())
    bench.run.parameters.write_text(yaml.safe_dump({**values, "temperature": 0.5}))
    bench.retrieve("--allow-different")
    for path in (bench.run.query, bench.run.archive, bench.run.retrieval):
        with h5py.File(path) as file:
            assert json.loads(file.attrs["different_settings"]) == {"temperature": [0.1, 0.5]}
    bench.export("--allow-different")
    told = json.loads((bench.run.root / "export" / "encoder.json").read_text())
    assert told["different_settings"] == {"temperature": [0.1, 0.5]}
    bench.run.parameters.write_text(yaml.safe_dump(values))
    bench.retrieve()
    with h5py.File(bench.run.retrieval) as file:
        assert "different_settings" not in file.attrs


def test_other_training_pairs_are_a_difference(bench: Bench) -> None:
    bench.trained()
    values = yaml.safe_load(bench.run.parameters.read_text())
    other = {**values, "train_csv": values["train_csv"].replace(":train", ":test")}
    bench.run.parameters.write_text(yaml.safe_dump(other))
    assert "train_csv was 'other pairs'" in bench.retrieve(code=2)
    bench.run.parameters.write_text(yaml.safe_dump({**values, "train_csv": "/not/here.csv"}))
    bench.retrieve()


def test_a_checkpoint_that_tells_no_settings_is_taken_as_it_is(bench: Bench) -> None:
    bench.trained()
    content = load_checkpoint(bench.run.best)
    del content["identity"]
    save_checkpoint(bench.run.best, content)
    values = yaml.safe_load(bench.run.parameters.read_text())
    bench.run.parameters.write_text(yaml.safe_dump({**values, "temperature": 0.5}))
    bench.retrieve()


def test_a_change_asked_for_by_name_is_applied_recorded_and_written(bench: Bench) -> None:
    bench.trained()
    assert "--resume --change learning_rate=0.0001" in bench.train("--resume", code=2, epochs=3, learning_rate=1e-4)
    bench.train("--resume", "--change", "learning_rate=1e-4", "--change", "epochs=2", "clip_norm=1")
    record = [
        {"epoch": 1, "key": "clip_norm", "from": 0.0, "to": 1.0},
        {"epoch": 1, "key": "learning_rate", "from": 1e-3, "to": 1e-4},
    ]
    last = load_checkpoint(bench.run.last)
    assert sorted(last["changes"], key=lambda change: change["key"]) == record
    assert last["optimizer"]["param_groups"][0]["lr"] == 1e-4
    assert yaml.safe_load(bench.run.parameters.read_text())["learning_rate"] == 1e-4
    assert bench.epoch() == 2


def test_a_best_checkpoint_from_before_a_change_is_still_that_of_parameters_yaml(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.trained()
    monkeypatch.setattr(Trainer, "train_epoch", nan_loss)
    bench.train("--resume", "--change", "learning_rate=1e-4", code=2, epochs=2)
    assert load_checkpoint(bench.run.best)["identity"]["learning_rate"] == 1e-3
    bench.retrieve()
    values = yaml.safe_load(bench.run.parameters.read_text())
    bench.run.parameters.write_text(yaml.safe_dump({**values, "learning_rate": 1e-5}))
    assert "learning_rate was 0.001, is 1e-05" in bench.retrieve(code=2)


def test_the_advice_after_a_loss_that_is_not_finite_works_as_it_stands(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.train(scheduler=True, epochs=1)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_epoch", nan_loss)
        told = bench.train("--resume", "--change", "epochs=2", code=2, scheduler=True)
    command = told.split("train.py ")[1].split(",")[0].split()
    assert command == ["--resume", "--change", "learning_rate=0.0001"]
    bench.train(*command, scheduler=True, epochs=2)
    assert bench.epoch() == 2
    assert load_checkpoint(bench.run.last)["identity"]["learning_rate"] == 1e-4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--change", "learning_rate=1"], "needs --resume"),
        (["--resume", "--change", "seed=3"], "setting of a run is fixed"),
        (["--resume", "--change", "sed=3"], "sed is not a key"),
        (["--resume", "--change", "epochs"], "give KEY=VALUE"),
        (["--resume", "--change", "epochs=3", "--change", "epochs=4"], "--change epochs is given twice (3 and 4)"),
        (["--resume", "--change", "learning_rate=fast"], "learning_rate is 'fast'; give a number > 0"),
    ],
)
def test_mistaken_changes_are_one_line(bench: Bench, words: list[str], message: str) -> None:
    assert message in bench.train(*words, code=2)
    assert not bench.run.root.exists()


def test_resuming_with_fewer_epochs_than_done_is_refused(bench: Bench) -> None:
    bench.trained()
    bench.train("--resume", epochs=2)
    before = bench.run.parameters.read_text()
    assert "is at epoch 2, beyond epochs, which is 1; write epochs: 2 or more" in bench.train("--resume", code=2)
    assert bench.run.parameters.read_text() == before
    assert "already at epoch 2: nothing to train" in caplog_text(bench, "--resume", epochs=2)


def test_the_advice_for_start_epoch_can_be_followed(bench: Bench) -> None:
    assert "write start_epoch: 0" in bench.train(code=2, start_epoch=1, epochs=3)
    bench.trained()
    told = bench.train(code=2, start_epoch=2, epochs=3)
    assert "is at epoch 1, but start_epoch is 2; write start_epoch: 1, or start_epoch: 0 and use --resume" in told
    bench.train(start_epoch=1, epochs=2)
    bench.train("--resume", start_epoch=0, epochs=3)
    told = bench.train(code=2, start_epoch=1, epochs=3)
    assert "its 3 epochs are finished: write start_epoch: 0, and more epochs" in told
    bench.train("--resume", start_epoch=0, epochs=4)
    assert bench.epoch() == 4
    assert "give one only" in bench.train("--overwrite", code=2, start_epoch=4, epochs=5)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_contrastive_list_of_one_pair_is_refused(bench: Bench, split: str) -> None:
    one = bench.keys["train_csv"].replace(":train", ":validation")
    keys = {f"{split}_csv": one}
    assert "has 1 pairs; the contrastive loss of one pair is always 0" in bench.train(code=2, **keys)
    if split == "val":
        bench.train(loss_func="classification", **keys)


def test_more_accumulated_batches_than_an_epoch_has_are_refused(bench: Bench) -> None:
    assert "accumulate_steps is 2, but an epoch has 1 batches" in bench.train(code=2, accumulate_steps=2)


def test_a_batch_that_is_not_made_of_whole_micro_batches_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = bench.train(code=2, batch_size=8, micro_batch_size=4)  # the list has fewer pairs than a batch
    assert "micro_batch_size is 4; give a multiple of the 1 training processes that divides the 3 pairs" in told
    monkeypatch.setattr(training_checks, "world_size", lambda: 4)
    with pytest.raises(ConfigError, match="micro_batch_size is 2; give a multiple of the 4 training processes"):
        training_checks.check_micro_batches(load_config(bench.write(batch_size=8, micro_batch_size=2)), 2)


def test_micro_batches_are_those_of_the_yaml_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    carry = GradientCache._carry
    monkeypatch.setattr(GradientCache, "_carry", lambda *words: (sizes.append(len(words[1][0])), carry(*words)))
    pairs = pq.read_table(bench.keys["train_csv"].removesuffix(":train"), columns=["patch_id", "s1_name"]).to_pylist()
    listed = bench.folder / "all.csv"
    listed.write_text("".join(f"{pair['patch_id']},{pair['s1_name']}\n" for pair in pairs))
    bench.train(train_csv=str(listed), batch_size=6, micro_batch_size=2)
    assert sizes == [2, 2, 2]
    assert load_checkpoint(bench.run.last)["identity"]["micro_batch_size"] == 2
    assert "micro_batch_size was 2, is 3" in bench.train(
        "--resume", code=2, train_csv=str(listed), batch_size=6, micro_batch_size=3
    )


def test_a_save_dir_that_cannot_be_written_is_one_line_before_training(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = bench.folder / "a_file"
    file.write_text("")
    begun: list[object] = []
    monkeypatch.setattr(training, "fit", lambda *words: begun.append(words))
    params = {"save_dir": str(file / "logs"), "name": "run"}
    assert "logging_params.save_dir is" in bench.train(code=2, logging_params=params)
    bench.run.root.mkdir(parents=True)
    (bench.run.root / ".lock").mkdir()
    assert "cannot be written (Is a directory)" in bench.train(code=2)
    assert not begun


def test_a_run_folder_in_use_is_one_line(bench: Bench) -> None:
    bench.run.root.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        with folder_lock(bench.run.root, "retrieval"):
            (bench.folder / "held").touch()
            while not (bench.folder / "end").exists():
                time.sleep(0.01)
        os._exit(0)
    while not (bench.folder / "held").exists():
        time.sleep(0.01)
    told = bench.train(code=2)
    (bench.folder / "end").touch()
    os.waitpid(child, 0)
    assert f"in use by retrieval (process {child}" in told


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_memory_that_does_not_suffice_is_one_line(
    bench: Bench, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> float:
        raise error

    monkeypatch.setattr(Trainer, "train_epoch", fail)
    assert "is not sufficient for batch_size 3; lower batch_size" in bench.train(code=2)
