"""Procedural textures of the synthetic data: random fields of zero mean and unit standard deviation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from bigearthnet_cbir.data.bands import PATCH_SIZE
from bigearthnet_cbir.types import FloatArray

_GRID = 128
"""Fields are generated on this periodic grid and cropped to the patch, so that opposite edges do not match."""

_FY, _FX = np.meshgrid(np.fft.fftfreq(_GRID), np.fft.rfftfreq(_GRID), indexing="ij")
_RADIUS2: Final[FloatArray] = (_FX**2 + _FY**2).astype(np.float32)
_ROWS, _COLUMNS = (grid.astype(np.float32) for grid in np.mgrid[0:PATCH_SIZE, 0:PATCH_SIZE])


def standardised(field: FloatArray) -> FloatArray:
    """Return the field with zero mean and unit standard deviation over its last two axes."""
    centred = field - field.mean(axis=(-2, -1), keepdims=True)
    scaled: FloatArray = centred / (centred.std(axis=(-2, -1), keepdims=True) + np.float32(1e-6))
    return scaled


def _gaussian(scale: float) -> FloatArray:
    transfer: FloatArray = np.exp(-2 * (np.pi * scale) ** 2 * _RADIUS2)
    return transfer


def _filtered(rng: np.random.Generator, transfer: FloatArray, count: int) -> FloatArray:
    """Return (count, 120, 120) Gaussian fields whose amplitude spectrum is the transfer function."""
    noise = rng.standard_normal((count, _GRID, _GRID), dtype=np.float32)
    field: FloatArray = np.fft.irfft2(np.fft.rfft2(noise) * transfer, s=(_GRID, _GRID)).astype(np.float32)
    return standardised(field[:, :PATCH_SIZE, :PATCH_SIZE])


def _one_filtered(rng: np.random.Generator, transfer: FloatArray) -> FloatArray:
    field: FloatArray = _filtered(rng, transfer, 1)[0]
    return field


def smooth_fields(rng: np.random.Generator, count: int, scale: float) -> FloatArray:
    """Return (count, 120, 120) Gaussian fields that are coherent over `scale` pixels."""
    return _filtered(rng, _gaussian(scale), count)


def _direction(rng: np.random.Generator) -> tuple[float, float]:
    angle = rng.uniform(0, np.pi)
    return float(np.cos(angle)), float(np.sin(angle))


def grain(rng: np.random.Generator, scale: float) -> FloatArray:
    """Return isotropic noise: canopies, meadows, open water."""
    return _one_filtered(rng, _gaussian(scale))


def streaks(rng: np.random.Generator, scale: float) -> FloatArray:
    """Return noise elongated five times along a random direction: slopes and gullies."""
    cos, sin = _direction(rng)
    along, across = cos * _FX + sin * _FY, cos * _FY - sin * _FX
    exponent = (1.8 * scale * along) ** 2 + (0.36 * scale * across) ** 2
    return _one_filtered(rng, np.exp(-2 * np.pi**2 * exponent))


def rows(rng: np.random.Generator, scale: float) -> FloatArray:
    """Return wave trains of wavelength `scale` along one random direction: vineyards, dunes, swell."""
    cos, sin = _direction(rng)
    along, across = cos * _FX + sin * _FY, cos * _FY - sin * _FX
    exponent = ((np.abs(along) - 1 / scale) ** 2 + across**2) * (4 * scale) ** 2
    return _one_filtered(rng, np.exp(-0.5 * exponent))


def blobs(rng: np.random.Generator, scale: float) -> FloatArray:
    """Return soft-edged patches of two levels: groves in fields, pools in a bog."""
    return standardised(np.tanh(4 * smooth_fields(rng, 1, scale / 2)[0]))


def points(rng: np.random.Generator, scale: float) -> FloatArray:
    """Return sparse bright spots of about `scale` pixels: single trees, roofs that face the radar."""
    return standardised(np.clip(smooth_fields(rng, 1, scale / 2)[0] - 0.9, 0, 0.7))


def creeks(rng: np.random.Generator, scale: float) -> FloatArray:
    """Return a net of thin dark lines, the zero crossings of smooth noise: tidal channels."""
    return standardised(-np.exp(-8 * smooth_fields(rng, 1, scale)[0] ** 2))


def _turned(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return pixel coordinates along and across a random direction, from a random origin."""
    cos, sin = _direction(rng)
    origin = rng.uniform(0, 1000, size=2)
    u, v = cos * _COLUMNS + sin * _ROWS + origin[0], cos * _ROWS - sin * _COLUMNS + origin[1]
    return u.astype(np.float32), v.astype(np.float32)


def parcels(rng: np.random.Generator, scale: float) -> FloatArray:
    """Return a mosaic of fields, each of one level, about `scale` by 0.6 `scale` pixels."""
    u, v = _turned(rng)
    levels = rng.standard_normal((64, 64), dtype=np.float32)
    strip = np.floor(v / (0.6 * scale)).astype(np.int64) % 64
    shift = rng.uniform(0, scale, size=64)[strip]
    return standardised(levels[strip, np.floor((u + shift) / scale).astype(np.int64) % 64])


def streets(rng: np.random.Generator, scale: float) -> FloatArray:
    """Return a grid of blocks of uneven brightness, `scale` pixels apart, between streets."""
    u, v = _turned(rng)
    wave = np.maximum(np.cos(2 * np.pi * u / scale), np.cos(2 * np.pi * v / scale))
    return standardised((wave > 0.6) + np.float32(0.25) * smooth_fields(rng, 1, 1.0)[0])


TEXTURES: Final[dict[str, Callable[[np.random.Generator, float], FloatArray]]] = {
    "grain": grain,
    "streaks": streaks,
    "rows": rows,
    "blobs": blobs,
    "points": points,
    "creeks": creeks,
    "parcels": parcels,
    "streets": streets,
}
"""kind -> generator of a (120, 120) float32 field; the scale is in 10 m pixels."""
