"""Images of patches for the report and the embedding projector, read from the patch stores of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.report.rgb import QUALITIES, RGB_BANDS, downsample, encode_jpeg, stretch, stretch_limits, to_rgb
from bigearthnet_cbir.types import ByteArray, FloatArray, PatchPair

MAX_BYTES: Final = 6_500_000
"""Limit of all JPEG images; base64 adds a third, so that the page stays below 10 MB."""


class PatchImages:
    """Reads patches as images, each patch once.

    Args:
        s1: LMDB folder with the Sentinel-1 patches.
        s2: LMDB folder with the Sentinel-2 patches.
        downsampling: pixels along each side that are averaged to one.
    """

    def __init__(self, s1: Path, s2: Path, downsampling: int = 1) -> None:
        self._downsampling = downsampling
        self._stores = {"s1": PatchStore(s1), "s2": PatchStore(s2)}
        self._keys: dict[tuple[str, str], str] = {}
        self._values: dict[str, FloatArray] = {}

    def key(self, sensor: str, pair: PatchPair) -> str:
        """Read the patch of a pair and return the key of its image.

        Raises:
            DataError: the store or the patch cannot be read.
        """
        store = self._stores[sensor]
        name = store.s1_name(pair) if sensor == "s1" else pair.s2
        if (sensor, name) not in self._keys:
            bands = RGB_BANDS[sensor]
            values = to_rgb(sensor, dict(zip(bands, store.read_bands(name, bands), strict=True)))
            key = self._keys[sensor, name] = f"{sensor}-{len(self._keys)}"
            self._values[key] = downsample(values, self._downsampling) if self._downsampling > 1 else values
        return self._keys[sensor, name]

    def pixels(self) -> dict[str, ByteArray]:
        """Return key -> (H, W, 3) uint8 of every image; all images of a sensor share one contrast stretch."""
        found: dict[str, ByteArray] = {}
        for sensor in self._stores:
            values = {key: value for key, value in self._values.items() if key.startswith(sensor)}
            if values:
                limits = stretch_limits(list(values.values()))
                found |= {key: stretch(value, limits) for key, value in values.items()}
        return found

    def encoded(self) -> dict[str, bytes]:
        """Return key -> JPEG of every image, with the highest quality that fits into MAX_BYTES, else the lowest."""
        images = self.pixels()
        found: dict[str, bytes] = {}
        for quality in QUALITIES:
            found = {key: encode_jpeg(pixels, quality) for key, pixels in images.items()}
            if sum(map(len, found.values())) <= MAX_BYTES:
                break
        return found
