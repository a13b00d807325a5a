"""Resumed runs that take a new value of a setting, asked for by name."""

from pathlib import Path

import pytest
import torch
from tests.training.test_engine import EPOCHS, SmallEncoder, loaders

from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.errors import CheckpointError, TrainingError
from bigearthnet_cbir.losses.ntxent import NTXentLoss
from bigearthnet_cbir.training.checkpoints import load_checkpoint
from bigearthnet_cbir.training.engine import Trainer
from bigearthnet_cbir.training.fit import fit
from bigearthnet_cbir.training.objectives import ContrastiveObjective
from bigearthnet_cbir.training.optimizers import build_optimizer, one_cycle
from bigearthnet_cbir.training.resuming import changes_of

STEPS = 2
BASE = {"learning_rate": 1e-3, "temperature": 0.1, "precision": "fp32", "clip_norm": 0.0, "epochs": EPOCHS}


def new_trainer(optimizer: str = "adamw", *, schedule: bool = True, learned: bool = False, **changed: float) -> Trainer:
    values = {**BASE, **changed}
    torch.manual_seed(1)
    model, objective = SmallEncoder(), ContrastiveObjective(NTXentLoss(values["temperature"], learned))
    rate = values["learning_rate"]
    updates = build_optimizer(optimizer, [*model.parameters(), *objective.parameters()], rate, 1e-4)
    planned = one_cycle(updates, rate, values["epochs"] * STEPS) if schedule else None
    return Trainer(
        model, objective, updates, planned, BatchTransform(), None, torch.float32, 3, values,
        clip_norm=values["clip_norm"],
    )  # fmt: skip


def run_to(trainer: Trainer, epochs: int, folder: Path) -> list[float]:
    """Train up to so many epochs, and return the rate of every step."""
    rates: list[float] = []
    hook = trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    fit(trainer, *loaders(), epochs, folder / "best", folder / "last", lambda *_: None)
    hook.remove()
    return rates


