"""Augmentation on the device: the same geometry for both sensors, so that a pair stays a pair."""

from __future__ import annotations

import torch
from torch import Tensor


class Dihedral:
    """One of the eight flips and quarter turns of the square, drawn per pair.

    A satellite looks down: no orientation is special, so all eight are equally real. No colours are jittered,
    since a band's value is a physical quantity that the labels depend on.
    """

    def __call__(self, s1: Tensor, s2: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return both batches (B, C, H, H) with each pair turned alike.

        Args:
            s1: Sentinel-1.
            s2: Sentinel-2, same B and H.
            generator: a CPU generator; the draw does not depend on the device.
        """
        which = torch.randint(8, (len(s1),), generator=generator)
        turned = s1.clone(), s2.clone()
        for element in range(1, 8):
            rows = (which == element).nonzero().flatten().to(s1.device)
            if len(rows):
                for source, result in zip((s1, s2), turned, strict=True):
                    result[rows] = _turn(source[rows], element)
        return turned


def _turn(images: Tensor, element: int) -> Tensor:
    turned = torch.rot90(images, element % 4, dims=(2, 3))
    return turned.flip(3) if element >= 4 else turned
