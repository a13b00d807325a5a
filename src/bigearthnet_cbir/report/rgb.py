"""RGB images of patches: Sentinel-2 in true colour, Sentinel-1 in false colour, encoded as JPEG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from bigearthnet_cbir.types import FloatArray

RGB_BANDS: Final = {"s1": ("VV", "VH"), "s2": ("B04", "B03", "B02")}
"""Bands of the RGB image of each sensor."""

STRETCH: Final = (2.0, 98.0)
"""Percentiles that are mapped to 0 and 255."""

_GAMMA: Final = 1 / 1.4
QUALITIES: Final = (82, 70, 58)
"""JPEG qualities, tried in this order until a gallery fits its page."""

Limits: TypeAlias = npt.NDArray[np.float64]
BandImages: TypeAlias = Mapping[str, npt.NDArray[Any]]


def to_rgb(sensor: str, bands: BandImages) -> FloatArray:
    """Return (H, W, 3) float32 values of the red, green and blue channel, before stretching.

    Sentinel-2: reflectance x 10 000 of red, green, blue. Sentinel-1: VV, VH and VV - VH, all in dB.
    """
    found = [np.asarray(bands[name], np.float32) for name in RGB_BANDS[sensor]]
    if sensor == "s1":
        found.append(found[0] - found[1])
    return np.stack(found, axis=-1)


def stretch_limits(images: list[FloatArray]) -> Limits:
    """Return the (3, 2) values of each channel that are mapped to 0 and 255 in all images.

    All images share one contrast stretch, so that colours are comparable. Its lower limit is the 10th percentile of
    the images' 2nd percentiles, its upper limit the 75th percentile of their 98th percentiles, so that clouds, which
    are ten times as bright as fields, do not darken the other images.
    """
    ends = []
    for image in images:
        pixels = image.reshape(-1, 3)
        finite = pixels[np.isfinite(pixels).all(axis=1)]
        if len(finite):
            ends.append(np.percentile(finite, STRETCH, axis=0))
    if not ends:
        return np.array([[0.0, 1.0]] * 3)
    low, high = np.stack(ends, axis=1)
    return np.stack([np.percentile(low, 10, axis=0), np.percentile(high, 75, axis=0)], axis=1)


def stretch(image: FloatArray, bounds: Limits) -> npt.NDArray[np.uint8]:
    """Return an image as (H, W, 3) uint8; non-finite values are black."""
    low, span = bounds[:, 0], np.maximum(bounds[:, 1] - bounds[:, 0], 1e-6)
    unit = np.clip((np.nan_to_num(image, nan=-1e9) - low) / span, 0, 1) ** _GAMMA
    return np.asarray(np.rint(unit * 255), np.uint8)


def encode_jpeg(pixels: npt.NDArray[np.uint8], quality: int = QUALITIES[0]) -> bytes:
    """Return (H, W, 3) pixels as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def decode_jpeg(encoded: bytes) -> npt.NDArray[np.uint8]:
    """Return a JPEG's (H, W, 3) pixels."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def downsample(image: FloatArray, factor: int) -> FloatArray:
    """Return (H, W, 3) means of blocks of factor x factor pixels; incomplete blocks are dropped."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)
