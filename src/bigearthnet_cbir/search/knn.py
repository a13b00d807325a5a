"""Exact k-nearest-neighbour search in this process, on all its cores.

Ties are broken by archive index, always. Results do not depend on how the work is cut: not on block sizes, threads,
workers or machines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
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
    Sliceable,
    check_job,
    cut,
    exclude_block,
    query_block,
    row_bytes,
    shard_rows,
    shards_of,
)
from bigearthnet_cbir.search.screening import nearest_features
from bigearthnet_cbir.search.shards import CodeShard, PreparedArchive, Shard, cut_shard
from bigearthnet_cbir.types import IntArray, Neighbours

ARCHIVE_BYTES = 2 << 30
"""Archive kept in memory; a larger one that is read from a file is read again for every block of queries."""

SHARD_BYTES = 256 << 20
"""Size of a shard of an archive that is not kept."""

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
    shape = (queries.shape[0], k)
    found = Neighbours(np.empty(shape, np.int32), np.empty(shape, np.float32))
    for tiles in _blocks(job, 0, None, threads or available_cores()):
        for first, tile in tiles:
            found.indices[first : first + QUERY_TILE] = tile.indices
            found.distances[first : first + QUERY_TILE] = tile.distances
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
    return _joined_blocks(job, start, block, threads or available_cores())


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


def _joined_blocks(job: Job, start: int, block: int | None, threads: int) -> Iterator[tuple[int, Neighbours]]:
    for tiles in _blocks(job, start, block, threads):
        found = list(tiles)
        yield found[0][0], joined([tile for _, tile in found], job.k)


def _blocks(
    job: Job, start: int, block: int | None, threads: int
) -> Iterator[Iterator[tuple[int, Neighbours]]]:
    """Yield each block of queries as an iterator over its tiles, (first query, result); take all of one, then go on."""
    archive = _Archive(job, start, threads)
    spans = list(cut(job.queries.shape[0], block or archive.queries_per_pass, start))
    # One BLAS thread per tile: several tiles run side by side, and a nested pool would only get in their way.
    with ThreadpoolController().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        results = in_order(pool, _tasks(job, spans, archive), 2 * threads)
        for first, stop in spans:
            yield _tiles(first, stop, archive.pieces, results)


def _tiles(first: int, stop: int, pieces: int, results: Iterator[Neighbours]) -> Iterator[tuple[int, Neighbours]]:
    """Yield the tiles of one block; with several shards they are complete only when the last shard is."""
    starts = range(first, stop, QUERY_TILE)
    if pieces == 1:
        yield from zip(starts, results, strict=False)
        return
    parts = list(islice(results, len(starts) * pieces))
    yield from ((start, merge(parts[tile :: len(starts)])) for tile, start in enumerate(starts))


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


def joined(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """Return the results of consecutive queries as one."""
    if not parts:
        return Neighbours(np.empty((0, k), np.int32), np.empty((0, k), np.float32))
    return Neighbours(np.concatenate([p.indices for p in parts]), np.concatenate([p.distances for p in parts]))


class _Archive:
    """The shards of an archive: kept where they fit in memory, else read anew for every block of queries.

    Attributes:
        pieces: number of shards; several where there are too few queries to keep all threads busy.
        queries_per_pass: queries of a block.
    """

    def __init__(self, job: Job, start: int, threads: int) -> None:
        size, bytes_each = job.archive.shape[0], row_bytes(job)
        self._job = job
        whole = job.archive if isinstance(job.archive, PreparedArchive) else None
        fits = whole is not None or isinstance(job.archive, np.ndarray) or size * bytes_each <= ARCHIVE_BYTES
        few = job.queries.shape[0] - start < 2 * threads * QUERY_TILE
        wanted = (threads if few else 1) if fits else -(-size * bytes_each // SHARD_BYTES)
        self._rows = max(LEAST_SHARD, shard_rows(size, wanted))
        self.pieces = -(-size // self._rows)
        self.queries_per_pass = QUERY_TILE * threads * (BLOCKS_PER_THREAD if fits else 16 * BLOCKS_PER_THREAD)
        self._kept = None
        if fits:
            whole = whole or PreparedArchive(job.archive, job.distance)
            self._kept = [cut_shard(whole.shard, first, stop) for first, stop in cut(size, self._rows)]

    def __iter__(self) -> Iterator[Shard]:
        return iter(self._kept) if self._kept is not None else shards_of(self._job, self._rows)
