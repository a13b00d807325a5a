"""Response models of the server, as described in /openapi.json."""

from __future__ import annotations

from pydantic import BaseModel


class PatchAnswer(BaseModel):
    """A pair of patches. Unknown values are "" or null; dates are YYYY-MM-DD."""

    position: int
    name_s1: str
    name_s2: str
    labels: tuple[str, ...]
    date_s1: str
    date_s2: str
    season: str
    country: str
    split: str
    tile: str
    longitude: float | None
    latitude: float | None
    on_map: int
    """Position in the index of the first run, whose patches the map shows; -1 if that index lacks the patch."""


class ResultAnswer(PatchAnswer):
    """A search result."""

    rank: int
    distance: float
    shared: tuple[str, ...]
    """Labels that the query has too."""


class SearchAnswer(BaseModel):
    """The answer to a query."""

    run: str
    direction: str
    distance: str
    k: int
    kept: int
    """Number of patches that passed the filters. The search among them is exact."""
    size: int
    milliseconds: float
    query: PatchAnswer | None
    results: list[ResultAnswer]


class UploadAnswer(BaseModel):
    """An accepted upload, with the id that queries refer to."""

    upload: str
    sensors: list[str]
    directions: list[str]
    warnings: list[str]


class NamesAnswer(BaseModel):
    """Names with a given prefix."""

    names: list[str]


class RunAnswer(BaseModel):
    """A run of the server."""

    run: str
    size: int
    distance: str
    fusion: str


class HealthAnswer(BaseModel):
    """Status of the server, its runs, and the values that filters accept."""

    status: str
    version: str
    runs: list[RunAnswer]
    class_names: list[str]
    short_names: list[str]
    """The class names in short form, to fit below a thumbnail."""
    countries: list[str]
    seasons: list[str]
    splits: list[str]
    first_day: str
    last_day: str
    pictures: bool
    """Whether thumbnails are available."""
    uploads: bool


class ErrorAnswer(BaseModel):
    """The reason why a request was rejected, in one sentence."""

    error: str
