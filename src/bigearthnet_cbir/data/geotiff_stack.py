"""Conversion of one GeoTIFF with named bands, of any size and resolution, to a patch for an encoder."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.bands import BAND_SIZES, MODEL_S2_BANDS, PATCH_SIZE, S1_BANDS
from bigearthnet_cbir.data.patch_rules import Bands, check_values
from bigearthnet_cbir.errors import DataError, MissingDataError, summarize_names

MOST_PIXELS: Final = 4096
"""Maximum width and height of a stack in pixels: 40 km at 10 m."""

_METRES: Final = 1200
_BAND: Final = re.compile(r"(?:.*[^A-Z0-9])?(?:B0?(\d{1,2})(A?)|(V[VH]))(?![A-Z0-9]).*", re.IGNORECASE)
_LEAST_REFLECTANCE: Final = 4.0
"""Float bands without any greater value are reflectance from 0 to 1, not reflectance x 10 000."""


@dataclass(frozen=True)
class StackPatch:
    """The bands of one sensor, cut from a stack.

    Attributes:
        bands: band name -> (120, 120) or (60, 60), uint16 or float32.
        changes: descriptions of the changes made to obtain a patch; empty without changes.
    """

    bands: Bands
    changes: tuple[str, ...]


def read_stack(path: Path, sensor: str) -> StackPatch:
    """Return the bands of one sensor from the centre of a stack.

    The description of a band in the file identifies it ("B02", "b8a", "VV"). Each band is resampled to its native
    resolution (10 or 20 m): averaged if the stack is finer, bilinear if it is coarser. Then it is cropped or padded
    around its centre to 1.2 km. Padding repeats the outermost pixels.

    Args:
        path: a GeoTIFF in metres.
        sensor: "s1" for VV and VH in dB, "s2" for the ten bands of the encoders, reflectance x 10 000.

    Raises:
        DataError: it is missing or unreadable, lacks a band, is in degrees, too large, has pixels without data, or
            values outside the range of its unit.
    """
    import rasterio  # imported only if a stack is read
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if not path.is_file():
        raise MissingDataError(f"{path}: there is no such file; give a patch folder or a GeoTIFF")
    wanted = S1_BANDS if sensor == "s1" else MODEL_S2_BANDS
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # reported by a message of this module
            with rasterio.open(path, driver="GTiff") as source:
                return _read(source, path, sensor, wanted)
    except RasterioError as error:
        raise DataError(f"{path}: not a readable GeoTIFF ({str(error)[:100]})") from error


def _read(source: Any, path: Path, sensor: str, wanted: Sequence[str]) -> StackPatch:
    numbers = _numbers(source, path, wanted)
    if max(source.shape) > MOST_PIXELS:
        raise DataError(f"{path}: {source.width}x{source.height} pixels; cut it to {MOST_PIXELS} a side or less")
    metres, changes = _pixel_metres(source, path)
    found: dict[str, npt.NDArray[np.generic]] = {}
    for band in wanted:
        native = _METRES / (BAND_SIZES[band])
        pixels = _resampled(source, numbers[band], metres, native, path, band)
        found[band] = _fitted(pixels, BAND_SIZES[band])
    _check_units(found, path, sensor)
    shape = tuple(round(size * step / 10) for size, step in zip(source.shape, metres, strict=True))
    if metres != (10.0, 10.0):
        changes.append(f"resampled from {metres[1]:g} x {metres[0]:g} m to 10 m")
    if shape != (PATCH_SIZE, PATCH_SIZE):
        what = "cut" if min(shape) >= PATCH_SIZE else "padded" if max(shape) <= PATCH_SIZE else "cut and padded"
        changes.append(f"{what} from {shape[1]} x {shape[0]} to {PATCH_SIZE} x {PATCH_SIZE} pixels around its middle")
    return StackPatch(found, tuple(changes))


def band_of(description: str | None) -> str | None:
    """Return the band that a description names ("B2", "sentinel-2 b8a", "VV"), or None."""
    found = _BAND.fullmatch(description or "")
    if found is None:
        return None
    name = found[3].upper() if found[3] else f"B{int(found[1]):02d}" if not found[2] else f"B{int(found[1])}A"
    return name if name in BAND_SIZES else None


def _numbers(source: Any, path: Path, wanted: Sequence[str]) -> dict[str, int]:
    """Return band -> its 1-based number in the file."""
    found: dict[str, int] = {}
    for number, description in zip(source.indexes, source.descriptions, strict=True):
        band = band_of(description)
        if band is not None and found.setdefault(band, number) != number:
            raise DataError(f"{path}: two bands are described as {band}; describe each once")
    lacking = [band for band in wanted if band not in found]
    if lacking:
        told = summarize_names([str(text) for text in source.descriptions if text]) or "none"
        raise DataError(f"{path}: no band is described as {', '.join(lacking)}; its band descriptions are: {told}")
    return found


def _pixel_metres(source: Any, path: Path) -> tuple[tuple[float, float], list[str]]:
    """Return the pixel size in metres, down and across, and the assumptions that were made."""
    if source.crs is None:
        return (10.0, 10.0), ["taken to have pixels of 10 m: it says no coordinate system"]
    transform = source.transform
    if source.crs.is_geographic or transform.b or transform.d:
        raise DataError(f"{path}: is in degrees, or turned; warp it to UTM: gdalwarp -t_srs EPSG:326zz -tr 10 10")
    unit = float(source.crs.linear_units_factor[1])
    metres = abs(transform.e) * unit, abs(transform.a) * unit
    if not all(1 <= step <= _METRES for step in metres):
        raise DataError(f"{path}: pixels of {metres[1]:g} x {metres[0]:g} m; they must be of 1 to {_METRES} m")
    return metres, []


def _resampled(
    source: Any, number: int, metres: tuple[float, float], native: float, path: Path, band: str
) -> npt.NDArray[np.generic]:
    """Return a band at its native resolution; a band that has it already is not resampled."""
    from rasterio.enums import Resampling

    mask = source.read_masks(number)
    pixels = source.read(number)
    empty = int((mask == 0).sum()) if pixels.dtype.kind != "f" else int(((mask == 0) | ~np.isfinite(pixels)).sum())
    if empty:
        raise DataError(f"{path}: {empty:,} pixels of band {band} are NaN or without data; choose a place without gaps")
    shape = tuple(max(1, round(size * step / native)) for size, step in zip(source.shape, metres, strict=True))
    if shape == source.shape:
        return np.asarray(pixels)
    way = Resampling.average if math.prod(shape) < math.prod(source.shape) else Resampling.bilinear
    return np.asarray(source.read(number, out_shape=shape, resampling=way))


def _fitted(pixels: npt.NDArray[np.generic], size: int) -> npt.NDArray[np.generic]:
    """Return the central size x size pixels; smaller bands are padded by repeating the outermost pixels."""
    for axis in (0, 1):
        length = pixels.shape[axis]
        if length > size:
            first = (length - size) // 2
            pixels = np.take(pixels, range(first, first + size), axis)
        elif length < size:
            before = (size - length) // 2
            width = [(0, 0), (0, 0)]
            width[axis] = before, size - length - before
            pixels = np.pad(pixels, width, "edge")
    return pixels


def _check_units(bands: dict[str, npt.NDArray[np.generic]], path: Path, sensor: str) -> None:
    """Convert the values to the data types that encoders accept, and reject values of another unit."""
    for band, pixels in bands.items():
        bands[band] = pixels if pixels.dtype == np.uint16 and sensor == "s2" else pixels.astype(np.float32)
    kinds = {pixels.dtype for pixels in bands.values()}
    if len(kinds) > 1:
        bands.update({band: pixels.astype(np.float32) for band, pixels in bands.items()})
    try:
        check_values(bands)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    highest = max(float(np.max(pixels)) for pixels in bands.values())
    lowest = min(float(np.min(pixels)) for pixels in bands.values())
    if sensor == "s2" and highest <= _LEAST_REFLECTANCE:
        raise DataError(f"{path}: no value is above {highest:g}; Sentinel-2 must be reflectance x 10 000: multiply it")
    if sensor == "s1" and lowest >= 0:
        raise DataError(f"{path}: no value is below {lowest:g}; Sentinel-1 must be in dB: take 10 log10 of the power")
