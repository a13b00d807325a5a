"""Folder layouts of BigEarthNet v1 and v2, and the JSON files of v1 patches."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from bigearthnet_cbir.data.labels import to_19_classes
from bigearthnet_cbir.data.places import Corner, corner_in_json
from bigearthnet_cbir.errors import DataError, MissingDataError
from bigearthnet_cbir.files import read_file

_PATCH: Final = re.compile(r"S[12][A-D]_.*_\d+_\d+$")
_S2_NAME: Final = re.compile(r"S2[A-D]_\w{1,500}", re.ASCII)
_PRODUCT: Final = re.compile(r"S[12][A-D]_.*\w$")


class Notes(NamedTuple):
    """Content of a v1 JSON.

    Attributes:
        labels: 19-class names.
        s2: for Sentinel-1, the name of the Sentinel-2 patch of the place.
        corner: upper left, or None where that is not told.
    """

    labels: tuple[str, ...]
    s2: str | None
    corner: Corner | None


class PatchFolders:
    """The patch folders of one sensor.

    Version 1 has all of them in one folder; version 2 has one folder per satellite product between. The version is
    detected from the name of the first sub-folder.

    Args:
        root: folder of the patch folders (v1) or of the products (v2).
        sensor: "S1" or "S2".

    Raises:
        DataError: root is missing, or has no folder of this sensor.
    """

    def __init__(self, root: Path, sensor: str) -> None:
        self.root = root
        self.sensor = sensor
        try:
            first = next((name for name in _folders(root) if name.startswith(sensor)), None)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{root}: cannot be listed ({reason}); give the folder of the {sensor} patches") from error
        if first is None:
            other = {"S1": "S2", "S2": "S1"}[sensor]
            swapped = any(name.startswith(other) for name in _folders(root))
            hint = "are --s1-root and --s2-root swapped?" if swapped else "give the folder that holds the patch folders"
            raise DataError(f"{root}: no {sensor} patch folder in it; {hint}")
        self.is_v2 = _PATCH.match(first) is None

    def folder(self, name: str) -> Path:
        """Return the folder of a patch, which need not exist."""
        if not self.is_v2:
            return self.root / name
        # S2 patches are <product>_<column>_<row>; S1 names have a tile before column and row.
        product = name.rsplit("_", 2 if self.sensor == "S2" else 3)[0]
        return self.root / product / name

    def names(self) -> Iterator[str]:
        """Yield the existing patch names in arbitrary order."""
        for name in _folders(self.root):
            if not name.startswith(self.sensor):
                continue
            if not self.is_v2:
                if _PATCH.match(name):
                    yield name
            elif _PRODUCT.match(name):
                yield from (patch for patch in _folders(self.root / name) if _PATCH.match(patch))


def _folders(root: Path) -> Iterator[str]:
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir():
                yield entry.name


def notes_file(folder: Path) -> Path:
    """Return the path of the JSON of a v1 patch folder."""
    return folder / f"{folder.name}_labels_metadata.json"


def read_notes(folder: Path) -> Notes:
    """Return the content of the JSON of a v1 patch folder.

    Raises:
        DataError: the JSON is missing or malformed, or has an invalid label or partner name.
    """
    path = notes_file(folder)
    try:
        content = json.loads(read_file(path))
        names, s2 = content["labels"], content.get("corresponding_s2_patch")
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: the patch's JSON is missing; download this patch again") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not a BigEarthNet JSON with labels; download this patch again") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: labels must be a list of class names; download this patch again")
    if s2 is not None and not (isinstance(s2, str) and _S2_NAME.fullmatch(s2)):
        raise DataError(
            f"{path}: its corresponding_s2_patch is {str(s2)[:80]!r}, not a Sentinel-2 patch name; download this "
            "patch again"
        )
    try:
        return Notes(to_19_classes(names), s2, corner_in_json(content))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
