"""What a checkpoint holds for the optimiser and the schedule is compared with that of a new run before it is taken."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.training.checkpoints import load_checkpoint
from bigearthnet_cbir.training.optimizers import build_optimizer, one_cycle
from bigearthnet_cbir.training.restoring import restore_optimizer, restore_schedule


def trained(name: str = "adam"):
    """An optimiser after three steps, and its schedule."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = build_optimizer(name, network.parameters(), 0.01, 1e-4)
    schedule = one_cycle(optimizer, 0.01, 10)
    for _ in range(3):
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        schedule.step()
    return optimizer, schedule


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_what_a_run_saved_is_taken_whole(name):
    optimizer, schedule = trained(name)
    other, other_schedule = trained(name)
    for group in other.param_groups:
        group["lr"] = 9.0
    restore_optimizer(other, copy.deepcopy(optimizer.state_dict()))
    restore_schedule(other_schedule, copy.deepcopy(schedule.state_dict()))
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert other_schedule.state_dict() == schedule.state_dict()
    for one, two in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(two[key])) for key in one)


def _set(state, *path):
    *way, last, value = path
    for key in way:
        state = state[key]
    state[last] = value


@pytest.mark.parametrize(
    "path",
    [
        ("param_groups", 0, "lr", "fast"),
        ("param_groups", 0, "lr", math.nan),
        ("param_groups", 0, "lr", [0.1]),
        ("param_groups", 0, "betas", (0.9,)),
        ("param_groups", 0, "params", [0]),
        ("param_groups", []),
        ("state", 0, "exp_avg", torch.ones(7)),
        ("state", 0, "exp_avg", torch.full((2, 3), math.nan)),
        ("state", 0, "step", "three"),
    ],
    ids=lambda path: f"{path[-2]}: {path[-1]!r:.20}",
)
def test_damaged_optimiser_is_refused(path):
    optimizer, _ = trained()
    state = copy.deepcopy(optimizer.state_dict())
    _set(state, *path)
    with pytest.raises((ValueError, TypeError, LookupError, RuntimeError)):
        restore_optimizer(trained()[0], state)


def test_learning_rate_that_is_missing_is_refused():
    state = copy.deepcopy(trained()[0].state_dict())
    del state["param_groups"][0]["lr"]
    with pytest.raises(KeyError, match="lr"):
        restore_optimizer(trained()[0], state)


@pytest.mark.parametrize(
    ("key", "value"),
    [("last_epoch", 11), ("last_epoch", -4), ("total_steps", None), ("base_lrs", []), ("_last_lr", [math.inf])],
)
def test_damaged_schedule_is_refused(key, value):
    state = {**trained()[1].state_dict(), key: value}
    with pytest.raises((ValueError, TypeError, LookupError)):
        restore_schedule(trained()[1], state)


def test_a_checkpoint_cannot_replace_the_methods_of_a_schedule():
    """PyTorch takes any name that a state has, also that of a function which is called at the next step."""
    schedule = trained()[1]
    restore_schedule(schedule, {**schedule.state_dict(), "step": 3, "get_lr": None})
    schedule.step()


@pytest.mark.parametrize("identity", [3, {"seed": torch.ones(2)}, {"type": ["joint"]}], ids=str)
def test_settings_of_a_checkpoint_that_are_no_plain_values_are_refused(tmp_path, identity):
    torch.save({"state_dict": {}, "identity": identity}, tmp_path / "last.pth.tar")
    with pytest.raises(CheckpointError, match="its settings are damaged"):
        load_checkpoint(tmp_path / "last.pth.tar")
