"""Validated search requests, and their partition into blocks and shards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.distances import check_distance, check_features
from bigearthnet_cbir.search.planes import check_code_bytes
from bigearthnet_cbir.search.rows import Sliceable, as_rows, batched_ranges
from bigearthnet_cbir.search.shards import ALIGNED, PreparedArchive, Shard, cut_shard, lengths_of, read_shard
from bigearthnet_cbir.types import IntArray

QUERY_TILE = 256
"""Number of queries that are compared with a block of the archive together."""


class SearchRequest(NamedTuple):
    """A validated search request.

    Attributes:
        queries: (Q, D), sliced block by block.
        archive: (N, D), sliced shard by shard.
        k: neighbours per query.
        distance: one of DISTANCES.
        exclude: (Q, E) archive indices that a query must not get, or None.
    """

    queries: Sliceable
    archive: Sliceable
    k: int
    distance: str
    exclude: Sliceable | None


def check_request(
    queries: Sliceable, archive: Sliceable, k: int, distance: str, exclude: Sliceable | None = None
) -> SearchRequest:
    """Return the validated search request.

    Raises:
        SearchError: the shapes do not match, the distance is unknown, or k is not in 1 ... N.
    """
    check_distance(distance)
    if isinstance(archive, PreparedArchive) and archive.distance != distance:
        raise SearchError(
            f"distance is {distance}, but the archive was prepared for {archive.distance}; use this distance"
        )
    if len(queries.shape) != 2 or len(archive.shape) != 2:
        raise SearchError(f"queries {queries.shape} and archive {archive.shape}; a search needs (Q, D) and (N, D)")
    if queries.shape[1] != archive.shape[1]:
        raise SearchError(f"queries have {queries.shape[1]} columns, the archive {archive.shape[1]}; they must match")
    if distance == "hamming":
        check_code_bytes(archive.shape[1])
    if not 1 <= k <= archive.shape[0]:
        raise SearchError(f"k is {k:,}, but the archive has {archive.shape[0]:,} items; choose k from 1 to its size")
    if archive.shape[0] >= 2**31:
        raise SearchError(f"the archive has {archive.shape[0]:,} items; at most {2**31 - 1:,} fit int32 positions")
    if exclude is not None and (len(exclude.shape) != 2 or exclude.shape[0] != queries.shape[0]):
        raise SearchError(
            f"exclude has shape {exclude.shape}; it needs one row for each of {queries.shape[0]:,} queries"
        )
    return SearchRequest(queries, archive, k, distance, exclude)


def archive_bytes(archive: Sliceable, distance: str) -> int:
    """Return the bytes of an archive in memory, without what is computed from it."""
    rows, width = archive.shape
    return rows * width * (1 if distance == "hamming" else 4)


def query_block(job: SearchRequest, start: int, stop: int) -> npt.NDArray[Any]:
    """Return queries start ... stop - 1, validated.

    Raises:
        SearchError: a query has no defined distance (see `distances.check_features`).
    """
    rows = as_rows(job.queries[start:stop], job.distance, "queries", start)
    if job.distance != "hamming":
        check_features(rows, lengths_of(rows), job.distance, "queries", start)
    return rows


def exclude_block(job: SearchRequest, start: int, stop: int) -> IntArray:
    """Return the archive indices that queries start ... stop - 1 must not get, each row ascending.

    Raises:
        SearchError: an index is no integer or beyond the archive, or a query has fewer than k archive items left.
    """
    if job.exclude is None:
        return np.empty((stop - start, 0), np.int32)
    rows = _positions(np.asarray(job.exclude[start:stop]), job.archive.shape[0], start)
    fresh = np.ones(rows.shape, bool)
    fresh[:, 1:] = rows[:, 1:] != rows[:, :-1]
    left = job.archive.shape[0] - ((rows >= 0) & fresh).sum(axis=1)
    if len(left) and left.min() < job.k:
        raise SearchError(
            f"k is {job.k:,}, but query {start + int(left.argmin()):,} has only {int(left.min()):,} of the archive's "
            f"{job.archive.shape[0]:,} items left after the excluded ones; choose a smaller k"
        )
    return rows


def _positions(given: npt.NDArray[Any], size: int, start: int) -> IntArray:
    """Return indices as int32, each row ascending, every negative one -1."""
    if given.size and given.dtype.kind not in "iu":
        raise SearchError(f"exclude is {given.dtype}; it needs integer archive positions, padded with -1")
    if given.size and given.max() >= size:
        row = int(given.max(axis=1).argmax())
        raise SearchError(
            f"exclude: query {start + row:,} excludes position {given.max():,}, but the archive has 0 to "
            f"{size - 1:,}; give positions of this archive, padded with -1"
        )
    return np.sort(np.maximum(given.astype(np.int64), -1).astype(np.int32), axis=1)


def shards_of(job: SearchRequest, rows: int) -> Iterator[Shard]:
    """Yield the archive as shards of at most `rows` rows, a multiple of ALIGNED; without integer panels."""
    for start, stop in batched_ranges(job.archive.shape[0], rows):
        if isinstance(job.archive, PreparedArchive):
            yield cut_shard(job.archive.shard, start, stop)
        else:
            yield read_shard(job.archive, start, stop, job.distance)


def shard_rows(size: int, shards: int) -> int:
    """Return the rows per shard for about the given number of shards."""
    return -(-size // shards // ALIGNED) * ALIGNED
