"""Partition of archive and queries for a search in one process, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bigearthnet_cbir.search.partition import QUERY_TILE, SearchRequest, archive_bytes, shard_rows, shards_of
from bigearthnet_cbir.search.rows import Sliceable, batched_ranges
from bigearthnet_cbir.search.shards import PreparedArchive, Shard, cut_shard, with_panels

ARCHIVE_BYTES = 2 << 30
"""Largest archive kept in memory; a larger one in a file is read again for every block of queries."""

SHARD_BYTES = 256 << 20
"""Shard size of an archive that is not kept in memory."""

SHARDS_AT_ONCE = 4
"""Number of full-size shards in memory at once if the archive is not kept."""

LISTS_BYTES = 1 << 29
"""Size of the neighbour lists of a block if the archive is not kept."""

LIST_BYTES = 8
"""Bytes of one neighbour: index and distance."""

TASKS_PER_THREAD = 2
"""Started tasks per thread whose results are not yet consumed."""

LEAST_SHARD = 8192
"""Smallest number of rows for which a shard gets its own thread."""

BLOCKS_PER_THREAD = 4
"""Query tiles per thread in a block: few enough for frequent progress reports, enough to keep all threads busy."""


def prepare_if_kept(archive: Sliceable, distance: str) -> Sliceable:
    """Return an archive prepared for many searches if it is kept in memory, else as given.

    Args:
        archive: an array, or rows in a file; kept if it is an array or has at most ARCHIVE_BYTES.
        distance: of the searches.

    Raises:
        SearchError: the rows have no defined distance (see `distances.check_features`).
    """
    if isinstance(archive, PreparedArchive):
        return archive
    if isinstance(archive, np.ndarray) or archive_bytes(archive, distance) <= ARCHIVE_BYTES:
        return PreparedArchive(archive, distance)
    return archive


class ArchiveShards:
    """The shards of an archive: kept if they fit in memory, else read again for every block of queries.

    Attributes:
        pieces: number of shards; more than one if there are too few queries to keep all threads busy.
        queries_per_pass: number of queries in a block.
    """

    def __init__(self, job: SearchRequest, start: int, block: int | None, threads: int) -> None:
        size, queries = job.archive.shape[0], job.queries.shape[0] - start
        self._job = job
        whole = prepare_if_kept(job.archive, job.distance)
        kept = isinstance(whole, PreparedArchive)
        self.queries_per_pass = block or _pass_size(job.k, threads, kept)
        if kept:
            wanted = threads if queries < 2 * threads * QUERY_TILE else 1
        else:
            shard_bytes = _shard_bytes(min(queries, self.queries_per_pass), threads)
            wanted = -(-archive_bytes(whole, job.distance) // shard_bytes)
        self._rows = max(LEAST_SHARD, shard_rows(size, wanted))
        self.pieces = -(-size // self._rows)
        self._kept = None
        if isinstance(whole, PreparedArchive):
            self._kept = [cut_shard(whole.shard, first, stop) for first, stop in batched_ranges(size, self._rows)]

    def __iter__(self) -> Iterator[Shard]:
        if self._kept is not None:
            return iter(self._kept)
        return (with_panels(shard, self._job.distance) for shard in shards_of(self._job, self._rows))


def _pass_size(k: int, threads: int, kept: bool) -> int:
    """Return the queries per block; more if the archive is read again for each block, limited by the list size."""
    least = QUERY_TILE * threads
    if kept:
        return least * BLOCKS_PER_THREAD
    return max(least, min(16 * BLOCKS_PER_THREAD * least, LISTS_BYTES // (k * LIST_BYTES * QUERY_TILE) * QUERY_TILE))


def _shard_bytes(queries: int, threads: int) -> int:
    """Return the shard size of an archive that is not kept in memory.

    With few queries the concurrent tasks cover many shards, which are all in memory, so these are smaller.
    """
    tiles = max(1, -(-queries // QUERY_TILE))
    under_way = -(-TASKS_PER_THREAD * threads // tiles) + 1
    return min(SHARD_BYTES, max(1, SHARDS_AT_ONCE * SHARD_BYTES // under_way))
