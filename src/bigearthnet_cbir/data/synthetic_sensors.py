"""Simulation of both sensors over a land-cover map, including illumination, haze and speckle."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.bands import BAND_SIZES, PATCH_SIZE, S1_BANDS, S2_BANDS
from bigearthnet_cbir.data.synthetic_classes import BACKSCATTER, LOOKS, SPECTRA, SPECTRUM_BANDS
from bigearthnet_cbir.data.synthetic_textures import TEXTURES
from bigearthnet_cbir.types import ByteArray, FloatArray

GAIN_SPREAD: Final = 0.30
"""Standard deviation of the log of the illumination gain, one per patch."""

TINT_SPREAD: Final = 0.16
"""Standard deviation of the log of each band's own gain (season, soil), one per patch."""

HAZE_MEAN: Final = 130.0
"""Mean path radiance in B02, reflectance x 10 000; exponential over patches."""

CLASS_SPREAD: Final = 0.22
"""Standard deviation of the log brightness of one class from patch to patch."""

SPECKLE_LOOKS: Final = 4.4
"""Equivalent number of looks of Sentinel-1 IW GRDH: speckle is gamma with this shape and mean 1."""

OFFSET_SPREAD: Final = 2.4
"""Standard deviation in dB of the backscatter offset of a patch (incidence angle, moisture)."""

GRADIENT_SPREAD: Final = 1.6
"""Standard deviation in dB of the change from the near-range to the far-range edge of a patch."""

CLASS_SPREAD_DB: Final = 1.3
"""Standard deviation in dB of the backscatter of one class from patch to patch."""

NOISE_FLOOR: Final = -32.0
"""Thermal noise of the radar, dB."""

_WAVELENGTHS: Final = (443, 492, 560, 665, 704, 740, 783, 833, 865, 945, 1614, 2202)
_SCATTERING: Final[FloatArray] = (np.array(_WAVELENGTHS, dtype=np.float32) / 492) ** np.float32(-2.5)
"""Haze relative to B02: falls with wavelength, between Rayleigh's -4 and large aerosols' -1."""

_RAMP: Final[FloatArray] = np.linspace(-0.5, 0.5, PATCH_SIZE, dtype=np.float32)


def _texture(rng: np.random.Generator, cover: ByteArray, sensor: str) -> FloatArray:
    """Return (120, 120) deviations, the texture of each class in its region, scaled by its contrast."""
    result = np.zeros(cover.shape, dtype=np.float32)
    for index in np.unique(cover):
        texture = LOOKS[index].optical if sensor == "s2" else LOOKS[index].radar
        inside = cover == index
        result[inside] = texture.contrast * TEXTURES[texture.kind](rng, texture.scale)[inside]
    return result


def _block_mean(image: FloatArray, size: int) -> FloatArray:
    factor = PATCH_SIZE // size
    means: FloatArray = image.reshape(size, factor, size, factor).mean(axis=(1, 3))
    return means


def measure_s2(rng: np.random.Generator, cover: ByteArray) -> dict[str, npt.NDArray[np.uint16]]:
    """Return the twelve bands as uint16 reflectance x 10 000, at 120, 60 or 20 pixels."""
    light = np.exp(rng.normal(0, GAIN_SPREAD) + rng.normal(0, TINT_SPREAD, size=len(SPECTRUM_BANDS)))
    haze = rng.exponential(HAZE_MEAN) * _SCATTERING
    brightness = np.exp(rng.normal(0, CLASS_SPREAD, size=(len(LOOKS), 1)))
    spectra = (SPECTRA * brightness * light).astype(np.float32)
    texture = np.maximum(1 + _texture(rng, cover, "s2"), 0.1)
    bands = {}
    for band in S2_BANDS:
        column = SPECTRUM_BANDS.index(band)
        image = _block_mean(spectra[cover, column] * texture, BAND_SIZES[band]) + haze[column]
        image += (8 + 0.01 * image) * rng.standard_normal(image.shape, dtype=np.float32)
        bands[band] = np.clip(np.rint(image), 1, 10_000).astype(np.uint16)
    return bands


def measure_s1(rng: np.random.Generator, cover: ByteArray) -> dict[str, FloatArray]:
    """Return VV and VH as float32 dB at 120 pixels, speckled."""
    nuisance = rng.normal(0, OFFSET_SPREAD) + rng.normal(0, GRADIENT_SPREAD) * _RAMP
    variation = rng.normal(0, CLASS_SPREAD_DB, size=(len(LOOKS), 1))
    level = (BACKSCATTER + variation).astype(np.float32)
    shared = _texture(rng, cover, "s1") + nuisance.astype(np.float32)
    bands = {}
    for column, band in enumerate(S1_BANDS):
        power = 10 ** ((level[cover, column] + shared) / 10) + np.float32(10 ** (NOISE_FLOOR / 10))
        speckle = rng.standard_gamma(SPECKLE_LOOKS, size=cover.shape, dtype=np.float32) / np.float32(SPECKLE_LOOKS)
        bands[band] = (10 * np.log10(np.maximum(power * speckle, 1e-6))).astype(np.float32)
    return bands
