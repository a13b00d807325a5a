"""Patch folders: GeoTIFFs in plain strips and compressed, and the JSONs of version 1."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import rasterio
from tests.faults.hostile.archives import S1, S2, SIDES, bands_of
from tests.faults.hostile.damage import Spans
from tests.faults.hostile.edits import edited_json
from tests.faults.hostile.subject import Subject, require

from bigearthnet_cbir.data.geotiff import read_s1_folder, read_s2_folder, write_s1_folder, write_s2_folder
from bigearthnet_cbir.data.labels import CLASS_INDEX
from bigearthnet_cbir.data.patch_folders import read_notes

_S1_NAME, _S2_NAME = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48", "S2A_MSIL2A_20170613T101031_87_48"
_LABELS = ("Sea and ocean", "Pastures")


def _build_plain(folder: Path) -> None:
    s2, s1 = bands_of(0)
    write_s2_folder(folder, _S2_NAME, s2, _LABELS)
    write_s1_folder(folder, _S1_NAME, s1, _LABELS, _S2_NAME)


def _build_compressed(folder: Path) -> None:
    """Write the same by another tool: tiles, deflate, a predictor; B03 in strips, B04 as BigTIFF."""
    _build_plain(folder)
    layouts = {
        "B03": {"compress": "lzw"},
        "B04": {"BIGTIFF": "YES"},
        "VV": {"compress": "deflate", "predictor": 3, "tiled": True, "blockxsize": 64, "blockysize": 64},
    }
    for path in sorted(folder.glob("*/*.tif")):
        with rasterio.open(path) as source:
            pixels, profile = source.read(), source.profile
        band = path.stem.rsplit("_", 1)[1]
        layout = layouts.get(band, {"compress": "deflate", "predictor": 2} if band in S2 else {"compress": "deflate"})
        kept = {key: profile[key] for key in ("width", "height", "count", "dtype")}
        with rasterio.open(path, "w", driver="GTiff", crs=32633, **kept, **layout) as target:
            target.write(pixels)


def _read(folder: Path) -> dict[str, Any]:
    s1, s2 = folder / _S1_NAME, folder / _S2_NAME
    return {"s2": read_s2_folder(s2), "s1": read_s1_folder(s1), "notes": [read_notes(s1), read_notes(s2)]}


def _check(found: dict[str, Any]) -> None:
    for sensor, bands, dtype in (("s2", S2, np.uint16), ("s1", S1, np.float32)):
        require(set(found[sensor]) == set(bands), f"{sensor} has {sorted(found[sensor])}")
        for band, pixels in found[sensor].items():
            require(pixels.shape == (SIDES[band],) * 2, f"{band} is {pixels.shape}")
            require(pixels.dtype == dtype, f"{band} is {pixels.dtype}")
            require(np.isfinite(pixels).all() and (sensor == "s2" or abs(pixels).max() <= 500), f"{band} is no dB")
    for notes in found["notes"]:
        columns = [CLASS_INDEX[name] for name in notes.labels]
        require(columns == sorted(set(columns)), f"labels {notes.labels}")
        require(notes.s2 is None or (isinstance(notes.s2, str) and notes.s2), f"partner {notes.s2!r}")


def _spans(name: str, content: bytes) -> Spans:
    if name.endswith(".json"):
        return ()
    return [(0, 16), (0, 400), (max(len(content) - 600, 0), len(content))]


def _edit(folder: Path, random: Random) -> str:
    path = random.choice(sorted(folder.glob("*/*.json")))
    changed, told = edited_json(path.read_bytes(), random)
    path.write_bytes(changed)
    return f"{path.name}: {told}"


PATCHES = (
    Subject("GeoTIFF and JSON", _build_plain, _read, _check, spans=_spans, edit=_edit, edits=0.25),
    Subject("GeoTIFF, compressed", _build_compressed, _read, _check, targets="*/*.tif", spans=_spans),
)
