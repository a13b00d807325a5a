"""Exact similarity search in an index with a query vector and filters."""

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
from bigearthnet_cbir.query.query_codes import query_code
from bigearthnet_cbir.search.distances import check_distance
from bigearthnet_cbir.search.kernels.int16_dot import has_pair_products
from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.single_query import nearest_code, nearest_prepared, nearest_rows
from bigearthnet_cbir.types import FloatArray, Neighbours

EVERYTHING = Filters()

Nearest: TypeAlias = Callable[[Index, npt.NDArray[Any], str, str, int, npt.NDArray[np.bool_]], Neighbours]
"""The signature of `nearest_here`."""

LEAST_SHARE: Final = 0.4
"""Share of the pairs that pass the filters, below which computing each distance directly is faster than a masked search
(docs/query.md).
"""


@dataclass(frozen=True)
class Found:
    """The nearest pairs, in ascending order of distance, ties in order of position in the index.

    Attributes:
        indices: (k,) int64 positions; fewer than requested if fewer pass the filters.
        distances: (k,) float32.
        kept: number of pairs of the index that passed the filters.
    """

    indices: npt.NDArray[np.int64]
    distances: FloatArray
    kept: int


def check_direction(query: str, archive: str) -> None:
    """Raise QueryError unless queries of one modality can be searched in the other."""
    pairs = [(known.query, known.archive) for known in DIRECTIONS.values()]
    if (check_side(query), check_side(archive)) not in pairs:
        known = ", ".join(direction.title for direction in DIRECTIONS.values())
        raise QueryError(f"{query} -> {archive} is not a retrieval direction; choose one of {known}")


def stand_in(index: Index, vectors: FloatArray, query: str, archive: str) -> FloatArray:
    """Return the (Q, D) queries for an archive; if it is fused, the available sensor replaces the missing one."""
    check_direction(query, archive)
    if archive == FUSED and query != FUSED:
        return MissingModality(vectors, index.fusion)[0 : len(vectors)]
    return vectors


def query_vector(index: Index, patch: int | str, query: str = FUSED, archive: str = FUSED) -> FloatArray:
    """Return the (D,) float32 query vector of a pair of an index.

    Args:
        index: from `open_index`.
        patch: position of the pair, or its Sentinel-1 or Sentinel-2 name.
        query: modality of the query: s1, s2 or fused.
        archive: modality to search; if fused, a single sensor of the query replaces both (docs/metrics.md).

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
        archive: modality to search: s1, s2 or fused.
        query: modality of the vector, by default that of the archive; it selects the binarizer of Hamming codes.
        distance: cosine, euclidean, chi2 or hamming; None for the distance in the configuration of the run.
        k: number of pairs wanted, >= 1.
        filters: conditions on the results; they apply before the search, so k pairs are found whenever k pass.
        asked: position or positions of the query pairs, which are never returned.
        nearest: replaces the search in this process; see `Nearest`.

    Raises:
        QueryError: the vector does not fit the modality, k is invalid, or the index does not know a filter value.
        SearchError: the distance is undefined for the vector.

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
    """Return a query in the form that is compared: its (D,) vector, or its (B,) code for hamming."""
    check_distance(distance)
    if k < 1:
        raise QueryError(f"the number of results is {k}; give a whole number >= 1")
    asks = np.asarray(vector, np.float32)
    wanted = index.vectors(archive).shape[1:]
    if asks.shape != wanted:
        raise QueryError(
            f"the query vector has shape {asks.shape}; the {archive} vectors of this index have shape {wanted}: give a "
            "vector of that shape"
        )
    return query_code(index, asks, query, archive) if distance == "hamming" else asks


def nearest_here(
    index: Index, asks: npt.NDArray[Any], archive: str, distance: str, k: int, mask: npt.NDArray[np.bool_]
) -> Neighbours:
    """Return the k nearest pairs within a mask of at least k pairs; `asks` is a vector, or a code for hamming.

    If a modality is prepared for search and the mask holds most of the pairs, the prepared search skips the others.
    Otherwise the distance to each pair in the mask is computed directly. Both give the same results.
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
