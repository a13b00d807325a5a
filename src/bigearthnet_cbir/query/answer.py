"""The answer to a query: its description, and the known metadata of the pairs found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigearthnet_cbir.query.find import Found
from bigearthnet_cbir.query.index import Index


@dataclass(frozen=True)
class Hit:
    """A pair of an index. An unknown value is None or "".

    Attributes:
        rank: from 1; 0 for the query pair itself.
        distance: to the query.
        position: in the index.
        name_s1: Sentinel-1 name.
        name_s2: Sentinel-2 name.
        labels: class names.
        shared: the class names that the query has too.
        date_s1: acquisition day of Sentinel-1, YYYY-MM-DD.
        date_s2: acquisition day of Sentinel-2, YYYY-MM-DD.
        longitude: of the centre, degrees east.
        latitude: of the centre, degrees north.
        country: English name.
        season: at the acquisition by Sentinel-2.
        split: train, val or test.
        tile: MGRS tile.
    """

    rank: int
    distance: float
    position: int
    name_s1: str
    name_s2: str
    labels: tuple[str, ...]
    shared: tuple[str, ...]
    date_s1: str
    date_s2: str
    longitude: float | None
    latitude: float | None
    country: str
    season: str
    split: str
    tile: str


@dataclass(frozen=True)
class Answer:
    """A query and its results.

    Attributes:
        question: description of the query in words.
        query: modality of the query: s1, s2 or fused.
        archive: modality that was searched.
        distance: cosine, euclidean, chi2 or hamming.
        kept: number of pairs that passed the filters.
        size: number of pairs in the index.
        labels: class names of the query; empty if unknown.
        asked: the query pairs that are in the index.
        hits: nearest first.
    """

    question: str
    query: str
    archive: str
    distance: str
    kept: int
    size: int
    labels: tuple[str, ...]
    asked: tuple[Hit, ...]
    hits: tuple[Hit, ...]


def describe_hits(index: Index, found: Found, labels: tuple[str, ...]) -> tuple[Hit, ...]:
    """Return the known metadata of the pairs found; `labels` are those of the query."""
    pairs = zip(found.indices.tolist(), found.distances.tolist(), strict=True)
    return tuple(
        describe_pair(index, position, rank, distance, labels) for rank, (position, distance) in enumerate(pairs, 1)
    )


def describe_pair(
    index: Index, position: int, rank: int = 0, distance: float = 0.0, labels: tuple[str, ...] = ()
) -> Hit:
    """Return the known metadata of one pair."""
    known, own = index.catalogue, index.labels_of(position)
    return Hit(
        rank=rank,
        distance=distance,
        position=position,
        name_s1=known.name_s1[position],
        name_s2=known.name_s2[position],
        labels=own,
        shared=tuple(label for label in own if label in labels),
        date_s1=_day(known.date_s1[position]),
        date_s2=_day(known.date_s2[position]),
        longitude=_number(known.longitude[position]),
        latitude=_number(known.latitude[position]),
        country=known.country[position],
        season=known.season[position],
        split=known.split[position],
        tile=known.tile[position],
    )


def _day(date: np.datetime64) -> str:
    return "" if np.isnat(date) else str(date)


def _number(value: np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None
