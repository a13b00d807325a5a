"""Conversion of stored values to network input, per batch, on the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bigearthnet_cbir.data.bands import BAND_STATISTICS, PATCH_SIZE, S1_BANDS, S2_10M_BANDS, S2_20M_BANDS
from bigearthnet_cbir.data.dataset import PairBatch


class BatchTransform:
    """Normalise each band by its mean and standard deviation, then resample the 20 m bands to 10 m.

    The order (normalise first) and the bicubic interpolation (align_corners=False) are those of the original
    scripts, so that networks trained with them receive the same input. Before the call Sentinel-1 is in dB and
    Sentinel-2 in reflectance x 10 000; after it both are in standard deviations from the band's mean.

    Args:
        device: device of the computation and of the result.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._s1 = self._statistics(S1_BANDS)
        self._s2_10m = self._statistics(S2_10M_BANDS)
        self._s2_20m = self._statistics(S2_20M_BANDS)

    def _statistics(self, bands: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        mean, std = zip(*(BAND_STATISTICS[band] for band in bands), strict=True)
        shape = (1, len(bands), 1, 1)
        return (
            torch.tensor(mean, dtype=torch.float32, device=self.device).view(shape),
            torch.tensor(std, dtype=torch.float32, device=self.device).view(shape),
        )

    def __call__(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Return s1 (B, 2, 120, 120) [VV, VH] and s2 (B, 10, 120, 120) [B02 ... B12], float32."""
        s1 = self._normalise(batch.s1, self._s1)
        s2_10m = self._normalise(batch.s2_10m, self._s2_10m)
        s2_20m = self._normalise(batch.s2_20m, self._s2_20m)
        upsampled = functional.interpolate(s2_20m, size=(PATCH_SIZE, PATCH_SIZE), mode="bicubic", align_corners=False)
        return s1, torch.cat((s2_10m, upsampled), dim=1)

    def _normalise(self, stored: Tensor, statistics: tuple[Tensor, Tensor]) -> Tensor:
        mean, std = statistics
        # Sentinel-1 is already float32, so the subtraction must not be done in place.
        return (stored.to(self.device, non_blocking=True).to(torch.float32) - mean).div_(std)
