"""Writing split lists: all of them or none, atomically, and never over a list that this project did not write."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bigearthnet_cbir.data.pair_list import Names, PairList
from bigearthnet_cbir.data.splits import read_list
from bigearthnet_cbir.errors import ConfigError, DataError
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.types import PatchPair

NOTE: Final = ".written_lists.json"
"""File beside the lists: file name -> SHA-256 of each content that was written under it."""


class ListState(NamedTuple):
    """What became of one split list.

    Attributes:
        path: of the list.
        pairs: of this run.
        there: pairs that the list had before, None where it was not there.
        only_there: how many of them this run does not have.
        only_here: how many pairs of this run it did not have.
        action: "written", "updated", "kept" (it has the same pairs), or "differs" (left as it is).
        reason: why it is left as it is.
    """

    path: Path
    pairs: int
    there: int | None
    only_there: int
    only_here: int
    action: str
    reason: str = ""


def write_split(path: Path, pairs: Sequence[PatchPair]) -> None:
    """Write a CSV split list, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(_content(pairs))


def require_writable(folder: Path) -> None:
    """Make the folder of the lists, and raise ConfigError where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # it has no name that a kill could leave behind
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"--splits {folder}: cannot be written ({reason}); choose another folder") from error


def write_splits(folder: Path, splits: Mapping[str, Sequence[PatchPair]]) -> list[ListState]:
    """Bring <split>.csv of each split up to date, and say what became of each that has pairs or is there.

    A list that is missing is written. One that this project wrote, unchanged since, is written anew where the split
    has all of its pairs and more. Any other list that has not just the pairs of its split differs, and then none is
    written: a pair that went from one split to another would be in two.
    """
    known = _read_note(folder)
    states = [_compare(folder / f"{split}.csv", pairs, known) for split, pairs in splits.items()]
    states = [state for state in states if state.pairs or state.there is not None]
    if any(state.action == "differs" for state in states):
        waits = "another list differs, and the lists belong together"
        return [
            state._replace(action="differs", reason=waits) if state.action in ("written", "updated") else state
            for state in states
        ]
    changed = {state.path: splits[state.path.stem] for state in states if state.action != "kept"}
    if changed:
        for path, pairs in changed.items():
            known.setdefault(path.name, []).append(_digest(_content(pairs)))
        folder.mkdir(parents=True, exist_ok=True)
        # The note comes first: a list without it would be taken for somebody else's.
        with atomic_write(folder / NOTE) as temporary:
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        for path, pairs in changed.items():
            write_split(path, pairs)
    return states


def _compare(path: Path, pairs: Sequence[PatchPair], known: Mapping[str, list[str]]) -> ListState:
    if not path.exists():
        return ListState(path, len(pairs), None, 0, len(pairs), "written")
    try:
        found = read_list(path)
        content = path.read_bytes()
    except DataError as error:
        return ListState(path, len(pairs), 0, 0, len(pairs), "differs", f"it is no split list ({error})")
    there: set[object] = set(found)
    here: set[object] = {pair.s2 for pair in pairs} if isinstance(found, Names) else set(pairs)
    only_there, only_here = len(there - here), len(here - there)
    if not only_there and not only_here:
        action, reason = "kept", ""
    elif only_there or _digest(content) not in known.get(path.name, ()):
        action = "differs"
        reason = "it has other pairs" if only_there else "it is not known to be written by this command"
    else:
        action, reason = "updated", ""
    return ListState(path, len(pairs), len(found), only_there, only_here, action, reason)


def _read_note(folder: Path) -> dict[str, list[str]]:
    try:
        content = json.loads((folder / NOTE).read_bytes())
        return {str(name): [str(digest) for digest in digests] for name, digests in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _content(pairs: Sequence[PatchPair]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(PairList.of(pairs))
    return stream.getvalue().encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
