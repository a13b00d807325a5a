import re
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from bigearthnet_cbir.data.bands import BAND_SIZES, S1_BANDS, S2_BANDS
from bigearthnet_cbir.data.labels import CLASSES, multi_hot, to_19_classes
from bigearthnet_cbir.data.synthetic import SyntheticPair, acquisition_of, make_pair
from bigearthnet_cbir.data.synthetic_classes import (
    BACKSCATTER,
    CORINE_NAMES,
    LAND_CLASSES,
    LOOKS,
    SPECTRA,
    SPECTRUM_BANDS,
)
from bigearthnet_cbir.data.synthetic_cover import LANDSCAPES, MIN_SHARE, draw_cover, labels_of
from bigearthnet_cbir.data.synthetic_sensors import measure_s1, measure_s2
from bigearthnet_cbir.data.synthetic_textures import TEXTURES
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import ByteArray

COVERS = 1000
REPEATS = 12


@pytest.fixture(scope="module")
def pairs() -> list[SyntheticPair]:
    return [make_pair(5, index) for index in range(40)]


@pytest.fixture(scope="module")
def covers() -> list[ByteArray]:
    return [draw_cover(np.random.default_rng([5, index, 0])) for index in range(COVERS)]


def pure(name: str) -> ByteArray:
    return np.full((120, 120), CLASSES.index(name), dtype=np.uint8)


def test_the_same_seed_and_index_give_the_same_pair_in_any_order(pairs: list[SyntheticPair]) -> None:
    again = make_pair(5, 7)
    assert again.acquisition == pairs[7].acquisition
    assert again.labels == pairs[7].labels
    for band in S2_BANDS:
        assert np.array_equal(again.s2[band], pairs[7].s2[band])
    for band in S1_BANDS:
        assert np.array_equal(again.s1[band], pairs[7].s1[band])


def test_another_seed_or_index_gives_other_pixels(pairs: list[SyntheticPair]) -> None:
    for other in (make_pair(6, 7), pairs[8]):
        assert not np.array_equal(other.cover, pairs[7].cover) or other.labels != pairs[7].labels
        assert not np.array_equal(other.s1["VV"], pairs[7].s1["VV"])
        assert not np.array_equal(other.s2["B02"], pairs[7].s2["B02"])


def test_bands_have_the_types_sizes_and_units_of_bigearthnet(pairs: list[SyntheticPair]) -> None:
    for pair in pairs:
        assert set(pair.s2) == set(S2_BANDS)
        assert set(pair.s1) == set(S1_BANDS)
        for band, pixels in pair.s2.items():
            assert pixels.dtype == np.uint16
            assert pixels.shape == (BAND_SIZES[band],) * 2
            assert 1 <= pixels.min() <= pixels.max() <= 10_000
        for pixels in pair.s1.values():
            assert pixels.dtype == np.float32
            assert pixels.shape == (120, 120)
            assert np.isfinite(pixels).all()
            assert -60 < pixels.min() < pixels.max() < 30


def test_vv_is_brighter_than_vh_and_water_darker_than_towns() -> None:
    rng = np.random.default_rng(0)
    town, lake = measure_s1(rng, pure("Urban fabric")), measure_s1(rng, pure("Inland waters"))
    assert town["VV"].mean() > town["VH"].mean() + 3
    assert lake["VV"].mean() < town["VV"].mean() - 5


def test_vegetation_reflects_more_infrared_than_red_and_water_does_not() -> None:
    rng = np.random.default_rng(0)
    wood, sea = measure_s2(rng, pure("Broad-leaved forest")), measure_s2(rng, pure("Marine waters"))
    assert wood["B08"].mean() > 3 * wood["B04"].mean()
    assert sea["B08"].mean() < 1.2 * sea["B04"].mean()


