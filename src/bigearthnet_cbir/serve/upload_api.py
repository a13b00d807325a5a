"""Uploads: the GeoTIFFs of one patch are embedded, so that queries can refer to them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, File, HTTPException, Response, UploadFile

from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.serve.answers import UploadAnswer
from bigearthnet_cbir.serve.api import DAY, REFUSED, Shared
from bigearthnet_cbir.serve.state import State, Upload
from bigearthnet_cbir.serve.uploads import MOST_FILES, Embedded

upload_router = APIRouter(prefix="/api", responses=REFUSED)


@upload_router.post("/upload")
def upload(
    files: Annotated[list[UploadFile], File(description="GeoTIFFs or a zip file")], state: Shared
) -> UploadAnswer:
    """Embed the GeoTIFFs of one patch: a file for each band as published, or one with all bands; also as a zip file."""
    if state.encoders is None:
        raise HTTPException(404, "This server does not accept uploads.")
    if len(files) > MOST_FILES:
        raise HTTPException(413, f"The upload has {len(files)} files; the maximum is {MOST_FILES}.")
    with tempfile.TemporaryDirectory(prefix="cbir-received-") as folder:
        received = []
        for number, file in enumerate(files):
            path = Path(folder) / str(number)  # the client's name has no influence on the path
            with path.open("wb") as target:
                shutil.copyfileobj(file.file, target)
            received.append((file.filename or "", path))
        try:
            embedded = state.encoders.embed(received)
        except QueryError as error:
            raise HTTPException(422, f"{str(error).rstrip('.')}.") from error
    return _answer(state, embedded)


def _answer(state: State, embedded: Embedded) -> UploadAnswer:
    thumbnails = state.runs[0].thumbnails
    pictures = {sensor: thumbnails.encode(sensor, bands) for sensor, bands in embedded.bands.items()}
    sides = set.intersection(*(set(vectors) for vectors in embedded.vectors))
    return UploadAnswer(
        upload=state.keep(Upload(embedded.vectors, pictures)), sensors=sorted(embedded.bands),
        directions=[name for name, direction in DIRECTIONS.items() if direction.query in sides],
        warnings=list(embedded.warnings),
    )  # fmt: skip


@upload_router.get("/upload/{name}/{sensor}", response_class=Response)
def picture(name: str, sensor: Literal["s1", "s2"], state: Shared) -> Response:
    """Return the image of an uploaded patch."""
    found = state.upload(name).pictures.get(sensor)
    if found is None:
        raise HTTPException(404, "This upload has no such sensor.")
    return Response(found, media_type="image/jpeg", headers={"cache-control": DAY})
