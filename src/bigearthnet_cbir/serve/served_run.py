"""One run as the server asks it: its index, its pictures, and answers to questions."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.directions import DIRECTIONS, FUSED, Direction
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.query.feedback import logistic, rocchio
from bigearthnet_cbir.query.find import Found, find, query_vector, stand_in
from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.serve.answers import PatchAnswer, ResultAnswer, RunAnswer, SearchAnswer
from bigearthnet_cbir.serve.requests import Question
from bigearthnet_cbir.serve.thumbnails import Thumbnails
from bigearthnet_cbir.types import FloatArray

Vectors = dict[str, FloatArray]
"""Side -> (D,) of an uploaded patch; it lacks the sides that need a sensor which was not uploaded."""


class ServedRun:
    """A run.

    Attributes:
        name: that the page shows; no path.
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
        finder: Callable[..., Found] = find,
    ) -> None:
        """Serve an index.

        Args:
            name: see above.
            index: see above.
            thumbnails: see above.
            first: the index whose patches the map shows; None where it is this one.
            finder: called like query.find.find.
        """
        self.name, self.index, self.thumbnails = name, index, thumbnails
        self._first = first
        self._finder = finder
        # One search at a time: it uses all cores by itself, and a second one would only double the memory.
        self._turn = threading.Lock()

    def warm(self) -> None:
        """Prepare what the first question would otherwise wait for."""
        self.index.names.find("")
        vector = np.ones(self.index.vectors(FUSED).shape[1], np.float32)
        with self._turn:
            self._finder(self.index, vector, archive=FUSED, k=1)

    def summary(self) -> RunAnswer:
        """Return what the run is."""
        return RunAnswer(
            run=self.name, size=self.index.size, distance=self.index.distance, fusion=self.index.fusion
        )  # fmt: skip

    def answer(self, question: Question, uploaded: Vectors | None = None) -> SearchAnswer:
        """Answer a question.

        Args:
            question: checked by its model.
            uploaded: the vectors that question.upload stands for.

        Raises:
            QueryError, SearchError: it has no answer; the message says why.
        """
        start = time.perf_counter()
        direction = DIRECTIONS[question.direction or FUSED]
        asked = self._asked(question)
        vector = self._vector(question, direction, asked, uploaded)
        with self._turn:
            found = self._finder(
                self.index, vector, archive=direction.archive, query=direction.query, distance=question.distance,
                k=question.k, filters=question.filters.filters(), asked=asked,
            )  # fmt: skip
        results = self._results(found, asked)
        return SearchAnswer(
            run=self.name, direction=direction.name, distance=question.distance or self.index.distance, k=question.k,
            kept=found.kept, size=self.index.size, milliseconds=round(1000 * (time.perf_counter() - start), 2),
            query=None if asked is None else PatchAnswer(**self._fields(asked)), results=results,
        )  # fmt: skip

    def similarity(self, question: Question, uploaded: Vectors | None = None) -> npt.NDArray[np.uint8]:
        """Return (N,) cosine distances of all patches to a query, from 0 (nearest) to 254 (farthest); 255: none."""
        direction = DIRECTIONS[question.direction or FUSED]
        vector = self._vector(question, direction, self._asked(question), uploaded)
        rows = self.index.vectors(direction.archive)
        with self._turn:
            products = np.concatenate([rows[i : i + 65_536] @ vector for i in range(0, len(rows), 65_536)])
            lengths = self.index.prepared(direction.archive, "cosine").shard.lengths  # type: ignore[union-attr]
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = products / lengths
        known = np.isfinite(cosines)
        low, high = (float(cosines[known].min()), float(cosines[known].max())) if known.any() else (0.0, 0.0)
        scaled = (high - cosines) / max(high - low, 1e-12) * 254
        return np.where(known, np.nan_to_num(scaled), 255).astype(np.uint8)

    def _asked(self, question: Question) -> int | None:
        if question.patch is not None:
            return self.index.position(question.patch)
        return None if question.at is None else self.nearest(*question.at)

    def nearest(self, longitude: float, latitude: float) -> int:
        """Return the position of the patch whose centre is nearest to a point.

        Raises:
            QueryError: no patch has a known place.
        """
        x, y = self.index.catalogue.longitude, self.index.catalogue.latitude
        wide = np.abs(x - longitude)
        squares = (np.minimum(wide, 360 - wide) * math.cos(math.radians(latitude))) ** 2 + (y - latitude) ** 2
        if np.isnan(squares).all():
            raise QueryError("no patch of this index has a known place; ask by a name")
        return int(np.nanargmin(squares))

    def _vector(
        self, question: Question, direction: Direction, asked: int | None, uploaded: Vectors | None
    ) -> FloatArray:
        begun: FloatArray | None = None
        if asked is not None:
            begun = query_vector(self.index, asked, direction.query, direction.archive)
        elif question.vector is not None:
            begun = np.asarray(question.vector, np.float32)
        elif uploaded is not None:
            begun = self._uploaded(uploaded, direction)
        if not question.like and not question.unlike:
            assert begun is not None  # the model demands a beginning
            return begun
        wanted, unwanted = (self._marked(names, direction.archive) for names in (question.like, question.unlike))
        if begun is not None:
            if begun.shape != wanted.shape[1:]:
                raise QueryError(f"the query has {len(begun)} numbers; this index has {wanted.shape[1]}")
            wanted = np.concatenate([begun[None], wanted])
        return logistic(wanted, unwanted) if question.method == "logistic" else rocchio(wanted, unwanted)

    def _uploaded(self, uploaded: Vectors, direction: Direction) -> FloatArray:
        if direction.query not in uploaded:
            known = " and ".join(sorted(uploaded)) or "nothing"
            raise QueryError(f"the upload was embedded as {known}; choose a direction that asks with that")
        return stand_in(self.index, uploaded[direction.query][None], direction.query, direction.archive)[0]

    def _marked(self, names: Sequence[str], side: str) -> FloatArray:
        rows = self.index.vectors(side)
        return np.asarray(rows[[self.index.position(name) for name in names]], np.float32)

    def _results(self, found: Found, asked: int | None) -> list[ResultAnswer]:
        wanted = frozenset() if asked is None else frozenset(self.index.labels_of(asked))
        results = []
        for rank, (position, distance) in enumerate(
            zip(found.indices.tolist(), found.distances.tolist(), strict=True), start=1
        ):
            fields = self._fields(position)
            shared = [label for label in fields["labels"] if label in wanted]
            results.append(ResultAnswer(**fields, rank=rank, distance=distance, shared=shared))
        return results

    def patch(self, position: int) -> PatchAnswer:
        """Return what is known of a pair.

        Raises:
            QueryError: there is no such position.
        """
        if not 0 <= position < self.index.size:
            raise QueryError(f"position {position} is not in the index; it has {self.index.size:,} patches")
        return PatchAnswer(**self._fields(position))

    def _fields(self, position: int) -> dict[str, Any]:
        known = self.index.catalogue
        pair = self.index.pair(position)
        on_map = position if self._first is None else self._first.names.find(pair.s2)
        return {
            "position": position, "name_s1": pair.s1, "name_s2": pair.s2, "labels": list(self.index.labels_of(position)),
            "date_s1": _day(known.date_s1[position]), "date_s2": _day(known.date_s2[position]),
            "season": known.season[position], "country": known.country[position], "split": known.split[position],
            "tile": known.tile[position], "longitude": _degrees(known.longitude[position]),
            "latitude": _degrees(known.latitude[position]), "on_map": -1 if on_map is None else on_map,
        }  # fmt: skip


def _day(value: np.datetime64) -> Any:
    return None if np.isnat(value) else value.astype("datetime64[D]").item()


def _degrees(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
