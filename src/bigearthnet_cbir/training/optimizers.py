"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

from collections.abc import Iterable

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


def one_cycle(optimizer: optim.Optimizer, peak: float, total_steps: int) -> optim.lr_scheduler.OneCycleLR:
    """Return the one-cycle schedule over a whole run (Smith and Topin 2018, https://arxiv.org/abs/1708.07120).

    Args:
        optimizer: whose rate it sets.
        peak: highest learning rate, reached after 30 % of the steps.
        total_steps: optimiser steps of the whole run.
    """
    return optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peak, total_steps=total_steps)
