"""Batch norm with separate statistics per sensor, for a shared backbone.

A shared backbone processes batches of one sensor at a time. With one set of running statistics, the mean and variance
in eval mode are a mixture that no training batch had, so features in eval mode differ from those in training.
Chang et al. 2019, "Domain-Specific Batch Normalization", https://arxiv.org/abs/1906.03950.
"""

from __future__ import annotations

from torch import Tensor, nn

SENSORS = ("s1", "s2")


class SensorBatchNorm(nn.Module):
    """One BatchNorm2d per sensor; `sensor` selects the one of the next forward pass."""

    def __init__(self, template: nn.BatchNorm2d) -> None:
        super().__init__()
        width, eps, momentum = template.num_features, template.eps, template.momentum
        self.norms = nn.ModuleDict({sensor: nn.BatchNorm2d(width, eps, momentum) for sensor in SENSORS})
        for norm in self.norms.values():
            norm.load_state_dict(template.state_dict())
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


def select_sensor(module: nn.Module, sensor: str) -> None:
    """Select the sensor of the next batch in every SensorBatchNorm of a module."""
    for child in module.modules():
        if isinstance(child, SensorBatchNorm):
            child.sensor = sensor
