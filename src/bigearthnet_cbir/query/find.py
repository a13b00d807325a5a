"""One exact search of an index: a vector, filters, and the nearest pairs that pass them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.directions import DIRECTIONS, FUSED
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.query.filters import Filters
from bigearthnet_cbir.query.index import Index, check_side
from bigearthnet_cbir.query.missing_modality import MissingModality
from bigearthnet_cbir.search.binary_codes import codes_of
from bigearthnet_cbir.search.distances import check_distance
from bigearthnet_cbir.search.kernels.int16_dot import has_pair_products
from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.single_query import nearest_code, nearest_prepared, nearest_rows
from bigearthnet_cbir.types import FloatArray, Neighbours

EVERYTHING = Filters()

Nearest: TypeAlias = Callable[[Index, npt.NDArray[Any], str, str, int, npt.NDArray[np.bool_]], Neighbours]
"""Called like `nearest_here`."""

LEAST_SHARE: Final = 0.4
"""Of the pairs, below which measuring each is faster than a search that leaves the others out (docs/query.md)."""


@dataclass(frozen=True)
class Found:
    """The nearest pairs, nearest first, ties by position in the index.

    Attributes:
        indices: (k,) int64 positions; fewer than asked for where fewer pass the filters.
        distances: (k,) float32.
        kept: how many pairs of the index passed the filters.
    """

    indices: npt.NDArray[np.int64]
    distances: FloatArray
    kept: int


def check_direction(query: str, archive: str) -> None:
    """Raise QueryError unless queries of one side can be searched for in the other."""
    pairs = [(known.query, known.archive) for known in DIRECTIONS.values()]
    if (check_side(query), check_side(archive)) not in pairs:
        known = ", ".join(direction.title for direction in DIRECTIONS.values())
        raise QueryError(f"{query} -> {archive} is no direction of retrieval; choose one of {known}")


def stand_in(index: Index, vectors: FloatArray, query: str, archive: str) -> FloatArray:
    """Return (Q, D) vectors of one side as queries to another: one sensor stands in for both where these are fused."""
    check_direction(query, archive)
    if archive == FUSED and query != FUSED:
        return MissingModality(vectors, index.fusion)[0 : len(vectors)]
    return vectors


def query_vector(index: Index, patch: int | str, query: str = FUSED, archive: str = FUSED) -> FloatArray:
    """Return the (D,) float32 vector by which a pair of an index asks.

    Args:
        index: from `open_index`.
        patch: position of the pair, or its name of either sensor.
        query: side of the pair that asks: s1, s2 or fused.
        archive: side that will be searched; where it is fused, one sensor stands in for both (docs/metrics.md).

    Raises:
        QueryError: there is no such name, or no such direction.

    Example (`run` is a run folder, here with five pairs in its splits):
        >>> import bigearthnet_cbir as cbir
        >>> index = cbir.open_index(cbir.build_index(run))
        >>> name = index.names_s2[0]
        >>> found = cbir.find(index, cbir.query_vector(index, name), k=2, asked=index.position(name))
        >>> found.indices.shape, found.kept
        ((2,), 4)
        >>> only, radar = cbir.Filters(splits=("val",)), cbir.query_vector(index, 0, "s1", "s2")
        >>> cbir.find(index, radar, archive="s2", filters=only).kept
        2
    """
    position = index.position(patch) if isinstance(patch, str) else patch
    found: FloatArray = stand_in(index, np.asarray(index.vectors(query)[position : position + 1]), query, archive)[0]
    return found


def find(
    index: Index,
    vector: npt.NDArray[np.float32],
    *,
    archive: str = FUSED,
    query: str | None = None,
    distance: str | None = None,
    k: int = 20,
    filters: Filters = EVERYTHING,
    asked: int | Sequence[int] | None = None,
    nearest: Nearest | None = None,
) -> Found:
    """Return the exact k nearest pairs of an index among those that pass the filters.

    Args:
        index: from `open_index`.
        vector: (D,) float32, from `query_vector`, an encoder or `feedback`.
        archive: side that is searched: s1, s2 or fused.
        query: side that the vector is of, by default the same; it decides where Hamming codes are cut.
        distance: cosine, euclidean, chi2 or hamming; None for the run's own.
        k: pairs wanted, >= 1.
        filters: they apply before the search, so that k pairs are found wherever k pass.
        asked: position of the pair that asks, or positions of the pairs, which are never found.
        nearest: searches the index elsewhere than in this process; see `Nearest`.

    Raises:
        QueryError: the vector does not fit the side, k is no number of pairs, or a filter asks for what is unknown.
        SearchError: the vector has no defined distance.

    Example: see `query_vector`.
    """
    distance = distance or index.distance
    asks = _checked_query(index, vector, query or archive, archive, distance, k)
    mask = filters.mask(index, () if asked is None else tuple(np.atleast_1d(asked).tolist()))
    kept = int(np.count_nonzero(mask))
    if kept == 0:
        return Found(np.empty(0, np.int64), np.empty(0, np.float32), 0)
    found = (nearest or nearest_here)(index, asks, archive, distance, min(k, kept), mask)
    return Found(found.indices[0].astype(np.int64), found.distances[0], kept)


def _checked_query(
    index: Index, vector: npt.NDArray[np.float32], query: str, archive: str, distance: str, k: int
) -> npt.NDArray[Any]:
    """Return a query as it is compared: its (D,) vector, or for hamming its (B,) code."""
    check_distance(distance)
    if k < 1:
        raise QueryError(f"{k} pairs are asked for; give a whole number >= 1")
    asks = np.asarray(vector, np.float32)
    wanted = index.vectors(archive).shape[1:]
    if asks.shape != wanted:
        raise QueryError(f"the query has shape {asks.shape}; {archive} vectors of this index have {wanted}")
    return codes_of(asks[None], _thresholds(index, query, archive))[0] if distance == "hamming" else asks


def _thresholds(index: Index, query: str, archive: str) -> FloatArray:
    """Return where the bits of a query are cut: at the medians of its own side, as it stands in for the other."""
    return np.ascontiguousarray(stand_in(index, np.asarray(index.thresholds(query))[None], query, archive)[0])


def nearest_here(
    index: Index, asks: npt.NDArray[Any], archive: str, distance: str, k: int, mask: npt.NDArray[np.bool_]
) -> Neighbours:
    """Return the k nearest of the pairs in a mask, which holds k or more; `asks` is a vector, or a code for hamming.

    Where most of an archive that is laid out for search may be found, the others are left out of that search; else
    every pair that may be found gets its distance directly. The results are the same.
    """
    if distance == "hamming":
        return nearest_code(asks, index.codes(archive), k, mask)
    prepared = index.prepared.get((archive, distance))
    if prepared is None or np.count_nonzero(mask) < LEAST_SHARE * index.size:
        positions = np.flatnonzero(mask).astype(np.int32)
        lengths = None if prepared is None else prepared.lengths
        return nearest_rows(asks, index.vectors(archive), positions, k, distance, lengths)
    exclude = np.flatnonzero(~mask).astype(np.int32)
    if distance == "cosine" and has_pair_products():
        return nearest_prepared(asks, prepared, k, exclude)
    return search(asks[None], prepared, k, distance, exclude[None])
