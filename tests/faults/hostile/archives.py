"""LMDB archives of every kind, built without the code under test, and their records one by one."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import numpy as np
from safetensors.numpy import save
from tests.faults.hostile.damage import Spans
from tests.faults.hostile.edits import edited_json
from tests.faults.hostile.subject import Subject, require

from bigearthnet_cbir.data import records
from bigearthnet_cbir.data.labels import CLASS_INDEX, CLASSES
from bigearthnet_cbir.data.patch_store import PatchStore, PatchWriter
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import Patch

SIDES = {
    **dict.fromkeys(("B02", "B03", "B04", "B08", "VV", "VH"), 120),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 60),
    **dict.fromkeys(("B01", "B09"), 20),
}
S1, S2 = ("VV", "VH"), tuple(band for band in SIDES if band[0] == "B")
_GROUPS = (("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12"), ("B01", "B09"))
_CORINE = ("Pastures", "Sea and ocean", "Bare rock", "Transitional woodland/shrub")
_PAIRS = 5
_LONG = "_" + "9" * 330
"""Makes keys so long that a few fill a page and the tree has branches."""

Bands = dict[str, np.ndarray]


def names(pair: int) -> tuple[str, str]:
    """Return the Sentinel-2 and Sentinel-1 name of a pair."""
    return f"S2A_MSIL2A_20170613T101031_{pair}_48{_LONG}", f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{pair}_48{_LONG}"


def bands_of(pair: int) -> tuple[Bands, Bands]:
    """Return the drawn pixels of a pair: Sentinel-2 uint16, Sentinel-1 float32."""
    generator = np.random.default_rng(pair)
    s2 = {band: generator.integers(0, 9000, (SIDES[band],) * 2, dtype=np.uint16) for band in S2}
    s1 = {band: generator.normal(-14, 4, (SIDES[band],) * 2).astype(np.float32) for band in S1}
    return s2, s1


def labels_of(pair: int) -> list[str]:
    """Return the 19-class names of a pair, in column order."""
    return [CLASSES[column] for column in (pair % 5, 7 + pair % 3, 18)]


def safetensors_record(bands: Bands, labels: list[str] | None) -> bytes:
    """Return what this project (with labels) or rico-hdl (without) stores."""
    return save(bands, None if labels is None else {"labels": json.dumps(labels)})


def original_s2_record(bands: Bands, labels: list[str], protocol: int = 4) -> bytes:
    """Return what the original scripts store of Sentinel-2."""
    stacks = (np.stack([bands[band] for band in group]).astype("f4") for group in _GROUPS)
    return pickle.dumps((*stacks, _hot(labels)), protocol)


def original_s1_record(bands: Bands, labels: list[str], protocol: int = 4) -> bytes:
    """Return what the original scripts store of Sentinel-1."""
    return pickle.dumps((bands["VV"][None], bands["VH"][None], _hot(labels)), protocol)


def _hot(labels: list[str]) -> np.ndarray:
    return np.isin(CLASSES, labels).astype("f8")


@contextmanager
def _encoder_classes() -> Iterator[dict[str, type]]:
    """Give classes of the names that bigearthnet_encoder pickles, importable while the block lasts."""
    spelt = {"merged": "BigEarthNet_S1_S2_Patch", "s1": "BigEarthNet_S1_Patch", "s2": "BigEarthNet_S2_Patch"}
    modules, classes = {"bigearthnet_patch_interface": types.ModuleType("bigearthnet_patch_interface")}, {}
    for part, name in {**spelt, "band": "Band"}.items():
        module = types.ModuleType(f"bigearthnet_patch_interface.{part}_interface")
        classes[part] = type(name, (), {"__module__": module.__name__})
        setattr(module, name, classes[part])
        modules[module.__name__] = module
    sys.modules.update(modules)
    try:
        yield classes
    finally:
        for name in modules:
            del sys.modules[name]


def encoder_record(s2: Bands, s1: Bands, labels: list[str]) -> bytes:
    """Return what bigearthnet_encoder stores of a pair."""
    with _encoder_classes() as classes:
        patch = classes["merged"]()
        for part, bands in (("s1", s1), ("s2", s2)):
            half = classes[part]()
            for band, pixels in bands.items():
                stored = classes["band"]()
                stored.data, stored.name = pixels, band
                setattr(half, f"band{band.removeprefix('B')}", stored)
            setattr(patch, f"{part}_patch", half)
        patch.labels, patch.new_labels = list(_CORINE), labels
        stream = io.BytesIO()
        pickle.Pickler(stream, protocol=4).dump(patch)
        return stream.getvalue()


def _entries(kind: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for pair in range(_PAIRS):
        (s2_name, s1_name), (s2, s1), labels = names(pair), bands_of(pair), labels_of(pair)
        if kind == "original S1":
            found[s1_name] = original_s1_record(s1, labels)
        elif kind == "original S2":
            found[s2_name] = original_s2_record(s2, labels)
        elif kind == "encoder":
            found[s2_name] = encoder_record(s2, s1, labels)
        else:
            given = labels if kind == "ours" else None
            found[s2_name], found[s1_name] = safetensors_record(s2, given), safetensors_record(s1, given)
    # Small records fill more pages of the tree; nobody reads them.
    found |= {f"{name}_{number}": b"small" for number in range(6) for name in list(found)[:3]}
    return found


def write_archive(folder: Path, entries: dict[str, bytes]) -> None:
    """Write an LMDB in several transactions, so that its list of free pages is not empty."""
    environment = lmdb.open(str(folder), map_size=1 << 25)
    for name, value in entries.items():
        with environment.begin(write=True) as transaction:
            transaction.put(name.encode(), value)
    environment.close()
    (folder / "lock.mdb").unlink()


def check_patch(patch: Patch) -> None:
    """Require a whole patch: both or one sensor's bands with their sizes and types, finite, known labels in order."""
    found = set(patch.bands)
    require(found, "a patch without bands")
    require(found <= set(SIDES), f"bands {found - set(SIDES)}")
    for sensor in (S1, tuple(band for band in S2 if band not in ("B01", "B09"))):
        require(found.isdisjoint(sensor) or found.issuperset(sensor), f"half a sensor: {sorted(found)}")
    kinds = set()
    for band, pixels in patch.bands.items():
        require(pixels.shape == (SIDES[band],) * 2, f"{band} is {pixels.shape}")
        require(pixels.dtype in (np.uint16, np.float32), f"{band} is {pixels.dtype}")
        require(np.isfinite(pixels).all(), f"{band} is not finite")
        require(band not in S1 or pixels.dtype == np.float32, f"{band} is {pixels.dtype}")
        kinds |= {pixels.dtype} if band in S2 else set()
    require(len(kinds) < 2, f"Sentinel-2 is of {kinds}")
    if patch.labels is not None:
        columns = [CLASS_INDEX[name] for name in patch.labels]
        require(columns == sorted(set(columns)), f"labels {patch.labels}")


