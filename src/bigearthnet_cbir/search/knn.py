"""Exact k-nearest-neighbour search in this process, on all its cores.

Ties are broken by archive index, always. Results do not depend on how the work is cut: not on block sizes, threads,
workers or machines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from bigearthnet_cbir.compiled import available_cores
from bigearthnet_cbir.search.hamming import as_words, nearest_codes
from bigearthnet_cbir.search.merging import merge
from bigearthnet_cbir.search.plan import (
    QUERY_TILE,
    Job,
    check_job,
    exclude_block,
    query_block,
    row_bytes,
    shard_rows,
    shards_of,
)
from bigearthnet_cbir.search.rows import Sliceable, cut
from bigearthnet_cbir.search.screening import nearest_features
from bigearthnet_cbir.search.shards import CodeShard, PreparedArchive, Shard, cut_shard, with_panels
from bigearthnet_cbir.types import IntArray, Neighbours

ARCHIVE_BYTES = 2 << 30
"""Archive kept in memory; a larger one that is read from a file is read again for every block of queries."""

SHARD_BYTES = 256 << 20
"""Size of a shard of an archive that is not kept."""

SHARDS_AT_ONCE = 4
"""Shards of full size that may be in memory together where the archive is not kept."""

LISTS_BYTES = 1 << 29
"""Neighbour lists of a block where the archive is not kept."""

LIST_BYTES = 8
"""Bytes of one neighbour: position and distance."""

TASKS_PER_THREAD = 2
"""Tasks started and not yet handed out, per thread."""

LEAST_SHARD = 8192
"""Rows below which a shard is not worth its own thread."""

BLOCKS_PER_THREAD = 4
"""Query tiles per thread in one block: few enough to report progress, enough to keep every thread busy."""


def search(
    queries: Sliceable,
    archive: Sliceable,
    k: int,
    distance: str,
    exclude: Sliceable | None = None,
    *,
    threads: int | None = None,
) -> Neighbours:
    """Return the exact k nearest archive items of every query, nearest first, ties by archive index.

    Args:
        queries: (Q, D) float32 features, or (Q, B) packed uint8 codes for hamming. Anything that slices by rows.
        archive: (N, D) or (N, B), likewise; or a PreparedArchive, which saves its preparation on every further call.
        k: neighbours per query, 1 ... N.
        distance: cosine, euclidean, chi2 or hamming.
        exclude: (Q, E) archive positions that a query must not get (itself, say), padded with -1.
        threads: threads to use; None for one a core.

    Raises:
        SearchError: shapes or dtypes do not fit, a feature is NaN, infinite or (chi2) negative, or k is larger than
            what is left of the archive.
    """
    job = check_job(queries, archive, k, distance, exclude)
    found = room_for(queries.shape[0], k)
    for first, stop, pieces, results in _blocks(job, 0, None, threads or available_cores()):
        _fill(Neighbours(found.indices[first:stop], found.distances[first:stop]), pieces, results)
    return found


def iter_search(
    queries: Sliceable,
    archive: Sliceable,
    k: int,
    distance: str,
    exclude: Sliceable | None = None,
    *,
    start: int = 0,
    block: int | None = None,
    threads: int | None = None,
) -> Iterator[tuple[int, Neighbours]]:
    """Yield (first query, its block's Neighbours) in order; arguments and errors as in `search`.

    Args:
        queries: see `search`; read block by block.
        archive: see `search`; kept in memory up to 2 GiB, else read anew for every block of queries.
        k: see `search`.
        distance: see `search`.
        exclude: see `search`.
        start: first query to search, so that an interrupted search can go on.
        block: queries per block; None for a size that keeps the threads busy.
        threads: see `search`.
    """
    job = check_job(queries, archive, k, distance, exclude)
    return _filled_blocks(job, start, block, threads or available_cores())


def search_tile(queries: npt.NDArray[Any], shard: Shard, distance: str, k: int, exclude: IntArray) -> Neighbours:
    """Return the k nearest of one shard for a few queries; -1 and infinity where the shard has fewer than k."""
    if isinstance(shard, CodeShard):
        return nearest_codes(as_words(queries), shard.planes, shard.size, shard.offset, k, exclude)
    return nearest_features(queries, shard, distance, k, exclude)


def search_slice(queries: npt.NDArray[Any], shard: Shard, distance: str, k: int, exclude: IntArray) -> Neighbours:
    """Return the k nearest of one shard for any number of queries, on one thread."""
    with ThreadpoolController().limit(limits=1, user_api="blas"):
        tiles = [
            search_tile(queries[a:b], shard, distance, k, exclude[a:b]) for a, b in cut(len(queries), QUERY_TILE)
        ]
    return joined(tiles, k)


def _filled_blocks(job: Job, start: int, block: int | None, threads: int) -> Iterator[tuple[int, Neighbours]]:
    for first, stop, pieces, results in _blocks(job, start, block, threads):
        found = room_for(stop - first, job.k)
        _fill(found, pieces, results)
        yield first, found


def _blocks(
    job: Job, start: int, block: int | None, threads: int
) -> Iterator[tuple[int, int, int, Iterator[Neighbours]]]:
    """Yield (start, stop, shards, results) of each block of queries; take all its results, then go on.

    The results are those of all tiles of the block in the first shard, then in the next.
    """
    archive = _Archive(job, start, block, threads)
    spans = list(cut(job.queries.shape[0], archive.queries_per_pass, start))
    # One BLAS thread per tile: several tiles run side by side, and a nested pool would only get in their way.
    with ThreadpoolController().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        results = in_order(pool, _tasks(job, spans, archive), TASKS_PER_THREAD * threads)
        for first, stop in spans:
            yield first, stop, archive.pieces, results


def _fill(found: Neighbours, pieces: int, results: Iterator[Neighbours]) -> None:
    """Write the neighbours of a block, each shard's merged into those of the shards before as soon as it arrives."""
    for piece in range(pieces):
        for first, stop in cut(len(found.indices), QUERY_TILE):
            tile = Neighbours(found.indices[first:stop], found.distances[first:stop])
            part = merge([tile, next(results)]) if piece else next(results)
            tile.indices[:], tile.distances[:] = part


def _tasks(job: Job, spans: list[tuple[int, int]], archive: _Archive) -> Iterator[Callable[[], Neighbours]]:
    """Yield the work of every block: all query tiles for one shard, then for the next."""
    for first, stop in spans:
        rows, exclude = query_block(job, first, stop), exclude_block(job, first, stop)
        for shard in archive:
            for a, b in cut(stop - first, QUERY_TILE):
                yield partial(search_tile, rows[a:b], shard, job.distance, job.k, exclude[a:b])


def in_order(
    pool: ThreadPoolExecutor, tasks: Iterator[Callable[[], Neighbours]], ahead: int
) -> Iterator[Neighbours]:
    """Yield the tasks' results in order, with at most `ahead` of them started and not yet handed out."""
    waiting: deque[Future[Neighbours]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def room_for(queries: int, k: int) -> Neighbours:
    """Return uninitialised arrays for the k nearest of so many queries."""
    return Neighbours(np.empty((queries, k), np.int32), np.empty((queries, k), np.float32))


def joined(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """Return the results of consecutive queries as one."""
    if not parts:
        return room_for(0, k)
    return Neighbours(np.concatenate([p.indices for p in parts]), np.concatenate([p.distances for p in parts]))


class _Archive:
    """The shards of an archive: kept where they fit in memory, else read anew for every block of queries.

    Attributes:
        pieces: number of shards; several where there are too few queries to keep all threads busy.
        queries_per_pass: queries of a block.
    """

    def __init__(self, job: Job, start: int, block: int | None, threads: int) -> None:
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
            self._kept = [cut_shard(whole.shard, first, stop) for first, stop in cut(size, self._rows)]

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
