"""Writer of split lists: all or none, atomically, without replacing lists that this project did not write."""

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
"""File beside the lists: file name -> SHA-256 digests of all contents written under it."""


class ListState(NamedTuple):
    """Outcome for one split list.

    Attributes:
        path: path of the list.
        pairs: number of pairs of this run.
        there: number of pairs of the existing list, None if there was none.
        only_there: number of pairs only in the existing list.
        only_here: number of pairs only in this run.
        action: "written", "updated", "kept" (equal pairs), or "differs" (not changed).
        reason: why the list is not changed.
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
    """Create the folder of the lists; raise ConfigError if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # it has no name, so a kill leaves no file
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"--splits {folder}: cannot be written ({reason}); choose another folder") from error


def write_splits(folder: Path, splits: Mapping[str, Sequence[PatchPair]]) -> list[ListState]:
    """Update <split>.csv of each split; return the outcome for each list that exists or has pairs.

    A missing list is written. A list that this project wrote and that is unchanged since is replaced if the split has
    all of its pairs and more. If any other list differs from its split, no list is written, because a pair that moved
    to another split would then be in two lists.
    """
    known = _read_note(folder)
    states = [_compare(folder / f"{split}.csv", pairs, known) for split, pairs in splits.items()]
    states = [state for state in states if state.pairs or state.there is not None]
    if any(state.action == "differs" for state in states):
        waits = "another list differs, and the lists are written together"
        return [
            state._replace(action="differs", reason=waits) if state.action in ("written", "updated") else state
            for state in states
        ]
    changed = {state.path: splits[state.path.stem] for state in states if state.action != "kept"}
    if changed:
        for path, pairs in changed.items():
            known.setdefault(path.name, []).append(_digest(_content(pairs)))
        folder.mkdir(parents=True, exist_ok=True)
        # Record the digest first: a list without it would count as written by somebody else.
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
        return ListState(path, len(pairs), 0, 0, len(pairs), "differs", f"it is not a split list ({error})")
    there: set[object] = set(found)
    here: set[object] = {pair.s2 for pair in pairs} if isinstance(found, Names) else set(pairs)
    only_there, only_here = len(there - here), len(here - there)
    if not only_there and not only_here:
        action, reason = "kept", ""
    elif only_there or _digest(content) not in known.get(path.name, ()):
        action = "differs"
        reason = "it has other pairs" if only_there else "there is no record that this command wrote it"
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
