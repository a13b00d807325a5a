"""Validation rules for patches of any archive format."""

from __future__ import annotations

import math
import re
from enum import Enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.bands import BAND_SIZES, MODEL_S2_BANDS, S1_BANDS
from bigearthnet_cbir.errors import DataError, short

Bands = dict[str, npt.NDArray[np.generic]]
DTYPES: Final[dict[str, np.dtype[Any]]] = {"U16": np.dtype("<u2"), "F32": np.dtype("<f4")}
S1_NAME, S2_NAME = (re.compile(rf"{sensor}[A-D]_[!#-+\--~]{{1,500}}") for sensor in ("S1", "S2"))
"""Names of patches: printable ASCII without spaces, quotes and commas, short enough for a key of LMDB."""

_DECIBELS: Final = (-500.0, 500.0)
"""Backscatter beyond this is invalid: any float32 power is between -449 and 385 dB."""

_REFLECTANCE: Final = (0.0, 65535.0)
"""Values of float32 archives were uint16 originally."""


class RecordKind(Enum):
    """Format of a record; the value is shown in the log."""

    SAFETENSORS = "safetensors (this project, rico-hdl)"
    ORIGINAL_S1 = "pickled Sentinel-1 arrays (original scripts)"
    ORIGINAL_S2 = "pickled Sentinel-2 arrays (original scripts)"
    ENCODER = "pickled patch objects (bigearthnet_encoder)"


def side_of(band: str) -> int:
    """Return the side of a band in pixels; raises DataError for an unknown band."""
    if band not in BAND_SIZES:
        raise DataError(f"{short(band)} is not a band of BigEarthNet; they are {', '.join(BAND_SIZES)}")
    return BAND_SIZES[band]


def check_bands(bands: Bands) -> None:
    """Raise DataError if a band is missing or unknown or has a wrong size, data type or value."""
    check_complete(set(bands))
    for band, pixels in bands.items():
        side = side_of(band)
        if pixels.shape != (side, side) or pixels.dtype.newbyteorder("<") not in DTYPES.values():
            raise DataError(f"band {band} is {pixels.shape} of {pixels.dtype}, but must be {side}x{side} of u2 or f4")
    check_dtypes({band: pixels.dtype for band, pixels in bands.items()})
    check_values(bands)


def check_dtypes(dtypes: dict[str, np.dtype[Any]]) -> None:
    """Refuse integer Sentinel-1 values and Sentinel-2 bands of two data types (one would overflow in a batch)."""
    for band in S1_BANDS:
        if band in dtypes and dtypes[band].kind != "f":
            raise DataError(f"band {band} is {dtypes[band]}, but Sentinel-1 is float32 decibels; encode it again")
    s2 = {dtypes[band].kind: band for band in sorted(dtypes, reverse=True) if band not in S1_BANDS}
    if len(s2) > 1:
        raise DataError(
            f"band {s2['u']} is uint16 and band {s2['f']} float32, but all bands of a Sentinel-2 patch have one "
            "data type; encode it again"
        )


def check_complete(bands: set[str]) -> None:
    """Refuse an incomplete sensor; B01 and B09, which the encoders do not use, may be missing."""
    for band in bands:
        side_of(band)
    wanted = {band for sensor in (S1_BANDS, MODEL_S2_BANDS) if not bands.isdisjoint(sensor) for band in sensor}
    lacking = sorted(wanted - bands)
    if lacking or not wanted:
        raise DataError(f"band {', '.join(lacking or ['VV, VH, B02'])} is missing from the record; encode it again")


def check_values(bands: Bands) -> None:
    """Raise DataError if a float band has NaN, infinite or physically impossible values."""
    for band, pixels in bands.items():
        if pixels.dtype.kind != "f":
            continue
        low, high = float(pixels.min()), float(pixels.max())  # NaN if any pixel is NaN
        least, most = _DECIBELS if band in S1_BANDS else _REFLECTANCE
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(f"band {band} holds NaN or infinite values; exclude this patch")
        if low < least or high > most:
            value, unit = low if low < least else high, "decibels" if band in S1_BANDS else "reflectance x 10 000"
            raise DataError(f"band {band} holds {value:g}, no valid value in {unit}; encode it again, or exclude it")
