"""Request models. They validate every field before any search."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from bigearthnet_cbir.query.filters import Filters

MOST_RESULTS: Final = 1000
MOST_MARKS: Final = 200
MOST_NUMBERS: Final = 65_536
"""Maximum number of values of a vector in a request."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
ManyWords = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=120)], ...], Field(max_length=40)]
Marks = Annotated[tuple[Name, ...], Field(max_length=MOST_MARKS)]
Longitude = Annotated[FiniteFloat, Field(ge=-180, le=180)]
Latitude = Annotated[FiniteFloat, Field(ge=-90, le=90)]
DirectionName = Literal["fused", "s1_s1", "s2_s2", "s1_s2", "s2_s1", "s1_fused", "s2_fused"]

NO_JSON: Final = "The request body is not valid JSON."
_BEGINNINGS: Final = ("patch", "at", "vector", "upload")


class Strict(BaseModel):
    """A model that rejects unknown fields."""

    model_config = ConfigDict(extra="forbid")


class FilterModel(Strict):
    """Conditions on the results. A missing field means no condition. All filters apply before the search."""

    labels: ManyWords = ()
    any_labels: ManyWords = ()
    without_labels: ManyWords = ()
    countries: ManyWords = ()
    seasons: ManyWords = ()
    splits: ManyWords = ()
    since: date | None = None
    until: date | None = None
    box: tuple[Longitude, Latitude, Longitude, Latitude] | None = Field(
        default=None, description="west, south, east, north"
    )
    exclude_within: int | None = Field(default=None, ge=0, le=1000, description="radius in patches around the query")

    def filters(self) -> Filters:
        """Return the filters in the form that the index accepts."""
        return Filters(**{name: getattr(self, name) for name in type(self).model_fields})


class SearchQuestion(Strict):
    """A query: one of patch, at, vector and upload, or relevance feedback; with the direction and the filters.

    With marks, the query is normalise(2 mean(like) - mean(unlike)) of unit vectors (Rocchio 1971). A `patch` given in
    addition counts as one more `like`.
    """

    run: int = Field(0, ge=0, description="number of the run, from 0, in the order of --filepath")
    patch: Name | None = Field(default=None, description="the Sentinel-1 or Sentinel-2 name of a patch in the index")
    at: tuple[Longitude, Latitude] | None = Field(
        default=None, description="longitude, latitude: the query is the patch there"
    )
    vector: Annotated[list[FiniteFloat], Field(min_length=1, max_length=MOST_NUMBERS)] | None = None
    upload: Annotated[str, Field(max_length=64)] | None = Field(default=None, description="id from /api/upload")
    like: Marks = ()
    unlike: Marks = ()
    method: Literal["rocchio", "logistic"] = "rocchio"
    direction: DirectionName = "fused"
    distance: Literal["cosine", "euclidean", "hamming", "chi2"] | None = Field(
        default=None, description="default: that of the run"
    )
    k: int = Field(20, ge=1, le=MOST_RESULTS)
    filters: FilterModel = FilterModel()

    @model_validator(mode="after")
    def _one_beginning(self) -> SearchQuestion:
        given = [name for name in _BEGINNINGS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; give only one of {', '.join(_BEGINNINGS)}")
        if not given and not self.like:
            raise ValueError(f"the request has no query; give one of {', '.join(_BEGINNINGS)}, or like")
        return self


class Export(SearchQuestion):
    """A query whose answer is exported as a file."""

    format: Literal["csv", "geojson", "html"]


def sentence(errors: list[Any]) -> str:
    """Return the first validation error of a request as one sentence that names the field."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return NO_JSON
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
    message = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{place}: {message}." if place else f"{message}."
