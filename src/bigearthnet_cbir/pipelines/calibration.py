"""Training patches from which the ranges of a network in 8 bits are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import Tensor

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.models.int8 import has_full_range
from bigearthnet_cbir.pipelines.builders import build_dataset, pairs_digest

CALIBRATION_PAIRS: Final = 256
"""The ranges of 64 are too narrow for unusual patches: the lowest cosine on the demo data was 0.992, not 0.999."""


@dataclass(frozen=True)
class Calibration:
    """Evenly spaced pairs of the training list.

    Attributes:
        dataset: the training pairs.
        rows: positions of the chosen ones.
    """

    dataset: BigEarthNetMM
    rows: list[int]

    @classmethod
    def of(cls, config: Config) -> Calibration:
        """Choose the pairs; raises DataError if the training list is missing, malformed or empty."""
        dataset = build_dataset(config, "train", require_labels=False)
        if len(dataset) == 0:
            raise DataError(
                f"{config.split_csv('train')}: has no pairs, but precision int8 is calibrated on them; give a list "
                "with pairs, or another precision"
            )
        spaced = np.linspace(0, len(dataset) - 1, min(CALIBRATION_PAIRS, len(dataset)))
        return cls(dataset, spaced.round().astype(int).tolist())

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return their normalised images, (N, 2, 120, 120) and (N, 10, 120, 120)."""
        return BatchTransform()(self.dataset.__getitems__(self.rows))

    @property
    def identity(self) -> dict[str, Any]:
        """Plain values that determine the images and the bits."""
        stores = (self.dataset.s2_store, self.dataset.s1_store)
        return {
            "pairs": pairs_digest([self.dataset.pairs[row] for row in self.rows]),
            "archives": [[str(store.path), store.identity()] for store in stores],
            "weight_bits": 8 if has_full_range() else 7,
        }

    def __str__(self) -> str:
        return (
            f"int8, weights of {8 if has_full_range() else 7} bits per channel, calibrated on {len(self.rows)} "
            "training pairs"
        )
