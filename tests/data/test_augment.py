import math

import pytest
import torch

from bigearthnet_cbir.data.augment import BandDropout, Compose, Dihedral, Noise, ResizedCrop, Speckle, Window
from bigearthnet_cbir.data.bands import BAND_STATISTICS


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramps(size: int = 64, side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    ramp = torch.arange(float(side * side)).view(1, 1, side, side).expand(size, 1, side, side)
    return ramp.repeat(1, 2, 1, 1), 1000 + ramp.repeat(1, 10, 1, 1)


def test_both_sensors_are_turned_alike_and_all_eight_ways_occur() -> None:
    s1, s2 = Dihedral()(*ramps(side=4), generator(5))
    assert torch.equal(s1[:, :1] + 1000, s2[:, :1])
    assert len({tuple(image[0].flatten().tolist()) for image in s1}) == 8
    assert all(sorted(image[0].flatten().tolist()) == list(range(16)) for image in s1)


def test_both_sensors_are_cropped_alike_inside_the_patch() -> None:
    s1, s2 = ResizedCrop(0.25)(*ramps(), generator())
    assert torch.allclose(s1[:, :1] + 1000, s2[:, :1], atol=1e-3)
    assert float(s1.min()) >= 0
    assert float(s1.max()) <= 143
    spans = s1[:, 0, 0, -1] - s1[:, 0, 0, 0]
    assert float(spans.min()) == pytest.approx(11 * 0.5, rel=0.1)
    assert float(spans.max()) <= 11


def test_crop_of_the_whole_area_changes_nothing() -> None:
    s1, s2 = ramps()
    cropped = ResizedCrop(1.0)(s1, s2, generator())
    assert torch.allclose(cropped[0], s1, atol=1e-3)
    assert torch.allclose(cropped[1], s2, atol=1e-3)


@pytest.mark.parametrize("area", [0.0, -1.0, 1.5])
def test_impossible_crop_is_refused(area: float) -> None:
    with pytest.raises(ValueError, match="smallest_area"):
        ResizedCrop(area)


def test_band_dropout_drops_whole_bands_at_its_rate_and_keeps_one_of_sentinel_1() -> None:
    s1, s2 = BandDropout(0.3)(torch.ones(2000, 2, 2, 2), torch.ones(2000, 10, 2, 2), generator())
    dropped = s2.flatten(2).sum(2) == 0
    assert set(s2.flatten(2).sum(2).unique().tolist()) == {0.0, 4.0}
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=0.02)
    kept = (s1.flatten(2).sum(2) > 0).sum(1)
    assert set(kept.tolist()) == {1, 2}
    assert float((kept == 1).float().mean()) == pytest.approx(0.3, abs=0.04)


def test_noise_has_its_deviation_and_leaves_sentinel_1() -> None:
    s1, s2 = Noise(0.2)(torch.zeros(8, 2, 40, 40), torch.zeros(8, 10, 40, 40), generator())
    assert float(s1.abs().max()) == 0
    assert float(s2.std()) == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("looks", [1, 4, 16])
def test_speckle_is_gamma_of_mean_one_in_linear_power(looks: int) -> None:
    s1, s2 = Speckle(looks)(torch.zeros(8, 2, 60, 60), torch.zeros(8, 10, 60, 60), generator())
    assert float(s2.abs().max()) == 0
    for channel, band in enumerate(("VV", "VH")):
        power = 10 ** (s1[:, channel] * BAND_STATISTICS[band][1] / 10)
        assert float(power.mean()) == pytest.approx(1.0, abs=0.03)
        assert float(power.std()) == pytest.approx(1 / math.sqrt(looks), rel=0.05)


def test_augmentation_repeats_with_its_seed_and_leaves_its_input() -> None:
    steps = Compose([Dihedral(), ResizedCrop(0.5), BandDropout(0.2), Noise(0.1), Speckle(8)])
    s1, s2 = ramps(8)
    before = s1.clone(), s2.clone()
    first, again, other = steps(s1, s2, generator(1)), steps(s1, s2, generator(1)), steps(s1, s2, generator(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(before[0], s1)
    assert torch.equal(before[1], s2)


def test_window_is_the_same_place_in_both_sensors_and_moves() -> None:
    s1, s2 = ramps(2)
    corners = set()
    for seed in range(40):
        one, two = Window(8)(s1, s2, generator(seed))
        assert one.shape == (2, 2, 8, 8)
        assert torch.equal(one[:, :1] + 1000, two[:, :1])
        corners.add(float(one[0, 0, 0, 0]))
    assert len(corners) > 10
    assert Window(12)(s1, s2, generator())[0].shape == s1.shape