def read_archive(folder: Path, kind: str) -> dict[str, Any]:
    """Read everything that training, retrieval and encoding read of an archive."""
    wanted = [name for pair in range(_PAIRS) for name in names(pair)]
    if kind == "original S1":
        wanted = wanted[1::2]
    elif kind in ("original S2", "encoder"):
        wanted = wanted[0::2]
    with PatchStore(folder) as store:
        found: dict[str, Any] = {"kind": store.kind, "missing": store.missing(wanted)}
        with store.reading() as read:
            for name in wanted[:2]:
                found[name] = Patch({band: pixels.copy() for band, pixels in read(name).bands.items()}, None)
        for name in wanted[2:]:
            found[name] = store.read(name)
        found["names"], found["length"] = list(store.names()), len(store)
    return found


def check_archive(found: dict[str, Any]) -> None:
    """Require whole patches and a count that agrees with the names."""
    require(not found["missing"], f"{len(found['missing'])} patches are called missing")
    require(found["length"] == len(found["names"]), f"{found['length']} entries, {len(found['names'])} names")
    require(found["names"] == sorted(set(found["names"])), "names are not in order")
    for value in found.values():
        if isinstance(value, Patch):
            check_patch(value)


def add_to_archive(folder: Path) -> dict[str, Any]:
    """Go on with an encoding: write again what does not decode, and one more pair; then read everything."""
    with PatchWriter(folder, map_size=1 << 25) as writer:
        for pair in range(_PAIRS + 1):
            for name, bands in zip(names(pair), bands_of(pair), strict=True):
                record = writer.record(name)
                try:
                    whole = record is not None and records.decode(record).labels is not None
                except DataError:
                    whole = False
                if not whole:
                    writer.write(name, Patch(dict(bands), tuple(labels_of(pair))))
    with PatchStore(folder) as store:
        added = {name: store.read(name) for name in names(_PAIRS)}
    return {**read_archive(folder, "ours"), **added}


