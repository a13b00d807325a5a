"""Opening the LMDB folder of a patch store: once per process, without a lock file, refused where it is cut short."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import lmdb

from bigearthnet_cbir.errors import DataError, MissingDataError

NOT_PATCHES: Final = frozenset({b"__keys__", b"__len__"})
"""Keys that the original scripts add."""

_open: dict[str, tuple[int, lmdb.Environment]] = {}
"""Real path of a store -> process that opened it, and its environment."""


def open_for_reading(path: Path, key: str) -> lmdb.Environment:
    """Return this process's environment of a store, opening it where needed.

    Args:
        path: the folder as it was given, for messages.
        key: its real path.

    Raises:
        DataError: it is missing, no LMDB, or cut short.
    """
    entry = _open.get(key)
    if entry is not None and entry[0] == os.getpid():
        return entry[1]
    if entry is not None:
        # Inherited by a fork: LMDB forbids its use here, and py-lmdb refuses a second one until this is closed,
        # which touches only this process's copy of the map.
        entry[1].close()
    if not path.exists():
        raise MissingDataError(f"{path}: there is no such LMDB; check the path in the configuration")
    if not (path / "data.mdb").is_file():
        raise DataError(f"{path}: this is not an LMDB folder (it has no data.mdb); give the folder that holds it")
    try:
        environment = lmdb.open(key, readonly=True, lock=False, readahead=False, meminit=False, max_spare_txns=8)
    except lmdb.Error as error:
        raise DataError(f"{path}: LMDB cannot open it ({error}); is the file whole and really an LMDB?") from error
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = (path / "data.mdb").stat().st_size
    if size < needed:  # touching a page beyond the end would kill the process
        environment.close()
        raise DataError(f"{path}/data.mdb: cut short ({size:,} of {needed:,} bytes); copy or download it again")
    _open[key] = (os.getpid(), environment)
    return environment


def close_for_process(key: str) -> None:
    """Close the environment of a real path where this process has it open; LMDB allows one per process and folder."""
    entry = _open.pop(key, None)
    if entry is not None:
        entry[1].close()
