"""Embedding of uploads in a separate worker process, which is ended after a time limit."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.serve.unpacking import MOST_FILES, MOST_UPLOAD
from bigearthnet_cbir.types import FloatArray

__all__ = ["MOST_FILES", "MOST_UPLOAD", "Embedded", "Encoders"]

SECONDS: Final = 30.0
"""Time limit for one upload in seconds, after the encoders are loaded."""

SECONDS_TO_START: Final = 120.0
"""Time limit in seconds for importing torch and loading the encoders."""


class Embedded(NamedTuple):
    """The result of embedding an upload.

    Attributes:
        vectors: for each run, modality -> (D,).
        bands: sensor -> the bands of its image.
        warnings: changes made to the files, as sentences.
    """

    vectors: tuple[dict[str, FloatArray], ...]
    bands: dict[str, dict[str, npt.NDArray[Any]]]
    warnings: tuple[str, ...]


class Encoders:
    """Encoders of runs in one worker process, started with the first upload, and restarted after it was ended.

    Args:
        folders: of the runs.
        seconds: time limit for one upload.
    """

    def __init__(self, folders: Sequence[Path], seconds: float = SECONDS) -> None:
        self._folders = tuple(folders)
        self._seconds = seconds
        self._turn = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def embed(self, files: Sequence[tuple[str, Path]]) -> Embedded:
        """Embed uploaded files.

        Args:
            files: the client's name of each, and the path of its content.

        Raises:
            QueryError: the files are not the GeoTIFFs of one patch, or take too long.
        """
        with self._turn, tempfile.TemporaryDirectory(prefix="cbir-upload-") as folder:
            pipe = self._started()
            try:
                pipe.send((files, folder))
                if not pipe.poll(self._seconds):
                    raise QueryError(
                        f"the upload took longer than {self._seconds:.0f} s, the limit; upload smaller files"
                    )
                answer = pipe.recv()
            except (EOFError, OSError, QueryError) as error:
                self._stop()
                if isinstance(error, QueryError):
                    raise
                raise QueryError("the upload could not be read; it is damaged or needs too much memory") from error
            if isinstance(answer, str):
                raise QueryError(answer)
            return Embedded(*answer)

    def close(self) -> None:
        """End the worker process."""
        with self._turn:
            self._stop()

    def _started(self) -> Connection:
        if self._process is not None and self._process.is_alive() and self._pipe is not None:
            return self._pipe
        self._stop()
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        from bigearthnet_cbir.serve.upload_worker import READY, work

        self._process = context.Process(target=work, args=(far, self._folders), daemon=True)
        self._process.start()
        far.close()
        try:
            if self._pipe.poll(SECONDS_TO_START) and self._pipe.recv() == READY:
                return self._pipe
        except (EOFError, OSError):
            pass
        self._stop()
        raise QueryError("the encoder of this run cannot be loaded; the reason is in the log of the server")

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
