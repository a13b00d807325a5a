"""Export of answers in the file formats of project/query.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bigearthnet_cbir.pipelines.query_output import answer_page
from bigearthnet_cbir.query.answer import Answer
from bigearthnet_cbir.query.export import as_csv, as_geojson
from bigearthnet_cbir.query.index import Index

_KINDS: Final = {
    "csv": "text/csv; charset=utf-8",
    "geojson": "application/geo+json",
    "html": "text/html; charset=utf-8",
}


def as_file(kind: str, index: Index, answer: Answer) -> tuple[str, str]:
    """Return an answer as csv, geojson or html, and its media type."""
    writers: dict[str, Callable[[], str]] = {
        "csv": lambda: as_csv(answer),
        "geojson": lambda: as_geojson(answer),
        "html": lambda: answer_page(answer, index),
    }
    return writers[kind](), _KINDS[kind]
