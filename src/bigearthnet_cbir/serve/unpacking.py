"""Extraction of uploaded files into a temporary folder under generated names. No path of a client is ever followed."""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from bigearthnet_cbir.data.bands import S1_BANDS, S2_BANDS
from bigearthnet_cbir.errors import QueryError, short

MOST_UPLOAD: Final = 64 << 20
"""Maximum size in bytes of one upload."""

MOST_UNPACKED: Final = 128 << 20
"""Maximum total size in bytes of its extracted files: a stack of 12 float32 bands of 1,600 x 1,600 pixels."""

MOST_FILES: Final = 40
MOST_ENTRIES: Final = 200
"""Maximum number of entries of a zip file, folders included."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,149}\.tiff?", re.IGNORECASE)
_KNOWN: Final = frozenset({*S1_BANDS, *S2_BANDS})
_BLOCK: Final = 1 << 20
_ENCRYPTED: Final = 1
STACK: Final = "stack"


class Unpacked(NamedTuple):
    """The content of an upload. Each field is None if absent.

    Attributes:
        s1: folder of a Sentinel-1 patch, with one file for each band.
        s2: folder of a Sentinel-2 patch, with one file for each band.
        stack: one GeoTIFF with several bands.
    """

    s1: Path | None
    s2: Path | None
    stack: Path | None


def unpack(files: Iterable[tuple[str, BinaryIO]], folder: Path) -> Unpacked:
    """Write uploaded files, GeoTIFFs or zip files of them, to a folder, and return their kind.

    Args:
        files: the client's name and the content of each. Only the last component of the name is used, and only if it is
            plain; it determines the band and patch of the file.
        folder: an empty one.

    Raises:
        QueryError: a file is of another kind, too large, a link, encrypted, or has a path outside the folder.
    """
    left, count = MOST_UNPACKED, 0
    for name, content in files:
        for inner, stream in _members(name, content):
            count += 1
            if count > MOST_FILES:
                raise QueryError(f"the upload has more than {MOST_FILES} files; upload the bands of one patch")
            left -= _write(stream, _target(inner, folder), left)
    return _sorted(folder)


def _members(name: str, content: BinaryIO) -> Iterable[tuple[str, BinaryIO]]:
    if not name.lower().endswith(".zip"):
        yield name, content
        return
    try:
        with zipfile.ZipFile(content) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ENTRIES:
                raise QueryError(f"the zip file has {len(entries):,} entries; the maximum is {MOST_ENTRIES}")
            for entry in entries:
                if _is_wanted(entry):
                    with archive.open(entry) as stream:
                        yield entry.filename, stream  # type: ignore[misc]
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        if isinstance(error, QueryError):
            raise
        raise QueryError("the zip file is damaged or has an unsupported compression; create it again") from error


def _is_wanted(entry: zipfile.ZipInfo) -> bool:
    """Return whether an entry is a GeoTIFF; reject entries that no valid archive of patches contains."""
    parts = entry.filename.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in entry.orig_filename:
        raise QueryError(f"the zip file's entry {short(entry.filename, 60)} has an unsafe path; create it again")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise QueryError(f"the zip file's entry {short(entry.filename, 60)} is a link or device; add the file itself")
    if entry.flag_bits & _ENCRYPTED:
        raise QueryError("the zip file is encrypted; create it without a password")
    if entry.file_size > MOST_UNPACKED:
        raise QueryError(f"a file in the zip file has {entry.file_size:,} bytes; the maximum is {MOST_UNPACKED:,}")
    hidden = parts[0] == "__MACOSX" or parts[-1].startswith(".")
    return not entry.is_dir() and not hidden and parts[-1].lower().endswith((".tif", ".tiff"))


def _target(name: str, folder: Path) -> Path:
    """Return the path for a file: in one folder with the other bands of its patch, whose name is its prefix."""
    last = name.replace("\\", "/").rpartition("/")[2]
    if _NAME.fullmatch(last) is None:
        raise QueryError(
            f"{short(last, 60)} is not the name of a GeoTIFF (.tif, .tiff) or zip file, of letters, digits and . _ -; "
            "rename it"
        )
    stem = last.rpartition(".")[0]
    patch, _, band = stem.rpartition("_")
    if patch and band.upper() in _KNOWN:
        place, last = folder / patch, f"{patch}_{band.upper()}.tif"
    else:
        place, last = folder / STACK, f"{stem}.tif"
    place.mkdir(exist_ok=True)
    return place / last


def _write(stream: BinaryIO, path: Path, most: int) -> int:
    """Write a stream to a new file and return its size. The limit applies to the actual size, not to the header's."""
    size = 0
    try:
        with path.open("xb") as target:
            while block := stream.read(_BLOCK):
                size += len(block)
                if size > most:
                    raise QueryError(f"the extracted files are larger than the maximum of {MOST_UNPACKED:,} bytes")
                target.write(block)
    except FileExistsError as error:
        raise QueryError(f"two files have the name {path.name}; upload one of them") from error
    return size


def _sorted(folder: Path) -> Unpacked:
    sensors: dict[str, list[Path]] = {"s1": [], "s2": []}
    for place in sorted(path for path in folder.iterdir() if path.name != STACK):
        bands = {path.stem.rpartition("_")[2] for path in place.iterdir()}
        if bands & set(S1_BANDS) and bands & set(S2_BANDS):
            raise QueryError("the files of one patch are bands of both sensors; use the file names of BigEarthNet")
        sensors["s1" if bands & set(S1_BANDS) else "s2"].append(place)
    stacks = sorted((folder / STACK).iterdir()) if (folder / STACK).is_dir() else []
    for what, found in (("Sentinel-1 patches", sensors["s1"]), ("Sentinel-2 patches", sensors["s2"]),
                        ("GeoTIFFs with several bands", stacks)):  # fmt: skip
        if len(found) > 1:
            raise QueryError(f"the upload has {len(found)} {what}; upload the files of one location")
    if stacks and (sensors["s1"] or sensors["s2"]):
        raise QueryError("the upload has a GeoTIFF of several bands and files of single bands; upload one of the two")
    if not any((stacks, sensors["s1"], sensors["s2"])):
        raise QueryError("the upload has no GeoTIFF; upload the .tif files of a patch, or a zip file of them")
    return Unpacked(*(found[0] if found else None for found in (sensors["s1"], sensors["s2"], stacks)))
