"""The JSON API: searches, patches, thumbnails, names, the catalogue and the status of the server."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from pydantic import ValidationError

from bigearthnet_cbir import __version__
from bigearthnet_cbir.errors import CbirError, QueryError
from bigearthnet_cbir.report.display_names import short_class_name
from bigearthnet_cbir.serve.answers import ErrorAnswer, HealthAnswer, NamesAnswer, PatchAnswer, SearchAnswer
from bigearthnet_cbir.serve.exports import as_file
from bigearthnet_cbir.serve.requests import Export, SearchQuestion, sentence
from bigearthnet_cbir.serve.state import State, state_of

REFUSED: Final[dict[int | str, dict[str, Any]]] = {"4XX": {"model": ErrorAnswer}}
DAY: Final = "private, max-age=86400"

search_router = APIRouter(prefix="/api", responses=REFUSED)
Shared = Annotated[State, Depends(state_of)]
Run = Annotated[int, Query(ge=0, description="number of the run, from 0, in the order of --filepath")]
Many = Annotated[tuple[str, ...], Query()]


@search_router.post("/search")
def search_by_body(question: SearchQuestion, state: Shared) -> SearchAnswer:
    """Return the patches nearest to a query among those that pass the filters."""
    return state.run(question.run).answer(question, state.vectors(question))


@search_router.get("/search")
def search_by_address(
    state: Shared,
    patch: str | None = None,
    at: Annotated[str | None, Query(description="LON,LAT")] = None,
    direction: str | None = None,
    distance: str | None = None,
    k: int = 20,
    run: int = 0,
    label: Many = (),
    any_label: Many = (),
    without_label: Many = (),
    country: Many = (),
    season: Many = (),
    split: Many = (),
    since: str | None = None,
    until: str | None = None,
    box: Annotated[str | None, Query(description="W,S,E,N")] = None,
    exclude_within: int | None = None,
) -> SearchAnswer:
    """Return the same for a query in the URL parameters; an option may be repeated."""
    filters = {
        "labels": label, "any_labels": any_label, "without_labels": without_label, "countries": country,
        "seasons": season, "splits": split, "since": since, "until": until,
        "box": None if box is None else tuple(box.split(",")), "exclude_within": exclude_within,
    }  # fmt: skip
    given = {
        "patch": patch, "at": None if at is None else tuple(at.split(",")), "direction": direction,
        "distance": distance, "k": k, "run": run, "filters": filters,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    try:
        question = SearchQuestion.model_validate(given)
    except ValidationError as error:
        raise HTTPException(422, sentence(error.errors())) from error
    return state.run(run).answer(question)


@search_router.post("/similarity", response_class=Response)
def similarity(question: SearchQuestion, state: Shared) -> Response:
    """Return one byte for each patch: its cosine distance to the query, 0 for the nearest, 254 for the farthest."""
    found = state.run(question.run).similarity(question, state.vectors(question))
    return Response(found.tobytes(), media_type="application/octet-stream")


@search_router.post("/export", response_class=Response)
def export(question: Export, state: Shared) -> Response:
    """Return the answer to a query as a file: CSV, GeoJSON, or one HTML page with thumbnails."""
    run = state.run(question.run)
    content, kind = as_file(question.format, run.index, run.find(question, state.vectors(question)))
    name = f"similar_patches.{question.format}"
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})


@search_router.get("/patch/{name}")
def patch(name: str, state: Shared, run: Run = 0) -> PatchAnswer:
    """Return the metadata of the patch with a Sentinel-1 or Sentinel-2 name."""
    found = state.run(run)
    return found.patch(_position(state, run, name))


@search_router.get("/position/{position}")
def at_position(position: int, state: Shared, run: Run = 0) -> PatchAnswer:
    """Return the metadata of the patch at a position of the catalogue."""
    try:
        return state.run(run).patch(position)
    except QueryError as error:
        raise HTTPException(404, f"{error}.") from error


@search_router.get("/surprise")
def surprise(state: Shared, run: Run = 0) -> PatchAnswer:
    """Return a randomly chosen patch."""
    found = state.run(run)
    return found.patch(int(np.random.default_rng().integers(found.index.size)))


@search_router.get("/thumbnail/{name}/{sensor}", response_class=Response)
def thumbnail(name: str, sensor: Literal["s1", "s2"], state: Shared, run: Run = 0) -> Response:
    """Return the thumbnail of a patch as JPEG: S2 in true colour, S1 as VV, VH and VV - VH."""
    found = state.run(run)
    try:
        picture = found.thumbnails.jpeg(sensor, _position(state, run, name))
    except (KeyError, CbirError, OSError) as error:
        raise HTTPException(404, "There is no thumbnail: the patch store does not contain this patch.") from error
    return Response(picture, media_type="image/jpeg", headers={"cache-control": DAY})


@search_router.get("/names")
def names(
    state: Shared, prefix: Annotated[str, Query(min_length=1, max_length=200)], run: Run = 0,
    most: Annotated[int, Query(ge=1, le=50)] = 12,
) -> NamesAnswer:  # fmt: skip
    """Return the names of either sensor that begin with a prefix."""
    return NamesAnswer(names=state.run(run).index.names.complete(prefix, most))


@search_router.get("/catalogue", response_class=Response)
def catalogue(request: Request, state: Shared) -> Response:
    """Return locations, labels, dates and further columns of all patches as one binary response (docs/serve.md)."""
    tag = f'"{state.runs[0].index.manifest["fingerprint"]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache", "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    compressed = "gzip" in request.headers.get("accept-encoding", "")
    if compressed:
        headers["content-encoding"] = "gzip"
    return Response(state.packed(compressed=compressed), media_type="application/octet-stream", headers=headers)


@search_router.get("/health")
def health(state: Shared) -> HealthAnswer:
    """Return the status of the server and the values that filters accept."""
    index = state.runs[0].index
    known = index.catalogue
    return HealthAnswer(
        status="ok", version=__version__, runs=[run.summary() for run in state.runs],
        class_names=list(index.class_names), short_names=list(map(short_class_name, index.class_names)),
        countries=[value for value in known.country.values if value],
        seasons=[value for value in known.season.values if value],
        splits=[value for value in known.split.values if value],
        first_day=_edge(known.date_s2, np.min), last_day=_edge(known.date_s2, np.max),
        pictures=state.runs[0].thumbnails.available, uploads=state.encoders is not None,
    )  # fmt: skip


def _edge(days: Any, choose: Any) -> str:
    known = days[~np.isnat(days)]
    return str(choose(known)) if len(known) else ""


def _position(state: State, run: int, name: str) -> int:
    try:
        return state.run(run).index.position(name)
    except QueryError as error:
        raise HTTPException(404, f"{error}.") from error
