"""Batch norm with separate statistics per sensor, for a shared backbone.

A shared backbone processes batches of one sensor at a time. With one set of running statistics, the mean and variance
in eval mode are a mixture that no training batch had, so features in eval mode differ from those in training.
Chang et al. 2019, "Domain-Specific Batch Normalization", https://arxiv.org/abs/1906.03950.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

SENSORS = ("s1", "s2")


class SensorBatchNorm(nn.Module):
    """One BatchNorm2d per sensor; `sensor` selects the one of the next forward pass."""

    def __init__(self, template: nn.BatchNorm2d) -> None:
        super().__init__()
        # A copy, since timm has batch norms with an activation of their own.
        self.norms = nn.ModuleDict({sensor: copy.deepcopy(template) for sensor in SENSORS})
        self.sensor = SENSORS[0]

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B, C, H, W) with the current sensor's statistics."""
        normalised: Tensor = self.norms[self.sensor](images)
        return normalised


def convert_sensor_batchnorm(module: nn.Module) -> None:
    """Replace every BatchNorm2d inside a module by a SensorBatchNorm, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SensorBatchNorm(child))
        else:
            convert_sensor_batchnorm(child)


def has_sensor_batchnorm(module: nn.Module) -> bool:
    """Return whether there is any SensorBatchNorm inside a module."""
    return any(isinstance(child, SensorBatchNorm) for child in module.modules())


def select_sensor(module: nn.Module, sensor: str) -> None:
    """Select the sensor of the next batch in every SensorBatchNorm of a module."""
    for child in module.modules():
        if isinstance(child, SensorBatchNorm):
            child.sensor = sensor
