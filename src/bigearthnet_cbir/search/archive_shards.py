"""How a search in one process cuts its archive and its queries, so that what is in memory stays within bounds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bigearthnet_cbir.search.partition import QUERY_TILE, SearchRequest, row_bytes, shard_rows, shards_of
from bigearthnet_cbir.search.rows import batched_ranges
from bigearthnet_cbir.search.shards import PreparedArchive, Shard, cut_shard, with_panels

ARCHIVE_BYTES = 2 << 30
"""Archive kept in memory; a larger one that is read from a file is read again for every block of queries."""

SHARD_BYTES = 256 << 20
"""Size of a shard of an archive that is not kept."""

SHARDS_AT_ONCE = 4
"""Shards of full size that may be in memory together where the archive is not kept."""

LISTS_BYTES = 1 << 29
"""Neighbour lists of a block where the archive is not kept."""

LIST_BYTES = 8
"""Bytes of one neighbour: index and distance."""

TASKS_PER_THREAD = 2
"""Tasks started and not yet handed out, per thread."""

LEAST_SHARD = 8192
"""Rows below which a shard is not worth its own thread."""

BLOCKS_PER_THREAD = 4
"""Query tiles per thread in one block: few enough to report progress, enough to keep every thread busy."""


class ArchiveShards:
    """The shards of an archive: kept where they fit in memory, else read anew for every block of queries.

    Attributes:
        pieces: number of shards; several where there are too few queries to keep all threads busy.
        queries_per_pass: queries of a block.
    """

    def __init__(self, job: SearchRequest, start: int, block: int | None, threads: int) -> None:
        size, queries = job.archive.shape[0], job.queries.shape[0] - start
        self._job = job
        whole = job.archive if isinstance(job.archive, PreparedArchive) else None
        kept = whole is not None or isinstance(job.archive, np.ndarray) or size * row_bytes(job) <= ARCHIVE_BYTES
        self.queries_per_pass = block or _pass_size(job.k, threads, kept)
        if kept:
            wanted = threads if queries < 2 * threads * QUERY_TILE else 1
        else:
            wanted = -(-size * row_bytes(job) // _shard_bytes(min(queries, self.queries_per_pass), threads))
        self._rows = max(LEAST_SHARD, shard_rows(size, wanted))
        self.pieces = -(-size // self._rows)
        self._kept = None
        if kept:
            whole = whole or PreparedArchive(job.archive, job.distance)
            self._kept = [cut_shard(whole.shard, first, stop) for first, stop in batched_ranges(size, self._rows)]

    def __iter__(self) -> Iterator[Shard]:
        if self._kept is not None:
            return iter(self._kept)
        return (with_panels(shard, self._job.distance) for shard in shards_of(self._job, self._rows))


def _pass_size(k: int, threads: int, kept: bool) -> int:
    """Return the queries of a block: more where the archive is read anew for each, as far as their lists allow."""
    least = QUERY_TILE * threads
    if kept:
        return least * BLOCKS_PER_THREAD
    return max(least, min(16 * BLOCKS_PER_THREAD * least, LISTS_BYTES // (k * LIST_BYTES * QUERY_TILE) * QUERY_TILE))


def _shard_bytes(queries: int, threads: int) -> int:
    """Return the size of a shard of an archive that is not kept.

    With few queries the tasks under way reach over many shards, which are all in memory: then they are smaller.
    """
    tiles = max(1, -(-queries // QUERY_TILE))
    under_way = -(-TASKS_PER_THREAD * threads // tiles) + 1
    return min(SHARD_BYTES, max(1, SHARDS_AT_ONCE * SHARD_BYTES // under_way))
