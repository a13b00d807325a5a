"""Export of an answer as CSV, GeoJSON or JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any, Final

from bigearthnet_cbir.query.answer import Answer, Hit

_FIELDS: Final = (
    "rank", "distance", "name_s2", "name_s1", "labels", "shared", "date_s2", "date_s1", "longitude", "latitude",
    "country", "season", "split", "tile",
)  # fmt: skip
_SEPARATOR: Final = "; "
"""Separates labels within a cell. Not a comma, because some class names contain one."""


def as_csv(answer: Answer) -> str:
    """Return the pairs found as CSV with a header row, as in RFC 4180, except that lines end in LF only."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_FIELDS)
    writer.writerows([_cell(value) for value in _properties(hit).values()] for hit in answer.hits)
    return stream.getvalue()


def as_geojson(answer: Answer) -> str:
    """Return the pairs found as GeoJSON points (RFC 7946). A pair of unknown location has a null geometry."""
    features = [{"type": "Feature", "geometry": _geometry(hit), "properties": _properties(hit)} for hit in answer.hits]
    found = {"type": "FeatureCollection", "features": features, "question": answer.question}
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def as_json(answer: Answer) -> str:
    """Return the whole answer as JSON."""
    return json.dumps(asdict(answer), indent=1, allow_nan=False) + "\n"


def _properties(hit: Hit) -> dict[str, Any]:
    values = asdict(hit)
    return {field: values[field] for field in _FIELDS}


def _geometry(hit: Hit) -> dict[str, Any] | None:
    if hit.longitude is None or hit.latitude is None:
        return None
    return {"type": "Point", "coordinates": [hit.longitude, hit.latitude]}


def _cell(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return _SEPARATOR.join(value)
    return "" if value is None else value
