"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from torch import nn, optim

SGD_MOMENTUM = 0.9
OPTIMIZERS = ("sgd", "adam", "adamw")


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> optim.Optimizer:
    """Return sgd (momentum 0.9), adam or adamw, each as one fused kernel over all weights.

    Raises:
        ValueError: the name is unknown.
    """
    parameters = list(parameters)
    if name == "sgd":
        return optim.SGD(parameters, lr=learning_rate, momentum=SGD_MOMENTUM, weight_decay=weight_decay, fused=True)
    if name == "adam":
        return optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    raise ValueError(f"optimizer is {name!r}; choose one of {', '.join(OPTIMIZERS)}")


def one_cycle(
    optimizer: optim.Optimizer, peak: float, total_steps: int, steps_done: int = 0
) -> optim.lr_scheduler.OneCycleLR:
    """Return the one-cycle schedule over a whole run (Smith and Topin 2018, https://arxiv.org/abs/1708.07120).

    Args:
        optimizer: its rate is set; with steps_done > 0, an optimiser that already had such a schedule.
        peak: highest learning rate, reached after 30 % of the steps.
        total_steps: optimiser steps of the whole run.
        steps_done: completed optimiser steps, from which the schedule continues.
    """
    return optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peak, total_steps=total_steps, last_epoch=steps_done - 1)


_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
Rates: TypeAlias = list[dict[str, float]]


def read_rates(optimizer: optim.Optimizer) -> Rates:
    """Return the learning rates of each parameter group: the current one, and those of its schedule."""
    return [{name: group[name] for name in _RATES if name in group} for group in optimizer.param_groups]


def take_rates(
    optimizer: optim.Optimizer, rates: Rates, total_steps: int | None, steps_done: int
) -> optim.lr_scheduler.OneCycleLR | None:
    """Replace the learning rates of an optimiser during a run, and return its schedule.

    The one-cycle schedule is recomputed for the whole run with the new peak and length, and continues at the current
    step.

    Args:
        optimizer: optimiser whose rates are replaced.
        rates: rates of read_rates.
        total_steps: optimiser steps of the whole run; None for a constant rate.
        steps_done: completed optimiser steps.
    """
    for group, own in zip(optimizer.param_groups, rates, strict=True):
        group.update(own)
    return None if total_steps is None else one_cycle(optimizer, rates[0]["max_lr"], total_steps, steps_done)