def tree_pages(_: str, content: bytes) -> Spans:
    """Return where the pages of the tree and the two heads of a data.mdb lie; the rest are pixels."""
    starts = range(0, len(content) - 4095, 4096)
    found = []
    overflow = 0
    for start in starts:
        if overflow:
            overflow -= 1
            continue
        flags, length = struct.unpack_from("<HI", content, start + 10)
        if flags & 4:  # the first of several pages with one record
            overflow = length - 1
            found.append((start, start + 600))
        else:
            found.extend([(start, start + 160), (start, start + 4096)] if flags & 8 else [(start, start + 64)] * 2)
            found.append((start, start + 4096))
    return found


def _record_spans(name: str, content: bytes) -> Spans:
    """Return where a record is no pixels: its first bytes, and between the arrays of a pickle."""
    if name.endswith("safetensors"):
        return [(0, 8 + int.from_bytes(content[:8], "little"))]
    large = [(start, len(argument)) for _, argument, start in pickletools.genops(content) if _is_pixels(argument)]
    starts, stops = [0, *(start + 5 + length for start, length in large)], [start + 5 for start, _ in large]
    return list(zip(starts, [*stops, len(content)], strict=True))


def _is_pixels(argument: Any) -> bool:
    return isinstance(argument, bytes) and len(argument) > 100


def _edit_record(folder: Path, random: Random) -> str:
    """Change one thing in the header of a safetensors record."""
    path = folder / "record.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if random.random() < 0.3:
        header["__metadata__"]["labels"], told = edited_json(header["__metadata__"]["labels"].encode(), random)
        header["__metadata__"]["labels"] = header["__metadata__"]["labels"].decode(errors="replace")
        changed = json.dumps(header).encode()
    else:
        changed, told = edited_json(content[8:end], random)
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[end:])
    return f"header: {told}"


def _record_subject(kind: str, record: Callable[[], bytes]) -> Subject:
    name = "record.safetensors" if kind == "ours" else "record.pickle"
    return Subject(
        f"record, {kind}",
        build=lambda folder: (folder / name).write_bytes(record()) and None,
        read=lambda folder: records.decode((folder / name).read_bytes()),
        check=check_patch,
        spans=_record_spans,
        edit=_edit_record if kind == "ours" else None,
    )


_RECORDS = {
    "original S1": lambda: original_s1_record(bands_of(0)[1], labels_of(0)),
    "original S2": lambda: original_s2_record(bands_of(0)[0], labels_of(0), 5),
    "encoder": lambda: encoder_record(*bands_of(0), labels_of(0)),
    "ours": lambda: safetensors_record(bands_of(0)[0], labels_of(0)),
}


def _archive_subject(kind: str) -> Subject:
    return Subject(
        f"LMDB, {kind}",
        build=lambda folder: write_archive(folder, _entries(kind)),
        read=lambda folder: read_archive(folder, kind),
        check=check_archive,
        targets="data.mdb",
        spans=tree_pages,
    )


ARCHIVES = (
    *(_archive_subject(kind) for kind in ("original S1", "original S2", "encoder", "rico", "ours")),
    Subject(
        "LMDB, written to",
        build=lambda folder: write_archive(folder, _entries("ours")),
        read=add_to_archive,
        check=check_archive,
        targets="data.mdb",
        spans=tree_pages,
    ),
    *(_record_subject(kind, record) for kind, record in _RECORDS.items()),
)
