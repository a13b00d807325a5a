"""Exact search with torch on an accelerator: products and selection on the device, exact distances on the CPU.

Float distances are screened in float32 on the device; the compiled kernels then compute the exact distances in double
precision. Hamming distances are exact integer products of +1 and -1. The results are identical to those of the CPU. A
query is searched on the CPU if the error bound of the screen cannot separate its candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bigearthnet_cbir.search.float_search import start_tile, unit_rows
from bigearthnet_cbir.search.kernels.rerank import Candidates, finish
from bigearthnet_cbir.search.kernels.topk import DIGITS
from bigearthnet_cbir.search.knn import concat_neighbours, search
from bigearthnet_cbir.search.partition import SearchRequest, check_request, exclude_block, query_block
from bigearthnet_cbir.search.rows import Sliceable, as_rows, batched_ranges
from bigearthnet_cbir.search.shards import FeatureShard, read_shard
from bigearthnet_cbir.types import IntArray, Neighbours

if TYPE_CHECKING:
    import torch

QUERY_BLOCK = 1024
ROW_BLOCK = 1 << 16
"""Queries and archive rows per matrix product: 256 MiB of screen values."""

PAIRS_AT_ONCE = 1 << 16
"""Pairs per chi-square block, whose terms are all in memory at once."""

SPARE = 64
"""Candidates kept in addition to k, to verify that no dropped pair can be among the k nearest."""


def search_on_device(
    queries: Sliceable,
    archive: Sliceable,
    k: int,
    distance: str,
    exclude: Sliceable | None = None,
    device: str = "cuda",
) -> Neighbours:
    """Return the same as knn.search, computed by torch on `device` ("cuda", "cuda:1", "cpu")."""
    blocks = iter_search_on_device(queries, archive, k, distance, exclude, device=device)
    return concat_neighbours([found for _, found in blocks], k)


def iter_search_on_device(
    queries: Sliceable,
    archive: Sliceable,
    k: int,
    distance: str,
    exclude: Sliceable | None = None,
    *,
    start: int = 0,
    device: str = "cuda",
) -> Iterator[tuple[int, Neighbours]]:
    """Yield the same as knn.iter_search, computed by torch on `device`; the archive is kept in memory."""
    job = check_request(queries, archive, k, distance, exclude)
    size = archive.shape[0]
    codes = as_rows(archive[0:size], distance, "archive") if distance == "hamming" else None
    shard = read_shard(archive, 0, size, distance) if codes is None else None
    for first, stop in batched_ranges(queries.shape[0], QUERY_BLOCK, start):
        rows, left_out = query_block(job, first, stop), exclude_block(job, first, stop)
        if isinstance(shard, FeatureShard):
            yield first, _features_block(job, rows, shard, left_out, device)
        else:
            yield first, _codes_block(job, rows, codes, left_out, device)


def _leave_out(values: torch.Tensor, exclude: torch.Tensor, first: int, worst: Any) -> None:
    """Give `worst` to the excluded rows of a block of the archive that starts at `first`."""
    import torch

    inside = (exclude >= first) & (exclude < first + values.shape[1])
    query, slot = torch.nonzero(inside, as_tuple=True)
    values[query, exclude[query, slot] - first] = worst


def _features_block(job: SearchRequest, rows: Any, shard: FeatureShard, exclude: IntArray, device: str) -> Neighbours:
    import torch

    found = start_tile(rows, shard, job.distance, job.k, exclude)
    screened = unit_rows(rows, found.lengths) if job.distance == "cosine" else np.array(rows)
    queries, left_out = torch.from_numpy(screened).to(device), torch.from_numpy(exclude.astype(np.int64)).to(device)
    best = torch.empty((len(rows), 0), device=device)
    indices = torch.empty((len(rows), 0), dtype=torch.int64, device=device)
    for first, stop in batched_ranges(len(shard.rows), ROW_BLOCK):
        values = _screen(queries, shard, first, stop, job.distance)
        _leave_out(values, left_out, first, torch.inf)
        here = torch.arange(first, stop, device=device).expand_as(values)
        best, order = torch.cat([best, values], 1).topk(
            min(job.k + SPARE, best.shape[1] + values.shape[1]), largest=False
        )
        indices = torch.cat([indices, here], 1).gather(1, order)
    return _decided(job, rows, shard, exclude, found, best.cpu().numpy(), indices.cpu().numpy())


def _screen(queries: torch.Tensor, shard: FeatureShard, first: int, stop: int, distance: str) -> torch.Tensor:
    """Return the (Q, stop - first) screen values, in full float32."""
    import torch

    rows = torch.from_numpy(np.array(shard.rows[first:stop])).to(queries.device)
    if distance == "chi2":
        parts = []
        for a, b in batched_ranges(len(rows), max(1, PAIRS_AT_ONCE // len(queries))):
            u, v = queries[:, None], rows[None, a:b]
            parts.append(((u - v) ** 2 / (u + v + 1e-10)).sum(-1))
        return torch.cat(parts, 1)
    scale = torch.from_numpy(np.array(shard.scale[first:stop])).to(queries.device)
    shift = torch.from_numpy(np.array(shard.shift[first:stop])).to(queries.device)
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False  # its 10-bit mantissa exceeds the error bound
    try:
        return shift - (queries @ rows.T) * scale
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def _decided(
    job: SearchRequest, rows: Any, shard: FeatureShard, exclude: IntArray, found: Candidates, best: Any, indices: Any
) -> Neighbours:
    """Rank the candidates of the device exactly; search on the CPU if candidates of a query may be missing."""
    kth = best[:, job.k - 1].astype(np.float64)
    limits = kth + 2 * (found.absolute + found.relative * np.abs(kth))
    # A kept candidate beyond the limit proves that none within it was dropped.
    clear = (best[:, -1] > limits) | (best.shape[1] == len(shard.rows))
    ordered = np.where(best < np.inf, indices, np.iinfo(np.int32).max).astype(np.int32)
    order = ordered.argsort(axis=1, kind="stable")
    width = best.shape[1]
    found.values[:, :width] = np.take_along_axis(best, order, 1)
    found.indices[:, :width] = np.take_along_axis(ordered, order, 1)
    found.counts[:] = (best < np.inf).sum(axis=1)
    result = Neighbours(np.empty((len(rows), job.k), np.int32), np.empty((len(rows), job.k), np.float32))
    finish(job.k, shard, found, np.empty(DIGITS, np.int32), result.indices, result.distances)
    unclear = np.flatnonzero(~clear)
    if len(unclear):
        again = search(rows[unclear], shard.rows, job.k, job.distance, exclude[unclear])
        result.indices[unclear], result.distances[unclear] = again.indices, again.distances
    return result


def _codes_block(job: SearchRequest, codes: Any, archive: Any, exclude: IntArray, device: str) -> Neighbours:
    import torch

    left_out = torch.from_numpy(exclude.astype(np.int64)).to(device)
    queries = _signs(codes, device)
    bits = queries.shape[1]
    worst = torch.iinfo(torch.int64).max
    best = torch.empty((len(codes), 0), dtype=torch.int64, device=device)
    for first, stop in batched_ranges(len(archive), ROW_BLOCK):
        distances = (bits - (queries @ _signs(archive[first:stop], device).T).to(torch.int64)) // 2
        # Distance and index in one number: no two are equal, so the selection has no ties to break.
        keys = (distances << 32) | torch.arange(first, stop, device=device)
        _leave_out(keys, left_out, first, worst)
        best = torch.cat([best, keys], 1)
        best = best.topk(min(job.k, best.shape[1]), largest=False).values
    keys_here = best.sort(dim=1).values.cpu().numpy()
    return Neighbours((keys_here & 0x7FFFFFFF).astype(np.int32), (keys_here >> 32).astype(np.float32))


def _signs(codes: Any, device: str) -> torch.Tensor:
    """Return (N, 8 B) of +1 and -1; half precision on a GPU, where sums up to 2048 are exact."""
    import torch

    bits = torch.from_numpy(np.unpackbits(codes, axis=1)).to(device)
    return bits.to(torch.float16 if bits.is_cuda and bits.shape[1] <= 2048 else torch.float32) * 2 - 1
