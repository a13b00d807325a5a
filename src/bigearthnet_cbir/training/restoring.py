"""Optimiser and schedule from a checkpoint: refused if a value has another type than in a new run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, optim


def restore_optimizer(optimizer: optim.Optimizer, state: Any) -> None:
    """Load the optimiser state of a checkpoint.

    Args:
        optimizer: optimiser of a new run with the same weights.
        state: state_dict of such an optimiser.

    Raises:
        ValueError, TypeError, LookupError, RuntimeError: the state is damaged, or of other weights.
    """
    own = optimizer.state_dict()["param_groups"]
    check_alike(own, state["param_groups"])
    optimizer.load_state_dict(state)
    for before, group in zip(own, optimizer.param_groups, strict=True):
        if before.keys() - group.keys():
            raise KeyError(min(before.keys() - group.keys()))
    for weight, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != weight.shape:
                raise ValueError(f"{name} has another shape than its weight")
            check_alike(None if value is None else torch.zeros(()), value)


def restore_schedule(schedule: optim.lr_scheduler.OneCycleLR, state: Any) -> None:
    """Load the schedule state of a checkpoint; entries unknown to this PyTorch version are ignored.

    Raises:
        ValueError, TypeError, LookupError: the state is damaged, or beyond the schedule's end.
    """
    own = schedule.state_dict()
    check_alike(own, state)
    if not 0 <= state["last_epoch"] <= state["total_steps"]:
        raise ValueError("its schedule is beyond its end")
    schedule.load_state_dict({name: state[name] for name in own if name in state})


def check_alike(own: Any, given: Any) -> None:
    """Raise ValueError if a value differs from the expected one in type or length, or is not finite."""
    if isinstance(own, Mapping) and isinstance(given, Mapping):
        for name in own.keys() & given.keys():
            check_alike(own[name], given[name])
    elif isinstance(own, list | tuple) and isinstance(given, list | tuple) and len(own) == len(given):
        for one, other in zip(own, given, strict=True):
            check_alike(one, other)
    elif not _is_alike(own, given):
        raise ValueError(f"a value is {type(given).__name__}, where {type(own).__name__} is expected")


def _is_alike(own: Any, given: Any) -> bool:
    if isinstance(own, Tensor):
        number = isinstance(given, int | float) and math.isfinite(given)
        return number or (isinstance(given, Tensor) and bool(torch.isfinite(given).all()))
    if own is None or isinstance(own, bool):
        return given is None or isinstance(given, bool | int | float)
    if isinstance(own, int | float):
        return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
    return isinstance(own, str) and isinstance(given, str)
