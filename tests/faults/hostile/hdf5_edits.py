"""Seeded edits of HDF5 files by the library itself: well formed, and wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from tests.faults.hostile.edits import ODD


def edit_hdf5(path: Path, random: Random) -> str:
    """Change one thing in a file, and say what."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = random.choice(names)
        action = random.choice(_ACTIONS)
        told = action(file, name, random)
        return f"{path.name}: {name}: {action.__name__.removeprefix('_')} {told}"


def _replace(file: h5py.File, name: str, **options: Any) -> None:
    """Put another dataset into a dataset's place; its attributes stay."""
    attributes = dict(file[name].attrs)
    del file[name]
    item = file.create_dataset(name, **options)
    item.attrs.update(attributes)


def _value(file: h5py.File, name: str, random: Random) -> str:
    item = file[name]
    place = tuple(random.randrange(length) for length in item.shape)
    if item.dtype.kind in "iuf":
        choices = (2, 255, 1, 0, -1, 10**6, 0.5, -0.5, np.nan, np.inf, -np.inf)
        kept = choices[: 4 if item.dtype.kind == "u" else 6 if item.dtype.kind == "i" else None]
        value = random.choice(kept)
        item[place] = np.asarray(value).astype(item.dtype)
    else:
        value = random.choice(("", "x", "\n", "é" * 3, b"\xff\xfe"))
        item[place] = value
    return f"{place} set to {value!r}"


def _unsealed_value(file: h5py.File, name: str, random: Random) -> str:
    """Change a value where nothing tells it, as in a file of an earlier version."""
    for place in (file[name].attrs, file.attrs):
        for key in ("sha256", "content_sha256"):
            if key in place:
                del place[key]
    return _value(file, name, random)


def _removed(file: h5py.File, name: str, _: Random) -> str:
    del file[name]
    return ""


def _type(file: h5py.File, name: str, random: Random) -> str:
    kind = random.choice(("f2", "f8", ">f4", "i1", "u8", ">i4", "?", "c8", "S5", "V3", "i4,f4", "O"))
    shape = file[name].shape
    if kind == "O":
        references = np.full(shape, file.ref, h5py.ref_dtype)
        _replace(file, name, data=references, dtype=h5py.ref_dtype)
    else:
        values = file[name][()] if file[name].dtype.kind in "iuf" else np.zeros(shape)
        plain = kind not in ("V3", "i4,f4", "S5")
        with np.errstate(all="ignore"):
            _replace(file, name, data=values.astype(kind) if plain else np.zeros(shape, kind))
    return kind


def _shape(file: h5py.File, name: str, random: Random) -> str:
    values = file[name][()]
    changed = random.choice((values[:-1], values[:0], values[None], values.ravel()[:1], values.T, values.ravel()))
    _replace(file, name, data=changed, dtype=file[name].dtype)
    return f"{values.shape} -> {changed.shape}"


def _huge(file: h5py.File, name: str, random: Random) -> str:
    shape = tuple(random.choice((length, 2**20, 2**33, 2**40)) for length in file[name].shape)
    way = random.choice(({}, {"chunks": (1,) * len(shape)}, {"chunks": (7,) * len(shape), "compression": "gzip"}))
    dtype = file[name].dtype
    if shape == file[name].shape:
        shape = (2**33, *shape[1:])
    _replace(file, name, shape=shape, dtype=dtype, **way)
    return f"{shape} claimed {way}"


def _packed(file: h5py.File, name: str, random: Random) -> str:
    """Store the same in another way, which is no damage where the filter is known."""
    way = random.choice(({"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}, {"scaleoffset": 3}))
    item = file[name]
    if "scaleoffset" in way and item.dtype.kind not in "iu":
        way = {"fletcher32": True}
    _replace(file, name, data=item[()], dtype=item.dtype, chunks=item.shape, **way)
    return str(way)


def _half_written(file: h5py.File, name: str, _: Random) -> str:
    shape, dtype, values = file[name].shape, file[name].dtype, file[name][()]
    _replace(file, name, shape=shape, dtype=dtype, chunks=(1, *shape[1:]))
    file[name][: len(values) // 2] = values[: len(values) // 2]
    return ""


def _linked(file: h5py.File, name: str, random: Random) -> str:
    others = ["/", f"/{name}", "/nowhere", "/fused/precision", "/label", "/patch_name"]
    way: Any = random.choice(
        (h5py.SoftLink(random.choice(others)), h5py.ExternalLink("other.h5", "/x"), h5py.ExternalLink("/dev/zero", "/"))
    )
    del file[name]
    file[name] = way
    return f"{way!r}"


def _shared(file: h5py.File, name: str, random: Random) -> str:
    """Give an object two names, now and then a group inside itself."""
    parent = file[name].parent
    other = random.choice([item for item in parent if item != name.rsplit("/", 1)[-1]] or ["/"])
    if random.random() < 0.3:
        parent["loop"] = parent
        return "a group in itself"
    kept = parent.get(other, file)
    del file[name]
    file[name] = kept
    return f"is {other} too"


def _elsewhere(file: h5py.File, name: str, random: Random) -> str:
    shape, dtype = file[name].shape, file[name].dtype
    if dtype.kind not in "iuf":
        return _removed(file, name, random)
    if random.random() < 0.5:
        _replace(file, name, shape=shape, dtype=dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
        return "/etc/passwd"
    layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
    layout[...] = h5py.VirtualSource("/nowhere.h5", "x", shape=shape)
    del file[name]
    file.create_virtual_dataset(name, layout)
    return "virtual"


def _grouped(file: h5py.File, name: str, _: Random) -> str:
    del file[name]
    file.create_group(f"{name}/{name}")
    return ""


def _swapped(file: h5py.File, name: str, random: Random) -> str:
    other = random.choice(list(file[name].parent))
    parent = file[name].parent
    own = name.rsplit("/", 1)[-1]
    if other != own:
        parent.move(own, "held")
        parent.move(other, own)
        parent.move("held", other)
    return f"with {other}"


def _attribute(file: h5py.File, name: str, random: Random) -> str:
    item = random.choice((file, file, file, file[name], file[name].parent))
    key = random.choice([*item.attrs, "more"])
    action = random.choice(("odd", "odd", "removed", "type"))
    if action == "removed" and key in item.attrs:
        del item.attrs[key]
        return f"{key} removed"
    value = random.choice(ODD)
    if action == "type":
        value = random.choice((np.zeros(3, "i4,f4"), file.ref, h5py.Empty("f4"), np.bytes_(b"\xff"), np.zeros((2, 2)),
                               np.void(b"xx"), b"\xff\xfe", ["a", "b"], np.bool_(True), np.float16(2)))  # fmt: skip
    try:
        item.attrs[key] = value
    except (TypeError, ValueError, OverflowError, OSError):
        item.attrs[key] = repr(value)[:50].replace("\x00", "")
    return f"{key} = {value!r:.40}"


_ACTIONS: tuple[Callable[[h5py.File, str, Random], str], ...] = (
    _value, _value, _unsealed_value, _unsealed_value, _removed, _type, _shape, _huge, _packed, _half_written, _linked,
    _shared, _elsewhere, _grouped, _swapped, _attribute, _attribute, _attribute,
)  # fmt: skip
