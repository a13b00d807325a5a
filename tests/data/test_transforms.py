import pytest
import torch
from torch.nn.functional import interpolate

from bigearthnet_cbir.data.bands import BAND_STATISTICS, MODEL_S2_BANDS, S1_BANDS
from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.transforms import BatchTransform


def random_batch(size: int = 2, dtype: torch.dtype = torch.uint16) -> PairBatch:
    generator = torch.Generator().manual_seed(0)
    return PairBatch(
        s1=torch.randn(size, 2, 120, 120, generator=generator) * 5 - 15,
        s2_10m=torch.randint(0, 12000, (size, 4, 120, 120), generator=generator).to(dtype),
        s2_20m=torch.randint(0, 12000, (size, 6, 60, 60), generator=generator).to(dtype),
        label=torch.zeros(size, 19, dtype=torch.uint8),
        pair_index=torch.arange(size),
    )


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_batch_transform_equals_the_per_sample_way(dtype: torch.dtype) -> None:
    """As the original scripts did it: one sample and one band at a time, normalised and then interpolated."""
    batch = random_batch(dtype=dtype)
    s1, s2 = BatchTransform()(batch)
    assert s1.shape == (2, 2, 120, 120)
    assert s2.shape == (2, 10, 120, 120)
    assert s1.dtype == s2.dtype == torch.float32
    for sample in range(2):
        for channel, band in enumerate(S1_BANDS):
            mean, std = BAND_STATISTICS[band]
            assert torch.allclose(s1[sample, channel], (batch.s1[sample, channel] - mean) / std, atol=1e-5)
        for channel, band in enumerate(MODEL_S2_BANDS):
            mean, std = BAND_STATISTICS[band]
            stored = batch.s2_10m[sample, channel] if channel < 4 else batch.s2_20m[sample, channel - 4]
            plain = (stored.float() - mean) / std
            if channel >= 4:
                plain = interpolate(plain[None, None], (120, 120), mode="bicubic", align_corners=False)[0, 0]
            assert torch.allclose(s2[sample, channel], plain, atol=1e-4), band


def test_transform_leaves_the_batch_as_it_was() -> None:
    batch = random_batch(dtype=torch.float32)
    before = [part.clone() for part in batch]
    BatchTransform()(batch)
    assert all(torch.equal(part, kept) for part, kept in zip(batch, before, strict=True))
