"""The worker process that reads and embeds uploads. All processing of uploaded data is confined to it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bigearthnet_cbir.data.geotiff import read_s1_folder, read_s2_folder
from bigearthnet_cbir.data.geotiff_stack import read_stack
from bigearthnet_cbir.data.patch_rules import Bands
from bigearthnet_cbir.directions import S1, S2
from bigearthnet_cbir.errors import CbirError, DataError, QueryError
from bigearthnet_cbir.report.rgb import RGB_BANDS
from bigearthnet_cbir.serve.unpacking import Unpacked, unpack

logger = logging.getLogger(__name__)

READY = "ready"


def work(pipe: Connection, folders: Sequence[Path]) -> None:
    """Load the encoders of runs, then embed requests from the pipe: (files, folder) -> answer or error sentence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    from bigearthnet_cbir.pipelines.query_encoder import QueryEncoder  # imports torch, in this process only

    try:
        encoders = [QueryEncoder(folder) for folder in folders]
    except (CbirError, OSError) as error:
        logger.error("the encoder for uploads cannot be loaded: %s", error)
        return
    pipe.send(READY)
    while True:
        try:
            files, folder = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(_embedded(files, Path(folder), encoders))


def _end_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _embedded(files: Sequence[tuple[str, Path]], folder: Path, encoders: Sequence[Any]) -> Any:
    """Return vectors of each run, bands of the images and warnings; or an error sentence without paths."""
    try:
        with ExitStack() as stack:
            found = unpack([(name, stack.enter_context(path.open("rb"))) for name, path in files], folder)
        bands, changes = _read(found)
        vectors = tuple(encoder.encode(s2=bands.get(S2), s1=bands.get(S1)) for encoder in encoders)
        pictures = {
            sensor: {name: np.ascontiguousarray(found_bands[name]) for name in RGB_BANDS[sensor]}
            for sensor, found_bands in bands.items()
        }
        return vectors, pictures, changes
    except CbirError as error:
        return _without_paths(str(error), folder)
    except (OSError, ValueError, MemoryError) as error:
        logger.warning("an upload could not be read: %r", error)
        return "the upload could not be read; it is damaged or not the GeoTIFF of a patch"


def _read(found: Unpacked) -> tuple[dict[str, Bands], tuple[str, ...]]:
    bands: dict[str, Bands] = {}
    if found.stack is not None:
        return _read_stack(found.stack)
    if found.s1 is not None:
        bands[S1] = read_s1_folder(found.s1)
    if found.s2 is not None:
        bands[S2] = read_s2_folder(found.s2)
    return bands, ()


def _read_stack(path: Path) -> tuple[dict[str, Bands], tuple[str, ...]]:
    """Return the bands of each sensor in a stack and the changes made to them; raise QueryError if it has neither."""
    bands: dict[str, Bands] = {}
    changes: list[str] = []
    failures: list[DataError] = []
    for sensor in (S2, S1):
        try:
            found = read_stack(path, sensor)
        except DataError as error:
            failures.append(error)
            continue
        bands[sensor] = found.bands
        changes += [f"the stack was {change}" for change in found.changes if f"the stack was {change}" not in changes]
    if not bands:
        raise QueryError(str(failures[0])) from failures[0]
    return bands, tuple(changes)


def _without_paths(message: str, folder: Path) -> str:
    for place in (f"{folder}{os.sep}", str(folder)):
        message = message.replace(place, "")
    return message
