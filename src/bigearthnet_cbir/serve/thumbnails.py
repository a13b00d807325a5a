"""Thumbnails of patches for the page: read from the patch stores and cached in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.errors import CbirError
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.report.rgb import RGB_BANDS, encode_jpeg, stretch, stretch_limits, to_rgb
from bigearthnet_cbir.types import FloatArray, PatchPair

KEPT_BYTES: Final = 64 << 20
"""Maximum size in bytes of the JPEG images in memory: about 13,000 images."""

SAMPLE: Final = 64
"""Number of patches, evenly spaced over the index, from which the contrast stretch of a sensor is computed."""


class Thumbnails:
    """S2 in true colour, S1 in false colour (VV, VH, VV - VH); one contrast stretch for all images of a sensor.

    Args:
        index: of the patches.
        s1: LMDB folder with its Sentinel-1 patches; None if unknown.
        s2: LMDB folder with its Sentinel-2 patches; None if unknown.
        kept_bytes: maximum size of the cached images; the least recently used are dropped.
    """

    def __init__(self, index: Index, s1: Path | None, s2: Path | None, kept_bytes: int = KEPT_BYTES) -> None:
        self._index = index
        self._stores = {sensor: None if path is None else PatchStore(path) for sensor, path in (("s1", s1), ("s2", s2))}
        self._limits: dict[str, npt.NDArray[Any]] = {}
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes, self._most = 0, kept_bytes
        self._guard, self._reading = threading.Lock(), threading.Lock()

    @property
    def available(self) -> bool:
        """Whether the patch stores can be read."""
        try:
            return all(store is not None and bool(store.kind) for store in self._stores.values())
        except (CbirError, OSError):
            return False

    def jpeg(self, sensor: str, position: int) -> bytes:
        """Return the image of a patch.

        Raises:
            DataError: the store or the patch cannot be read.
            KeyError: no store of this sensor is known.
        """
        key = sensor, position
        with self._guard:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._reading:
            values = self._values(sensor, position)
            limits = self._stretch(sensor)
        picture = encode_jpeg(stretch(values, limits))
        self._keep(key, picture)
        return picture

    def encode(self, sensor: str, bands: dict[str, npt.NDArray[Any]]) -> bytes:
        """Return the image of a patch outside the index, with the same contrast stretch."""
        values = to_rgb(sensor, bands)
        with self._reading:
            limits = self._stretch(sensor) if self._stores[sensor] is not None else stretch_limits([values])
        return encode_jpeg(stretch(values, limits))

    def _keep(self, key: tuple[str, int], picture: bytes) -> None:
        with self._guard:
            if key not in self._kept:
                self._kept[key] = picture
                self._bytes += len(picture)
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def _stretch(self, sensor: str) -> npt.NDArray[Any]:
        if sensor not in self._limits:
            chosen = np.unique(np.linspace(0, self._index.size - 1, SAMPLE).astype(int)).tolist()
            self._limits[sensor] = stretch_limits([self._values(sensor, position) for position in chosen])
        return self._limits[sensor]

    def _values(self, sensor: str, position: int) -> FloatArray:
        store = self._stores[sensor]
        if store is None:
            raise KeyError(sensor)
        pair: PatchPair = self._index.pair(position)
        bands = RGB_BANDS[sensor]
        name = store.s1_name(pair) if sensor == "s1" else pair.s2
        return to_rgb(sensor, dict(zip(bands, store.read_bands(name, bands), strict=True)))
