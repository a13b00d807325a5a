"""What the server answers, as models: the same that /openapi.json describes."""

from __future__ import annotations

from pydantic import BaseModel


class PatchAnswer(BaseModel):
    """A pair of patches; what the source does not tell is "" or null, dates are YYYY-MM-DD."""

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
    """Position in the first run's index, whose patches the map shows; -1 where it has no such patch."""


class ResultAnswer(PatchAnswer):
    """A patch that was found."""

    rank: int
    distance: float
    shared: tuple[str, ...]
    """Labels that the query has, too."""


class SearchAnswer(BaseModel):
    """The answer to a question."""

    run: str
    direction: str
    distance: str
    k: int
    kept: int
    """Patches that passed the filters; the search is exact among them."""
    size: int
    milliseconds: float
    query: PatchAnswer | None
    results: list[ResultAnswer]


class UploadAnswer(BaseModel):
    """What an upload can be asked with."""

    upload: str
    sensors: list[str]
    directions: list[str]
    warnings: list[str]


class NamesAnswer(BaseModel):
    """Names that begin with a text."""

    names: list[str]


class RunAnswer(BaseModel):
    """One of the runs that the server has."""

    run: str
    size: int
    distance: str
    fusion: str


class HealthAnswer(BaseModel):
    """Whether the server works, and what it serves: the words that filters may use among it."""

    status: str
    version: str
    runs: list[RunAnswer]
    class_names: list[str]
    short_names: list[str]
    """The class names in a form that fits below a picture."""
    countries: list[str]
    seasons: list[str]
    splits: list[str]
    first_day: str
    last_day: str
    pictures: bool
    """Whether thumbnails can be shown."""
    uploads: bool


class ErrorAnswer(BaseModel):
    """Why a request was refused, in one sentence."""

    error: str
