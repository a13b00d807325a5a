"""State shared by all requests: the runs, the packed catalogue, and recent uploads."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Final, NamedTuple

from fastapi import HTTPException, Request

from bigearthnet_cbir.serve.catalogue import compress, pack_catalogue
from bigearthnet_cbir.serve.requests import SearchQuestion
from bigearthnet_cbir.serve.served_run import SensorVectors, ServedRun
from bigearthnet_cbir.serve.uploads import Encoders

KEPT_UPLOADS: Final = 200


class Upload(NamedTuple):
    """An upload that queries can refer to.

    Attributes:
        vectors: one entry for each run.
        pictures: sensor -> JPEG.
    """

    vectors: tuple[SensorVectors, ...]
    pictures: dict[str, bytes]


class State:
    """State shared by the requests.

    Attributes:
        runs: served runs.
        encoders: compute the embeddings of uploads, or None.
    """

    def __init__(self, runs: tuple[ServedRun, ...], encoders: Encoders | None) -> None:
        self.runs, self.encoders = runs, encoders
        self._packed: dict[bool, bytes] = {}
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._guard = threading.Lock()

    def run(self, number: int) -> ServedRun:
        """Return a run; raise an error if the number is unknown."""
        if number >= len(self.runs):
            raise HTTPException(404, f"There is no run {number}; this server has runs 0 to {len(self.runs) - 1}.")
        return self.runs[number]

    def packed(self, *, compressed: bool) -> bytes:
        """Return the catalogue of the first run, computed once."""
        with self._guard:
            if False not in self._packed:
                self._packed[False] = pack_catalogue(self.runs[0].index)
            if compressed not in self._packed:
                self._packed[compressed] = compress(self._packed[False])
            return self._packed[compressed]

    def keep(self, upload: Upload) -> str:
        """Store an upload and return its id; drop the oldest ones beyond KEPT_UPLOADS."""
        name = secrets.token_urlsafe(12)
        with self._guard:
            self._uploads[name] = upload
            while len(self._uploads) > KEPT_UPLOADS:
                self._uploads.popitem(last=False)
        return name

    def upload(self, name: str) -> Upload:
        """Return an upload; raise an error if it is unknown or was dropped."""
        with self._guard:
            found = self._uploads.get(name)
        if found is None:
            raise HTTPException(404, "The server no longer has this upload; upload the files again.")
        return found

    def vectors(self, question: SearchQuestion) -> SensorVectors | None:
        """Return the vectors of the upload that a query refers to, or None."""
        return None if question.upload is None else self.upload(question.upload).vectors[question.run]


def state_of(request: Request) -> State:
    """Return the state of the application that handles a request."""
    found: State = request.app.state.cbir
    return found
