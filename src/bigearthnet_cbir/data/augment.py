"""Augmentation on the device, with the same geometric transform for both sensors of a pair.

There is no colour jitter: a band value is a physical quantity that the labels depend on. All random numbers come from
a CPU generator, so that they do not depend on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bigearthnet_cbir.data.bands import BAND_STATISTICS, S1_BANDS

Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""(s1 (B, 2, H, H), s2 (B, 10, H, H), generator) -> both augmented; inputs are normalised and not changed."""


class Compose:
    """Applies several augmentations in sequence."""

    def __init__(self, steps: Sequence[Augmentation]) -> None:
        self.steps = list(steps)

    def __call__(self, s1: Tensor, s2: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return both augmented batches."""
        for step in self.steps:
            s1, s2 = step(s1, s2, generator)
        return s1, s2


class Window:
    """Crops a random square window at full resolution, the same for the whole batch; it reduces training time.

    Textures keep their scale. The backbone pools over any input size, so retrieval can still use whole patches.

    Args:
        size: side of the window in pixels.

    Raises:
        ValueError: the size is less than one pixel.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; give a whole number >= 1")
        self.size = size

    def __call__(self, s1: Tensor, s2: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return views of both batches, (B, C, size, size)."""
        room = max(s1.shape[2] - self.size, 0)
        top, left = torch.randint(room + 1, (2,), generator=generator).tolist()
        rows, columns = slice(top, top + self.size), slice(left, left + self.size)
        return s1[:, :, rows, columns], s2[:, :, rows, columns]


class Dihedral:
    """Applies one of the eight flips and 90-degree rotations (the dihedral group), drawn per pair.

    Satellite images have no preferred orientation, so all eight are equally realistic.
    """

    def __call__(self, s1: Tensor, s2: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return both batches with the same rotation or flip for both sensors of a pair."""
        which = torch.randint(8, (len(s1),), generator=generator)
        turned = torch.empty_like(s1), torch.empty_like(s2)
        for element in range(8):
            rows = (which == element).nonzero().flatten().to(s1.device)
            if len(rows):
                for source, result in zip((s1, s2), turned, strict=True):
                    result[rows] = _turn(source[rows], element)
        return turned


def _turn(images: Tensor, element: int) -> Tensor:
    turned = torch.rot90(images, element % 4, dims=(2, 3))
    return turned.flip(3) if element >= 4 else turned


class ResizedCrop:
    """Crops a random square window and resizes it to the full size, the same window for both sensors.

    Args:
        smallest_area: smallest share of the patch's area that a window keeps, in (0, 1]. Areas are drawn uniformly;
            the aspect ratio is kept, because a patch has the same scale in both directions.

    Raises:
        ValueError: the area is not in (0, 1].
    """

    def __init__(self, smallest_area: float) -> None:
        if not 0 < smallest_area <= 1:
            raise ValueError(f"smallest_area is {smallest_area}; give a number in (0, 1]")
        self.smallest_area = smallest_area

    def __call__(self, s1: Tensor, s2: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return both batches with the same crop for both sensors of a pair (bilinear)."""
        draws = torch.rand(len(s1), 3, generator=generator)
        side = (self.smallest_area + (1 - self.smallest_area) * draws[:, 0]).sqrt()
        offset = (1 - side)[:, None] * (2 * draws[:, 1:] - 1)
        window = torch.zeros(len(s1), 2, 3)
        window[:, 0, 0] = window[:, 1, 1] = side
        window[:, :, 2] = offset
        grid = functional.affine_grid(window, [len(s1), 1, *s1.shape[2:]], align_corners=False).to(s1.device)
        first, second = (
            functional.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
            for images in (s1, s2)
        )
        return first, second


class BandDropout:
    """Sets whole bands to their mean (0 after normalisation), each Sentinel-2 band with the given probability.

    Sentinel-1 keeps at least one of its two bands: one of them is dropped with the same probability.
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, s1: Tensor, s2: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return both batches with bands dropped per pair."""
        keep2 = torch.rand(*s2.shape[:2], generator=generator) >= self.probability
        drop1 = torch.rand(len(s1), generator=generator) < self.probability
        which = torch.randint(s1.shape[1], (len(s1),), generator=generator)
        keep1 = ~(drop1[:, None] & (which[:, None] == torch.arange(s1.shape[1])))
        return _masked(s1, keep1), _masked(s2, keep2)


def _masked(images: Tensor, keep: Tensor) -> Tensor:
    return images * keep.to(images.device, images.dtype)[:, :, None, None]


class Noise:
    """Adds independent Gaussian noise to Sentinel-2, in standard deviations of each band."""

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation

    def __call__(self, s1: Tensor, s2: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return s1 unchanged, and s2 with noise."""
        noise = torch.randn(s2.shape, generator=generator).to(s2.device, s2.dtype)
        return s1, s2 + self.deviation * noise


class Speckle:
    """Adds multiplicative speckle to Sentinel-1: gamma-distributed intensity of mean 1, added in dB.

    Goodman 1976, "Some fundamental properties of speckle", https://doi.org/10.1364/JOSA.66.001145.

    Args:
        looks: shape of the gamma distribution, a whole number; more looks, less speckle.
    """

    def __init__(self, looks: int) -> None:
        self.looks = looks
        deviations = [BAND_STATISTICS[band][1] for band in S1_BANDS]
        self._deviation = torch.tensor(deviations).view(1, -1, 1, 1)

    def __call__(self, s1: Tensor, s2: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return s1 with speckle, and s2 unchanged."""
        # A gamma variable with integer shape L and mean 1 is the mean of L exponential variables.
        intensity = torch.zeros(s1.shape)
        for _ in range(self.looks):
            intensity -= torch.rand(s1.shape, generator=generator).clamp(min=1e-7).log()
        decibels = (10 / math.log(10)) * (intensity / self.looks).log()
        return s1 + (decibels / self._deviation).to(s1.device, s1.dtype), s2