def test_speckle_is_multiplicative_and_independent_from_pixel_to_pixel() -> None:
    """Its spread in dB is that of a gamma variable of 4.4 looks at any brightness: 10/ln(10) sqrt(psi'(4.4))."""
    expected = 10 / np.log(10) * np.sqrt(sum(1 / (4.4 + k) ** 2 for k in range(100_000)))
    for name in ("Broad-leaved forest", "Inland waters"):
        vv = measure_s1(np.random.default_rng(1), pure(name))["VV"]
        vh = measure_s1(np.random.default_rng(1), pure(name))["VH"]
        # What both channels share (texture, gradient) falls out of the difference.
        assert np.std(vv - vh) / np.sqrt(2) == pytest.approx(expected, rel=0.15)


def test_labels_are_the_classes_that_cover_enough(pairs: list[SyntheticPair]) -> None:
    for pair in pairs:
        shares = {name: float(np.mean(pair.cover == number)) for number, name in enumerate(CLASSES)}
        assert pair.labels == tuple(name for name in CLASSES if shares[name] >= MIN_SHARE)


def test_a_sliver_is_no_label() -> None:
    cover = pure("Pastures")
    cover[:4] = CLASSES.index("Arable land")
    assert labels_of(cover) == ("Pastures",)
    cover[:5] = CLASSES.index("Arable land")
    assert labels_of(cover) == ("Arable land", "Pastures")


def test_one_to_five_classes_a_patch_all_of_them_seen(covers: list[ByteArray]) -> None:
    counts = Counter(len(labels_of(cover)) for cover in covers)
    assert set(counts) == {1, 2, 3, 4, 5}
    assert min(counts.values()) > 0.02 * COVERS
    mean = sum(number * times for number, times in counts.items()) / COVERS
    assert 2.3 < mean < 3.2


def test_class_frequencies_are_uneven_and_no_class_is_missing(covers: list[ByteArray]) -> None:
    frequency = np.mean([multi_hot(labels_of(cover)) for cover in covers], axis=0)
    assert frequency.min() > 0.01
    assert frequency.max() < 0.45
    assert frequency.max() > 4 * frequency.min()


def test_classes_keep_plausible_company(covers: list[ByteArray]) -> None:
    labels = [set(labels_of(cover)) for cover in covers]
    assert any({"Beaches, dunes, sands", "Marine waters"} <= found for found in labels)
    assert any({"Coniferous forest", "Mixed forest"} <= found for found in labels)
    assert not any({"Marine waters", "Permanent crops"} <= found for found in labels)
    assert sum(item.frequency for item in LANDSCAPES) == pytest.approx(1)


def test_regions_are_coherent(covers: list[ByteArray]) -> None:
    """Neighbours nearly always agree; shuffled pixels of the same maps agree far less often."""
    mixed = [cover for cover in covers[:200] if len(labels_of(cover)) >= 3]
    shuffled = [np.random.default_rng(0).permutation(cover.ravel()).reshape(120, 120) for cover in mixed]
    agreement, by_chance = (np.mean([np.mean(c[:, 1:] == c[:, :-1]) for c in maps]) for maps in (mixed, shuffled))
    assert agreement > 0.92
    assert by_chance < 0.6


def test_both_sensors_see_the_same_map() -> None:
    """A shore shows at the same column in a radar and an optical band."""
    cover = pure("Broad-leaved forest")
    cover[:, 70:] = CLASSES.index("Inland waters")
    rng = np.random.default_rng(2)
    for profile in (measure_s1(rng, cover)["VH"].mean(axis=0), np.log(measure_s2(rng, cover)["B08"]).mean(axis=0)):
        assert 69 <= np.argmin(np.diff(profile)) + 1 <= 71


@pytest.mark.parametrize("kind", TEXTURES)
def test_textures_are_standardised_and_drawn_anew(kind: str) -> None:
    rng = np.random.default_rng(0)
    first, second = (TEXTURES[kind](rng, 5.0) for _ in range(2))
    assert first.shape == (120, 120)
    assert first.dtype == np.float32
    assert abs(float(first.mean())) < 1e-3
    assert float(first.std()) == pytest.approx(1, abs=1e-3)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.5


