"""The web application: the files of the page, the JSON API, and error responses of one sentence."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from bigearthnet_cbir import __version__
from bigearthnet_cbir.errors import CbirError, QueryError, SearchError
from bigearthnet_cbir.serve import api, pages, upload_api
from bigearthnet_cbir.serve.requests import NO_JSON, sentence
from bigearthnet_cbir.serve.security import Gate
from bigearthnet_cbir.serve.served_run import ServedRun
from bigearthnet_cbir.serve.state import State
from bigearthnet_cbir.serve.uploads import MOST_UPLOAD, Encoders

logger = logging.getLogger(__name__)

_UNPARSED: Final = "There was an error parsing the body"
"""FastAPI's message for JSON that Python's parser rejects: nested too deeply, or numbers of thousands of digits."""

API_DESCRIPTION = (
    "Finds the patches of BigEarthNet-MM that are most similar to a query. Searches are exact; filters apply before "
    'the search. The response to an invalid request has a status of 4xx and a body {"error": one sentence}.'
)


def create_app(
    runs: Sequence[ServedRun], *, encoders: Encoders | None = None, only_loopback: bool = True, warm: bool = True
) -> FastAPI:
    """Return the application.

    Args:
        runs: one or more; the map shows the patches of the first.
        encoders: compute the embeddings of uploads; None to disable uploads.
        only_loopback: accept only requests that name a loopback address as host.
        warm: prepare the search in the background when the server starts.
    """
    state = State(tuple(runs), encoders)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stopping = threading.Event()
        warming = threading.Thread(target=_warm, args=(state, stopping))
        if warm:
            warming.start()
        yield
        stopping.set()
        if warm:
            warming.join()  # Python aborts if it ends while a thread computes in compiled code
        if encoders is not None:
            encoders.close()

    app = FastAPI(
        title="bigearthnet-cbir", version=__version__, description=API_DESCRIPTION, docs_url=None, redoc_url=None,
        lifespan=lifespan,
    )  # fmt: skip
    app.state.cbir = state
    for router in (api.search_router, upload_api.upload_router, pages.page_router):
        app.include_router(router)
    app.add_middleware(Gate, only_loopback=only_loopback, most_upload=MOST_UPLOAD)
    _add_refusals(app)
    return app


def _warm(state: State, stopping: threading.Event) -> None:
    """Prepare the map and the search of each run, until the server stops."""
    try:
        state.packed(compressed=True)
        for run in state.runs:
            if stopping.is_set():
                return
            run.warm()
    except (CbirError, OSError, MemoryError):
        logger.exception("the index could not be prepared for search")


def refusal(status: int, reason: str) -> JSONResponse:
    """Return an error response."""
    return JSONResponse({"error": reason}, status)


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        found: list[Any] = list(error.errors())
        return refusal(400 if found[0]["type"] == "json_invalid" else 422, sentence(found))

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
        text = str(error.detail)
        if text == HTTPStatus(error.status_code).phrase:
            text = f"{text}: /openapi.json lists the available requests."
        return refusal(error.status_code, NO_JSON if text == _UNPARSED else text)

    @app.exception_handler(CbirError)
    def unanswerable(_: Request, error: CbirError) -> JSONResponse:
        # Only these errors describe the request. Others may reveal files of the server.
        if type(error) in (QueryError, SearchError) and not _tells_a_path(app.state.cbir, str(error)):
            return refusal(422, f"{str(error).rstrip('.')}.")
        logger.error("a request failed: %s", error)
        return refusal(500, "The server could not read its data; the reason is in its log.")

    @app.exception_handler(Exception)
    def broken(_: Request, error: Exception) -> JSONResponse:
        return refusal(500, "The server failed; the reason is in its log.")


def _tells_a_path(state: State, message: str) -> bool:
    return any(str(run.index.folder) in message for run in state.runs)
