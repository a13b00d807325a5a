"""Queries to a run: by name, by an external patch, by a point on the map, or by relevance feedback."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from bigearthnet_cbir.data.geotiff import read_s1_folder, read_s2_folder
from bigearthnet_cbir.data.geotiff_stack import read_stack
from bigearthnet_cbir.data.patch_rules import Bands
from bigearthnet_cbir.directions import FUSED, S1, S2
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.query.answer import Answer, describe_hits, describe_pair
from bigearthnet_cbir.query.feedback import logistic, rocchio
from bigearthnet_cbir.query.filters import Filters
from bigearthnet_cbir.query.find import check_direction, find, query_vector, stand_in
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.query.places import patch_at
from bigearthnet_cbir.types import FloatArray

logger = logging.getLogger(__name__)

METHODS: Final = ("rocchio", "logistic")


@dataclass(frozen=True)
class Question:
    """A query to an index: one of patch, s2/s1, at, like.

    Attributes:
        patch: Sentinel-1 or Sentinel-2 name of a pair.
        s2: folder of a Sentinel-2 patch, or a GeoTIFF with named bands.
        s1: folder of a Sentinel-1 patch, or a GeoTIFF with named bands.
        at: longitude and latitude in degrees.
        like: names of relevant patches.
        unlike: names of patches that are not relevant.
        method: how relevance feedback computes the query: rocchio or logistic.
        sensor: modality of the query; None for the given sensor, or for the modality to search if both are given.
        archive: modality to search; None for fused.
        distance: None for the distance in the configuration of the run.
        top: number of pairs wanted.
        filters: conditions on the results.
    """

    patch: str | None = None
    s2: Path | None = None
    s1: Path | None = None
    at: tuple[float, float] | None = None
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    method: str = "rocchio"
    sensor: str | None = None
    archive: str | None = None
    distance: str | None = None
    top: int = 20
    filters: Filters = field(default_factory=Filters)


@dataclass(frozen=True)
class _Asked:
    """A query as a vector, its description, the query pairs, and the labels that results are compared with."""

    vector: FloatArray
    words: str
    positions: tuple[int, ...]
    labels: tuple[str, ...]


def ask(index: Index, question: Question, run: Path | str) -> Answer:
    """Return the pairs of an index that are nearest to a query.

    Args:
        index: from `open_current_index` or `open_index`.
        question: the query.
        run: the run folder, whose encoder is loaded for external patches.

    Raises:
        QueryError: the query is invalid, or the index lacks what it refers to.
        DataError: an external patch cannot be read.
    """
    ways = [question.patch, question.s2 or question.s1, question.at, question.like or question.unlike]
    if sum(bool(way) for way in ways) != 1:
        raise QueryError("the query must be one of --patch, --s2 and --s1, --at, --like; give exactly one of them")
    outside = question.s2 is not None or question.s1 is not None
    archive = question.archive or FUSED
    side = question.sensor or (_given_side(question, archive) if outside else archive)
    check_direction(side, archive)
    asked = _from_outside(index, question, side, archive, run) if outside else _inside(index, question, side, archive)
    found = find(
        index, asked.vector, archive=archive, query=side, distance=question.distance, k=question.top,
        filters=question.filters, asked=asked.positions,
    )  # fmt: skip
    return Answer(
        question=asked.words,
        query=side,
        archive=archive,
        distance=question.distance or index.distance,
        kept=found.kept,
        size=index.size,
        labels=asked.labels,
        asked=tuple(describe_pair(index, position) for position in asked.positions),
        hits=describe_hits(index, found, asked.labels),
    )


def _inside(index: Index, question: Question, side: str, archive: str) -> _Asked:
    if question.like or question.unlike:
        return _by_marks(index, question, side, archive)
    if question.at is not None:
        position = patch_at(index, *question.at)
        words = f"patches similar to {index.names_s2[position]}, at {question.at[0]:g},{question.at[1]:g}"
    else:
        position = index.position(str(question.patch))
        words = f"patches similar to {question.patch}"
    return _Asked(query_vector(index, position, side, archive), words, (position,), index.labels_of(position))


def _by_marks(index: Index, question: Question, side: str, archive: str) -> _Asked:
    """Return the query of relevance feedback; its labels are those that all relevant patches share."""
    wanted, unwanted = ([index.position(name) for name in names] for names in (question.like, question.unlike))
    twice = [index.names_s2[position] for position in set(wanted) & set(unwanted)]
    if twice:
        raise QueryError(f"{twice[0]} is marked as relevant and as not relevant; remove one of the two marks")
    if question.method not in METHODS:
        raise QueryError(f"method is {question.method!r}; choose one of {', '.join(METHODS)}")
    vector = mark_vector(index, wanted, unwanted, side, archive, question.method, question.distance)
    sets = [set(index.labels_of(position)) for position in wanted]
    common = tuple(label for label in index.class_names if sets and all(label in labels for labels in sets))
    words = f"{len(wanted)} patches marked as relevant, {len(unwanted)} as not relevant ({question.method})"
    return _Asked(vector, words, (*wanted, *unwanted), common)


def mark_vector(
    index: Index,
    wanted: Sequence[int],
    unwanted: Sequence[int],
    side: str,
    archive: str,
    method: str = "rocchio",
    distance: str | None = None,
) -> FloatArray:
    """Return the (D,) query vector of marked pairs, by Rocchio's rule or a logistic regression.

    The thresholds of Hamming codes are medians of unnormalised vectors, so for hamming the query is scaled to the mean
    length of the marked vectors.

    Raises:
        QueryError: marks are missing or cancel each other, or logistic is combined with another distance than cosine.
    """
    distance = distance or index.distance
    vectors = [
        np.array([query_vector(index, position, side, archive) for position in marks], np.float32)
        for marks in (wanted, unwanted)
    ]
    if method == "logistic":
        if distance != "cosine":
            raise QueryError(f"distance is {distance}, but logistic feedback needs cosine; use --distance cosine")
        return logistic(*vectors)
    unit = rocchio(*vectors)
    if distance == "cosine":
        return unit
    scaled: FloatArray = (unit * np.linalg.norm(vectors[0], axis=1).mean()).astype(np.float32)
    return scaled


def _given_side(question: Question, archive: str) -> str:
    """Return the given sensor or, if both are given, the modality to search."""
    if question.s1 is None:
        return S2
    return S1 if question.s2 is None else archive


def _from_outside(index: Index, question: Question, side: str, archive: str, run: Path | str) -> _Asked:
    """Return the query of an external patch. If the index has its name, that pair is excluded from the results."""
    given = {S2: question.s2, S1: question.s1}
    lacking = [sensor for sensor in ((S1, S2) if side == FUSED else (side,)) if given[sensor] is None]
    if lacking:
        raise QueryError(f"--sensor {side} needs --{lacking[0]}, which is missing; add it, or choose another --sensor")
    bands = {sensor: read_query_patch(path, sensor) for sensor, path in given.items() if path is not None}
    from bigearthnet_cbir.pipelines.query_encoder import QueryEncoder  # imports torch: only if a patch is encoded

    encoder = QueryEncoder(run)
    if encoder.identity["checkpoint"] != index.manifest["checkpoint"]:
        raise QueryError(
            f"{index.folder}: was built with another encoder than that of {run}; run project/index.py again"
        )
    vector = stand_in(index, encoder.encode(bands.get(S2), bands.get(S1))[side][None], side, archive)[0]
    paths = [path for path in given.values() if path is not None]
    known = {index.names.find(path.name) for path in paths if path.is_dir()} - {None}
    positions = tuple(int(position) for position in known if position is not None)
    labels = index.labels_of(positions[0]) if len(positions) == 1 else ()
    return _Asked(vector, f"patches similar to {' and '.join(path.name for path in paths)}", positions, labels)


def read_query_patch(path: Path, sensor: str) -> Bands:
    """Return the bands of an external patch: a folder of single-band GeoTIFFs, or one GeoTIFF with named bands.

    Raises:
        DataError: it cannot be read, lacks a band, or holds values outside the range of its unit.
    """
    if path.is_dir():
        return read_s2_folder(path) if sensor == S2 else read_s1_folder(path)
    found = read_stack(path, sensor)
    for change in found.changes:
        logger.warning("%s: %s", path, change)
    return found.bands
