"""What all requests share: the runs, the packed catalogue, and recent uploads."""

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
    """An upload that can be asked with.

    Attributes:
        vectors: of each run.
        pictures: sensor -> JPEG.
    """

    vectors: tuple[SensorVectors, ...]
    pictures: dict[str, bytes]


class State:
    """What the requests share.

    Attributes:
        runs: that are served.
        encoders: that embed uploads, or None.
    """

    def __init__(self, runs: tuple[ServedRun, ...], encoders: Encoders | None) -> None:
        self.runs, self.encoders = runs, encoders
        self._packed: dict[bool, bytes] = {}
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._guard = threading.Lock()

    def run(self, number: int) -> ServedRun:
        """Return a run; a number that there is not is refused."""
        if number >= len(self.runs):
            raise HTTPException(404, f"There is no run {number}; this server has {len(self.runs)}.")
        return self.runs[number]

    def packed(self, *, compressed: bool) -> bytes:
        """Return the catalogue of the first run, made once."""
        with self._guard:
            if False not in self._packed:
                self._packed[False] = pack_catalogue(self.runs[0].index)
            if compressed not in self._packed:
                self._packed[compressed] = compress(self._packed[False])
            return self._packed[compressed]

    def keep(self, upload: Upload) -> str:
        """Keep an upload for a while, and return its id."""
        name = secrets.token_urlsafe(12)
        with self._guard:
            self._uploads[name] = upload
            while len(self._uploads) > KEPT_UPLOADS:
                self._uploads.popitem(last=False)
        return name

    def upload(self, name: str) -> Upload:
        """Return an upload; one that is not kept is refused."""
        with self._guard:
            found = self._uploads.get(name)
        if found is None:
            raise HTTPException(404, "This upload is no longer kept; upload the files again.")
        return found

    def vectors(self, question: SearchQuestion) -> SensorVectors | None:
        """Return the vectors of the upload that a question asks with, or None."""
        return None if question.upload is None else self.upload(question.upload).vectors[question.run]


def state_of(request: Request) -> State:
    """Return the state of the application that a request came to."""
    found: State = request.app.state.cbir
    return found
