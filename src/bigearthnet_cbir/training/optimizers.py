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
        ValueError: the name is none of these.
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
        optimizer: whose rate it sets; where steps are done already, an optimizer that had such a schedule before.
        peak: highest learning rate, reached after 30 % of the steps.
        total_steps: optimiser steps of the whole run.
        steps_done: optimiser steps that the run has taken; the schedule goes on from there.
    """
    return optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peak, total_steps=total_steps, last_epoch=steps_done - 1)


_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
Rates: TypeAlias = list[dict[str, float]]


def read_rates(optimizer: optim.Optimizer) -> Rates:
    """Return the learning rates of each group of weights: the current one, and those of its schedule."""
    return [{name: group[name] for name in _RATES if name in group} for group in optimizer.param_groups]


def take_rates(
    optimizer: optim.Optimizer, rates: Rates, total_steps: int | None, steps_done: int
) -> optim.lr_scheduler.OneCycleLR | None:
    """Give an optimiser in the middle of a run other learning rates, and return its schedule.

    The one-cycle schedule is laid anew over the whole run, with the new peak and length, and goes on at the step that
    the run has reached.

    Args:
        optimizer: whose rates are replaced.
        rates: of read_rates.
        total_steps: optimiser steps of the whole run; None where the rate is constant.
        steps_done: optimiser steps that the run has taken.
    """
    for group, own in zip(optimizer.param_groups, rates, strict=True):
        group.update(own)
    return None if total_steps is None else one_cycle(optimizer, rates[0]["max_lr"], total_steps, steps_done)