def correlation_three_pixels_away(pixels: npt.NDArray[np.floating]) -> float:
    """Return the lower of the correlations along rows and along columns."""
    pairs = (pixels[:, 3:], pixels[:, :-3]), (pixels[3:], pixels[:-3])
    return min(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in pairs)


def test_texture_tells_apart_classes_of_almost_equal_colour_in_both_sensors() -> None:
    coarse, fine = "Arable land", "Permanent crops"
    assert np.abs(SPECTRA[2] / SPECTRA[3] - 1).max() < 0.08
    assert np.abs(BACKSCATTER[2] - BACKSCATTER[3]).max() < 0.6
    for seed in range(5):
        optical = [measure_s2(np.random.default_rng(seed), pure(name))["B08"].astype(float) for name in (coarse, fine)]
        radar = [measure_s1(np.random.default_rng(seed), pure(name))["VV"] for name in (coarse, fine)]
        assert correlation_three_pixels_away(optical[0]) > correlation_three_pixels_away(optical[1]) + 0.3
        assert correlation_three_pixels_away(radar[0]) > correlation_three_pixels_away(radar[1]) + 0.2


@pytest.mark.slow
def test_band_averages_alone_do_not_tell_the_classes_apart() -> None:
    """Nearest class centroid in per-band means of single-class patches errs often, though far less than chance does."""
    means: dict[str, list[np.ndarray]] = {"s1": [], "s2": []}
    for number in range(len(CLASSES)):
        for repeat in range(REPEATS):
            cover, rng = np.full((120, 120), number, dtype=np.uint8), np.random.default_rng([9, number, repeat])
            means["s2"].append(np.log([measure_s2(rng, cover)[band].mean() for band in ("B02", "B04", "B08", "B11")]))
            means["s1"].append(np.array([band.mean() for band in measure_s1(rng, cover).values()]))
    for sensor, accuracy_below in (("s1", 0.35), ("s2", 0.55)):
        features = np.array(means[sensor]).reshape(len(CLASSES), REPEATS, -1)
        centroids, queries = features[:, ::2].mean(axis=1), features[:, 1::2]
        distance = np.linalg.norm(queries[:, :, None] - centroids, axis=-1)
        accuracy = np.mean(distance.argmin(axis=-1) == np.arange(len(CLASSES))[:, None])
        assert 1.5 / len(CLASSES) < accuracy < accuracy_below


def test_names_are_v1_like_and_unique_over_many_patches() -> None:
    acquisitions = [acquisition_of(index) for index in range(70_000)]
    assert len({acquisition.names.s2 for acquisition in acquisitions}) == len(acquisitions)
    assert len({acquisition.names.s1 for acquisition in acquisitions}) == len(acquisitions)
    for acquisition in acquisitions[::997]:
        s2 = re.fullmatch(r"S2[AB]_MSIL2A_\d{8}T\d{6}_(\d+)_(\d+)", acquisition.names.s2)
        s1 = re.fullmatch(r"S1[AB]_IW_GRDH_1SDV_\d{8}T\d{6}_(\d\d[A-Z]{3})_(\d+)_(\d+)", acquisition.names.s1)
        assert s2
        assert s1
        assert s1.groups() == (acquisition.tile, *s2.groups())
        column, row = map(int, s2.groups())
        assert 0 <= column < 91
        assert 0 <= row < 91


def test_every_class_has_a_look_and_the_names_of_its_files_map_back() -> None:
    assert set(LAND_CLASSES) == set(CLASSES)
    assert sorted(SPECTRUM_BANDS) == sorted(S2_BANDS)
    assert all(look.optical.kind in TEXTURES and look.radar.kind in TEXTURES for look in LOOKS)
    for name in CLASSES:
        assert to_19_classes([CORINE_NAMES.get(name, name)]) == (name,)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_negative_numbers_are_refused(seed: int, index: int) -> None:
    with pytest.raises(DataError, match="-1"):
        make_pair(seed, index)
