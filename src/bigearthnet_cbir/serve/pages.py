"""The files of the page, read once, each with its media type and a compressed form."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

from fastapi import APIRouter, HTTPException, Request, Response

TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}

page_router = APIRouter(include_in_schema=False)


class Asset(NamedTuple):
    """A file of the page."""

    content: bytes
    compressed: bytes
    kind: str
    tag: str


@cache
def assets() -> dict[str, Asset]:
    """Return the files by name. Requests are resolved only here, so they cannot reach other files of the server."""
    found = {}
    for path in resources.files("bigearthnet_cbir.serve").joinpath("assets").iterdir():
        kind = TYPES.get(path.name.rpartition(".")[2])
        if kind is not None:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[path.name] = Asset(content, gzip.compress(content, 9, mtime=0), kind, tag)
    return found


@page_router.get("/")
def page(request: Request) -> Response:
    """Return the page."""
    return _answer("index.html", request)


@page_router.get("/assets/{name}")
def page_file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    return _answer(name, request)


def _answer(name: str, request: Request) -> Response:
    found = assets().get(name)
    if found is None:
        raise HTTPException(404, "The page has no such file.")
    headers = {"etag": found.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"
        return Response(found.compressed, media_type=found.kind, headers=headers)
    return Response(found.content, media_type=found.kind, headers=headers)