@pytest.fixture(scope="module", params=["adamw", "sgd"])
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A run with the schedule that stopped after its first epoch."""
    folder = tmp_path_factory.mktemp(request.param)
    run_to(new_trainer(request.param), 1, folder)
    return request.param, folder


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"learning_rate": 1e-4}, {"epochs": 5}, {"learning_rate": 4e-3, "epochs": 4}])
def test_the_schedule_is_laid_anew_and_goes_on_at_its_step(
    stopped: tuple[str, Path], changed: dict[str, float], tmp_path: Path
) -> None:
    optimizer, folder = stopped
    resumed = new_trainer(optimizer, **changed)
    told = resumed.restore(load_checkpoint(folder / "last"), folder / "last", changed.keys())
    assert told == [{"epoch": 1, "key": key, "from": BASE[key], "to": changed[key]} for key in BASE if key in changed]
    epochs = int(changed.get("epochs", EPOCHS))
    rates = run_to(resumed, epochs, tmp_path)
    whole = run_to(new_trainer(optimizer, **changed), epochs, tmp_path)
    assert rates == pytest.approx(whole[STEPS:], rel=1e-12)
    assert load_checkpoint(tmp_path / "last")["epoch"] == epochs


def test_a_constant_rate_takes_the_new_value(tmp_path: Path) -> None:
    run_to(new_trainer(schedule=False), 1, tmp_path)
    resumed = new_trainer(schedule=False, learning_rate=2e-4)
    resumed.restore(load_checkpoint(tmp_path / "last"), tmp_path / "last", ["learning_rate"])
    assert run_to(resumed, 2, tmp_path) == [2e-4] * STEPS


@pytest.mark.parametrize("learned", [True, False])
def test_a_changed_temperature_is_that_of_the_loss(learned: bool, tmp_path: Path) -> None:
    run_to(new_trainer(learned=learned), 1, tmp_path)
    resumed = new_trainer(learned=learned, temperature=0.5)
    resumed.restore(load_checkpoint(tmp_path / "last"), tmp_path / "last", ["temperature"])
    assert float(torch.as_tensor(resumed.objective.loss.temperature()).detach()) == pytest.approx(0.5)


def test_changes_are_recorded_and_kept_through_a_second_interruption(stopped: tuple[str, Path], tmp_path: Path) -> None:
    optimizer, folder = stopped
    whole = new_trainer(optimizer, learning_rate=1e-4)
    whole.restore(load_checkpoint(folder / "last"), folder / "last", ["learning_rate"])
    run_to(whole, 2, tmp_path)
    record = [{"epoch": 1, "key": "learning_rate", "from": 1e-3, "to": 1e-4}]
    assert load_checkpoint(tmp_path / "last")["changes"] == record
    again = new_trainer(optimizer, learning_rate=1e-4)
    assert again.restore(load_checkpoint(tmp_path / "last"), tmp_path / "last") == []
    run_to(whole, EPOCHS, tmp_path)
    run_to(again, EPOCHS, tmp_path)
    assert load_checkpoint(tmp_path / "last")["changes"] == record
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_a_change_that_nobody_asked_for_is_refused_with_the_command(stopped: tuple[str, Path]) -> None:
    optimizer, folder = stopped
    other = new_trainer(optimizer, learning_rate=1e-4, clip_norm=1.0)
    with pytest.raises(CheckpointError) as caught:
        other.restore(load_checkpoint(folder / "last"), folder / "last", ["clip_norm"])
    assert "learning_rate was 0.001, is 0.0001" in str(caught.value)
    assert "train.py --resume --change learning_rate=0.0001" in str(caught.value)
    assert "clip_norm" not in str(caught.value)


def test_a_checkpoint_from_before_a_setting_was_recorded_can_be_resumed(
    stopped: tuple[str, Path], tmp_path: Path
) -> None:
    optimizer, folder = stopped
    content = load_checkpoint(folder / "last")
    del content["changes"], content["identity"]["precision"]
    assert new_trainer(optimizer).restore(content, folder / "last") == []


def test_a_record_of_changes_that_is_damaged_is_left_out() -> None:
    whole = {"epoch": 1, "key": "epochs", "from": 1, "to": 2}
    assert changes_of({"changes": [whole, 3, {}, {**whole, "epoch": "x"}]}) == [whole]
    assert changes_of({"changes": None}) == changes_of({}) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"identity": 3}, "it lacks identity"),
        ({"epoch": "one"}, "it lacks epoch"),
        ({"rng": torch.zeros(3)}, "damaged, cannot resume"),
        ({"optimizer": {}}, "damaged, cannot resume"),
        ({"optimizer": {"state": {}, "param_groups": [{"params": [1, 2]}]}}, "damaged, cannot resume"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(stopped: tuple[str, Path], damage: dict[str, object], words: str) -> None:
    optimizer, folder = stopped
    content = {**load_checkpoint(folder / "last"), **damage}
    with pytest.raises(CheckpointError, match=words):
        new_trainer(optimizer).restore(content, folder / "last")


def test_after_a_loss_that_is_not_finite_the_advice_is_a_command_that_works(tmp_path: Path) -> None:
    def broken(trainer: Trainer) -> Trainer:
        with torch.no_grad():
            trainer.model.s1[0].weight.fill_(float("nan"))
        return trainer

    with pytest.raises(TrainingError, match="there is no checkpoint yet: lower learning_rate"):
        run_to(broken(new_trainer()), 1, tmp_path)
    run_to(new_trainer(), 1, tmp_path)
    begun = new_trainer()
    begun.restore(load_checkpoint(tmp_path / "last"), tmp_path / "last")
    with pytest.raises(TrainingError, match=r"epoch 1 is kept.*--resume --change learning_rate=0.0001"):
        run_to(broken(begun), 2, tmp_path)
    advised = new_trainer(learning_rate=1e-4)
    advised.restore(load_checkpoint(tmp_path / "last"), tmp_path / "last", ["learning_rate"])
    run_to(advised, 2, tmp_path)
