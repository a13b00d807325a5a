"""Exact k-nearest-neighbour search in one process, on all cores.

Ties are broken by archive index. Results do not depend on block sizes, threads, workers or machines.
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
from bigearthnet_cbir.search.archive_shards import TASKS_PER_THREAD, ArchiveShards
from bigearthnet_cbir.search.float_search import nearest_features
from bigearthnet_cbir.search.kernels.hamming import nearest_codes
from bigearthnet_cbir.search.kernels.merge import merge
from bigearthnet_cbir.search.partition import QUERY_TILE, SearchRequest, check_request, exclude_block, query_block
from bigearthnet_cbir.search.planes import as_words
from bigearthnet_cbir.search.rows import Sliceable, batched_ranges
from bigearthnet_cbir.search.shards import CodeShard, Shard
from bigearthnet_cbir.search.single_query import nearest_code, plain_codes
from bigearthnet_cbir.types import IntArray, Neighbours


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
        queries: (Q, D) float32 features, or (Q, B) packed uint8 codes for hamming; any object with row slices.
        archive: (N, D) or (N, B), as queries; or a PreparedArchive, which is prepared only once for several calls.
        k: neighbours per query, 1 ... N.
        distance: cosine, euclidean, chi2 or hamming.
        exclude: (Q, E) archive indices that a query must not get (itself, say), padded with -1.
        threads: threads to use; None for one a core.

    Raises:
        SearchError: shapes or dtypes do not fit, a feature is NaN, infinite or (chi2) negative, or k exceeds the
            number of archive items that are not excluded.
    """
    job = check_request(queries, archive, k, distance, exclude)
    codes = plain_codes(job)
    if codes is not None:
        return _each_by_itself(job, codes, threads)
    found = room_for(queries.shape[0], k)
    for first, stop, pieces, results in _blocks(job, 0, None, threads or available_cores()):
        _fill(Neighbours(found.indices[first:stop], found.distances[first:stop]), pieces, results)
    return found


def _each_by_itself(job: SearchRequest, codes: npt.NDArray[np.uint8], threads: int | None) -> Neighbours:
    """Return the nearest codes of a few queries, for which bit planes would not pay off."""
    rows, exclude = query_block(job, 0, job.queries.shape[0]), exclude_block(job, 0, job.queries.shape[0])
    found = []
    for row, listed in zip(rows, exclude, strict=True):
        allowed = None
        if (listed >= 0).any():
            allowed = np.ones(len(codes), np.bool_)
            allowed[listed[listed >= 0]] = False
        found.append(nearest_code(row, codes, job.k, allowed, threads=threads))
    return concat_neighbours(found, job.k)


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
        archive: see `search`; kept in memory up to 2 GiB, else read again for every block of queries.
        k: see `search`.
        distance: see `search`.
        exclude: see `search`.
        start: first query to search, to continue an interrupted search.
        block: queries per block; None for a size that keeps all threads busy.
        threads: see `search`.
    """
    job = check_request(queries, archive, k, distance, exclude)
    return _filled_blocks(job, start, block, threads or available_cores())


def search_tile(queries: npt.NDArray[Any], shard: Shard, distance: str, k: int, exclude: IntArray) -> Neighbours:
    """Return the k nearest of one shard for a tile of queries, padded with -1 and infinity."""
    if isinstance(shard, CodeShard):
        return nearest_codes(as_words(queries), shard.planes, shard.size, shard.offset, k, exclude)
    return nearest_features(queries, shard, distance, k, exclude)


def search_slice(queries: npt.NDArray[Any], shard: Shard, distance: str, k: int, exclude: IntArray) -> Neighbours:
    """Return the k nearest of one shard for any number of queries, on one thread."""
    with ThreadpoolController().limit(limits=1, user_api="blas"):
        tiles = [
            search_tile(queries[a:b], shard, distance, k, exclude[a:b])
            for a, b in batched_ranges(len(queries), QUERY_TILE)
        ]
    return concat_neighbours(tiles, k)


def _filled_blocks(job: SearchRequest, start: int, block: int | None, threads: int) -> Iterator[tuple[int, Neighbours]]:
    for first, stop, pieces, results in _blocks(job, start, block, threads):
        found = room_for(stop - first, job.k)
        _fill(found, pieces, results)
        yield first, found


def _blocks(
    job: SearchRequest, start: int, block: int | None, threads: int
) -> Iterator[tuple[int, int, int, Iterator[Neighbours]]]:
    """Yield (start, stop, shards, results) of each block of queries; consume all results before the next block.

    The results are those of all tiles of the block in the first shard, then in the second, and so on.
    """
    archive = ArchiveShards(job, start, block, threads)
    spans = list(batched_ranges(job.queries.shape[0], archive.queries_per_pass, start))
    # One BLAS thread per tile: several tiles run in parallel, and nested threads would slow them down.
    with ThreadpoolController().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        results = in_order(pool, _tasks(job, spans, archive), TASKS_PER_THREAD * threads)
        for first, stop in spans:
            yield first, stop, archive.pieces, results


def _fill(found: Neighbours, pieces: int, results: Iterator[Neighbours]) -> None:
    """Write the neighbours of a block; the lists of each shard are merged as they arrive."""
    for piece in range(pieces):
        for first, stop in batched_ranges(len(found.indices), QUERY_TILE):
            tile = Neighbours(found.indices[first:stop], found.distances[first:stop])
            part = merge([tile, next(results)]) if piece else next(results)
            tile.indices[:], tile.distances[:] = part


def _tasks(
    job: SearchRequest, spans: list[tuple[int, int]], archive: ArchiveShards
) -> Iterator[Callable[[], Neighbours]]:
    """Yield the tasks of every block: all query tiles for the first shard, then for the next."""
    for first, stop in spans:
        rows, exclude = query_block(job, first, stop), exclude_block(job, first, stop)
        for shard in archive:
            for a, b in batched_ranges(stop - first, QUERY_TILE):
                yield partial(search_tile, rows[a:b], shard, job.distance, job.k, exclude[a:b])


def in_order(pool: ThreadPoolExecutor, tasks: Iterator[Callable[[], Neighbours]], ahead: int) -> Iterator[Neighbours]:
    """Yield the tasks' results in order, with at most `ahead` started tasks that are not yet consumed."""
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
    """Return uninitialised arrays for the k nearest of the given number of queries."""
    return Neighbours(np.empty((queries, k), np.int32), np.empty((queries, k), np.float32))


def concat_neighbours(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """Concatenate the results of consecutive queries."""
    if not parts:
        return room_for(0, k)
    return Neighbours(np.concatenate([p.indices for p in parts]), np.concatenate([p.distances for p in parts]))
