"""What a command left behind, as values that can be compared: two runs are equal where these are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import torch

from bigearthnet_cbir.storage.training_log import read_training_log

Results = dict[str, str]
"""What it is -> its value, or a digest of it."""

NOT_RESULTS = (".lock", "lock.mdb", "data.mdb")
TIMES = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def differences(one: Mapping[str, str], two: Mapping[str, str]) -> list[str]:
    """Return the names of what only one has, or has another value."""
    return sorted(name for name in {*one, *two} if one.get(name) != two.get(name))


def lmdb_records(path: Path) -> Results:
    environment = lmdb.open(str(path), readonly=True, lock=False)
    try:
        with environment.begin() as transaction:
            return {f"{path.name}/{key.decode()}": digest(value) for key, value in transaction.cursor()}
    finally:
        environment.close()


def placeless(content: str, places: Sequence[Path]) -> str:
    """Return a text without the folder that it is about."""
    for place in places:
        content = content.replace(str(place), "PLACE")
    return content


def text(path: Path, places: Sequence[Path]) -> Results:
    """The text of a file, with the times it was written at and the folder it is in left out."""
    return {path.name: digest(TIMES.sub("TIME", placeless(path.read_text(), places)).encode())}


def hdf5(path: Path, places: Sequence[Path]) -> Results:
    """Every dataset and attribute of an HDF5 file."""
    found = {}

    def value(name: str, content: Any) -> None:
        array = np.asarray(content)
        if array.dtype.kind in "OSU":
            plain = placeless(str(array.tolist()), places)
        else:
            plain = f"{array.dtype}{array.shape}{digest(np.ascontiguousarray(array).tobytes())}"
        found[f"{path.name}/{name}"] = plain

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            value(name, item[()])
        for key, content in item.attrs.items():
            value(f"{name}@{key}", content)

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
        for name in file:
            link = file.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                found[f"{path.name}/{name}"] = link.path
    return found


def checkpoint(path: Path) -> Results:
    """Every tensor and number of a checkpoint."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    return {f"{path.name}/{name}": value for name, value in _leaves("", content)}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _leaves(f"{name}.{number}", inner)
    elif isinstance(value, torch.Tensor):
        yield name, f"{value.dtype}{tuple(value.shape)}{digest(value.contiguous().numpy().tobytes())}"
    else:
        yield name, repr(value)


def finished_epochs(run: Path) -> int:
    """How many epochs a run's last checkpoint has; 0 where there is none."""
    last = run / "checkpoints_model_last.pth.tar"
    return int(torch.load(last, map_location="cpu", weights_only=True)["epoch"]) if last.exists() else 0


def training_curves(folder: Path) -> Results:
    """The curves of TensorBoard, without the one that is a speed."""
    curves = read_training_log(folder)
    return {f"training/{name}": repr(curve) for name, curve in curves.items() if name != "pairs_per_second"}


def everything(case: Path, places: Sequence[Path]) -> Results:
    """Everything that lies in a case's folder; a leftover shows by its name.

    Args:
        case: the folder.
        places: under which names the commands knew it, which their files may repeat.
    """
    found: Results = {}
    for path in sorted(case.rglob("*")):
        if path.is_dir():
            if path.name.endswith(".lmdb"):
                found |= lmdb_records(path)
            elif path.name == "training":
                found |= training_curves(path)
        elif path.name not in NOT_RESULTS and not path.name.startswith("events.out"):
            found[f"file {path.relative_to(case)}"] = "there"
            found |= content(path, places)
    return found


def content(path: Path, places: Sequence[Path]) -> Results:
    """What a file says, where it is a result."""
    if path.name.startswith("."):
        return {}
    if path.suffix == ".h5":
        return hdf5(path, places)
    if path.name.endswith(".pth.tar"):
        return checkpoint(path)
    if path.suffix in {".npy", ".parquet"}:
        return {path.name: digest(path.read_bytes())}
    return text(path, places) if path.suffix in {".html", ".yaml", ".csv", ".json"} else {}
