"""A run of the server: its index, its thumbnails, and the answers to queries."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.directions import DIRECTIONS, FUSED, Direction
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.pipelines.query import mark_vector
from bigearthnet_cbir.query.answer import Answer, Hit, describe_hits, describe_pair
from bigearthnet_cbir.query.feedback import logistic, rocchio
from bigearthnet_cbir.query.find import Nearest, find, query_vector, stand_in
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.query.places import patch_at
from bigearthnet_cbir.serve.answers import PatchAnswer, ResultAnswer, RunAnswer, SearchAnswer
from bigearthnet_cbir.serve.requests import SearchQuestion
from bigearthnet_cbir.serve.thumbnails import Thumbnails
from bigearthnet_cbir.serve.turns import Turns
from bigearthnet_cbir.types import FloatArray

RELEASE_AFTER: Final = 4
"""Answers after which the memory pages of the vectors are released. Each filtered search reads thousands."""

SensorVectors = dict[str, FloatArray]
"""Modality -> (D,) vector of an uploaded patch. Modalities that need a sensor which was not uploaded are absent."""


class _Asked(NamedTuple):
    """The positions in the index of the query patch and of the marks."""

    begin: int | None
    like: list[int]
    unlike: list[int]


class ServedRun:
    """A run.

    Attributes:
        name: shown on the page; not a path.
        index: of the run.
        thumbnails: of its patches.
    """

    def __init__(
        self,
        name: str,
        index: Index,
        thumbnails: Thumbnails,
        *,
        first: Index | None = None,
        nearest: Nearest | None = None,
    ) -> None:
        """Serve an index.

        Args:
            name: see above.
            index: see above.
            thumbnails: see above.
            first: the index whose patches the map shows; None if it is this one.
            nearest: replaces the search in this process; see query.find.
        """
        self.name, self.index, self.thumbnails = name, index, thumbnails
        self._first = first
        self._nearest = nearest
        # One search at a time: a search uses all cores, and a second one would only double the memory.
        self._turn = Turns()
        self._answers = 0

    def warm(self) -> None:
        """Prepare the search, so that the first query does not wait for it."""
        self.index.names.find("")
        vector = np.ones(self.index.vectors(FUSED).shape[1], np.float32)
        with self._turn:
            if self._nearest is None:
                self.index.prepare(FUSED)
            with suppress(QueryError):  # codes that fused queries cannot have
                find(self.index, vector, archive=FUSED, k=1, nearest=self._nearest)

    def summary(self) -> RunAnswer:
        """Return the description of the run."""
        index = self.index
        return RunAnswer(run=self.name, size=index.size, distance=index.distance, fusion=index.fusion)

    def answer(self, question: SearchQuestion, uploaded: SensorVectors | None = None) -> SearchAnswer:
        """Answer a query.

        Args:
            question: validated by its model.
            uploaded: the vectors of the upload that question.upload names.

        Raises:
            QueryError, SearchError: the query has no answer; the message gives the reason.
        """
        start = time.perf_counter()
        found = self.find(question, uploaded)
        results = [ResultAnswer(**self._fields(hit)) for hit in found.hits]
        query = PatchAnswer(**self._fields(found.asked[0])) if question.patch or question.at else None
        return SearchAnswer(
            run=self.name, direction=question.direction, distance=found.distance, k=question.k, kept=found.kept,
            size=found.size, milliseconds=round(1000 * (time.perf_counter() - start), 2), query=query, results=results,
        )  # fmt: skip

    def find(self, question: SearchQuestion, uploaded: SensorVectors | None = None) -> Answer:
        """Return the answer in the form that project/query.py writes to files."""
        direction, asked = DIRECTIONS[question.direction], self._asked(question)
        vector = self._vector(question, direction, asked, uploaded)
        own = [] if asked.begin is None else [asked.begin]
        distance = question.distance or self.index.distance
        with self._turn:
            if self._nearest is None and distance == "cosine":
                self.index.prepare(direction.archive, distance)  # once: the first query of a modality waits for it
            found = find(
                self.index, vector, archive=direction.archive, query=direction.query, distance=distance,
                k=question.k, filters=question.filters.filters(), asked=(*own, *asked.like, *asked.unlike),
                nearest=self._nearest,
            )  # fmt: skip
            self._answers += 1
            if self._answers % RELEASE_AFTER == 0:
                self.index.release_pages()
        labels = self._labels(own or asked.like)
        return Answer(
            question=_words(question), query=direction.query, archive=direction.archive,
            distance=distance, kept=found.kept, size=self.index.size, labels=labels,
            asked=tuple(describe_pair(self.index, position) for position in own or asked.like),
            hits=describe_hits(self.index, found, labels),
        )  # fmt: skip

    def similarity(self, question: SearchQuestion, uploaded: SensorVectors | None = None) -> npt.NDArray[np.uint8]:
        """Return (N,) cosine distances of all patches to a query, from 0 (nearest) to 254 (farthest); 255: none."""
        direction = DIRECTIONS[question.direction]
        vector = self._vector(question, direction, self._asked(question), uploaded)
        rows = self.index.vectors(direction.archive)
        cosines = np.empty(len(rows), np.float32)
        with self._turn, np.errstate(divide="ignore", invalid="ignore"):
            for first in range(0, len(rows), 1 << 16):
                block = rows[first : first + (1 << 16)]
                cosines[first : first + len(block)] = block @ vector / np.sqrt(np.einsum("nd,nd->n", block, block))
        known = np.isfinite(cosines)
        low, high = (float(cosines[known].min()), float(cosines[known].max())) if known.any() else (0.0, 0.0)
        scaled = np.nan_to_num((high - cosines) / max(high - low, 1e-12) * 254)
        return np.where(known, scaled, 255).astype(np.uint8)

    def patch(self, position: int) -> PatchAnswer:
        """Return the metadata of a pair.

        Raises:
            QueryError: there is no such position.
        """
        if not 0 <= position < self.index.size:
            raise QueryError(f"position {position} is not in the index; it has {self.index.size:,} patches")
        return PatchAnswer(**self._fields(describe_pair(self.index, position)))

    def _asked(self, question: SearchQuestion) -> _Asked:
        begin = None
        if question.patch is not None:
            begin = self.index.position(question.patch)
        elif question.at is not None:
            begin = patch_at(self.index, *question.at)
        like, unlike = ([self.index.position(name) for name in names] for names in (question.like, question.unlike))
        both = {*like, *([] if begin is None else [begin])} & set(unlike)
        if both:
            name = self.index.names_s2[both.pop()]
            raise QueryError(f"{name} is marked as relevant and as not relevant; remove one of the two marks")
        return _Asked(begin, [position for position in like if position != begin], unlike)

    def _vector(
        self, question: SearchQuestion, direction: Direction, asked: _Asked, uploaded: SensorVectors | None
    ) -> FloatArray:
        sides = direction.query, direction.archive
        outside = self._outside(question, direction, uploaded)
        if not asked.like and not asked.unlike:
            return query_vector(self.index, asked.begin, *sides) if asked.begin is not None else _given(outside)
        if outside is None:
            wanted = [*([] if asked.begin is None else [asked.begin]), *asked.like]
            return mark_vector(self.index, wanted, asked.unlike, *sides, question.method, question.distance)
        width = self.index.vectors(direction.archive).shape[1]
        if len(outside) != width:
            raise QueryError(f"the query vector has {len(outside)} values; this index has vectors of {width}")
        marks = [[query_vector(self.index, one, *sides) for one in some] for some in (asked.like, asked.unlike)]
        wanted_rows, unwanted_rows = np.array([outside, *marks[0]]), np.array(marks[1]).reshape(-1, len(outside))
        return (logistic if question.method == "logistic" else rocchio)(wanted_rows, unwanted_rows)

    def _outside(
        self, question: SearchQuestion, direction: Direction, uploaded: SensorVectors | None
    ) -> FloatArray | None:
        if question.vector is not None:
            return np.asarray(question.vector, np.float32)
        if uploaded is None:
            return None
        if direction.query not in uploaded:
            known = " or ".join(sorted(uploaded))
            raise QueryError(f"the upload has {known} vectors; choose a direction whose query is {known}")
        rows: FloatArray = uploaded[direction.query][None]
        vector: FloatArray = stand_in(self.index, rows, direction.query, direction.archive)[0]
        return vector

    def _labels(self, positions: list[int]) -> tuple[str, ...]:
        """Return the labels that all of the given pairs have."""
        sets = [frozenset(self.index.labels_of(position)) for position in positions]
        return tuple(label for label in self.index.class_names if sets and all(label in labels for labels in sets))

    def _fields(self, hit: Hit) -> dict[str, Any]:
        found: int | None = hit.position if self._first is None else self._first.names.find(hit.name_s2)
        return {**vars(hit), "on_map": -1 if found is None else found}


def _given(vector: FloatArray | None) -> FloatArray:
    assert vector is not None  # guaranteed by the request model
    return vector


def _words(question: SearchQuestion) -> str:
    if question.patch is not None:
        begin = f"patches similar to {question.patch}"
    elif question.at is not None:
        begin = f"patches similar to the patch at {question.at[0]:g},{question.at[1]:g}"
    else:
        outside = question.vector or question.upload
        begin = "patches similar to the given patch" if outside else "patches similar to the marked patches"
    if not question.like and not question.unlike:
        return begin
    return f"{begin}, {len(question.like)} marked as relevant and {len(question.unlike)} as not relevant"
