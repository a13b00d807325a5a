"""Writer of single-band GeoTIFFs laid out exactly as the published patches, for demo and test archives."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

_SHORT, _LONG, _DOUBLE, _ASCII = 3, 4, 12, 2
_CODES: Final = {_SHORT: "H", _LONG: "I", _DOUBLE: "d"}
_SIZES: Final = {_SHORT: 2, _LONG: 4, _DOUBLE: 8, _ASCII: 1}
_STRIP_BYTES: Final = 8192
_SAMPLE_FORMATS: Final = {np.dtype(np.uint16): 1, np.dtype(np.float32): 3}
_STRIP_OFFSETS: Final = 273


def write_tiff(
    path: Path, pixels: npt.NDArray[np.generic], *, upper_left: tuple[float, float], pixel_size: float, utm_zone: int
) -> None:
    """Write one band in little-endian uncompressed strips with UTM north coordinates.

    The coordinate system is written as the GeoTIFF keys of OGC 19-008r4: projected, pixel is area, EPSG 326xx.

    Args:
        path: file to write.
        pixels: (H, W), uint16 or float32.
        upper_left: easting and northing of the patch's outer corner, in metres.
        pixel_size: metres along one side of a pixel.
        utm_zone: 1 to 60, northern hemisphere.
    """
    height, width = pixels.shape
    row_bytes = width * pixels.dtype.itemsize
    rows = min(height, max(1, _STRIP_BYTES // row_bytes))
    counts = [min(rows, height - top) * row_bytes for top in range(0, height, rows)]
    text = f"WGS 84 / UTM zone {utm_zone}N|WGS 84|\0"
    fields: list[tuple[int, int, bytes]] = [
        _field(256, _SHORT, width),
        _field(257, _SHORT, height),
        _field(258, _SHORT, pixels.dtype.itemsize * 8),
        _field(259, _SHORT, 1),  # no compression
        _field(262, _SHORT, 1),  # black is zero
        _field(_STRIP_OFFSETS, _LONG, *([0] * len(counts))),
        _field(277, _SHORT, 1),
        _field(278, _SHORT, rows),
        _field(279, _LONG, *counts),
        _field(284, _SHORT, 1),
        _field(339, _SHORT, _SAMPLE_FORMATS[pixels.dtype]),
        _field(33550, _DOUBLE, pixel_size, pixel_size, 0.0),
        _field(33922, _DOUBLE, 0.0, 0.0, 0.0, upper_left[0], upper_left[1], 0.0),
        _field(34735, _SHORT, *_geo_keys(utm_zone, len(text))),
        (34737, _ASCII, text.encode("ascii")),
    ]
    offsets, position = [], len(_header(fields))
    for count in counts:
        offsets.append(position)
        position += count
    fields[5] = _field(_STRIP_OFFSETS, _LONG, *offsets)
    little_endian = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    path.write_bytes(_header(fields) + little_endian.tobytes())


def _field(tag: int, kind: int, *values: float) -> tuple[int, int, bytes]:
    return tag, kind, struct.pack(f"<{len(values)}{_CODES[kind]}", *values)


def _geo_keys(utm_zone: int, text_length: int) -> tuple[int, ...]:
    """Return the GeoKeyDirectory: a header of four, then key, location, count, value."""
    title = text_length - len("WGS 84|\0")
    return (
        *(1, 1, 0, 7),
        *(1024, 0, 1, 1),  # projected
        *(1025, 0, 1, 1),  # pixel is area
        *(1026, 34737, title, 0),
        *(2049, 34737, text_length - title - 1, title),
        *(2054, 0, 1, 9102),  # degrees
        *(3072, 0, 1, 32600 + utm_zone),
        *(3076, 0, 1, 9001),  # metres
    )


def _header(fields: list[tuple[int, int, bytes]]) -> bytes:
    """Return everything before the pixels: the directory, then the values too long to stand in it."""
    beside = 8 + 2 + 12 * len(fields) + 4
    entries, values = b"", b""
    for tag, kind, value in fields:
        entries += struct.pack("<HHI", tag, kind, len(value) // _SIZES[kind])
        if len(value) <= 4:
            entries += value.ljust(4, b"\0")
            continue
        entries += struct.pack("<I", beside + len(values))
        values += value + b"\0" * (len(value) % 2)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + b"\0\0\0\0" + values
