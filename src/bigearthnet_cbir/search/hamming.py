"""Exact k nearest packed codes by Hamming distance: compiled, in cache-sized blocks, sorted by counting.

A block of the archive is turned into columns of 64-bit words, so that one instruction serves several codes; every
query of the tile then meets the block while it is in the cache. A query's running limit skips groups of 64 codes in
which none comes closer. Distances are small integers, so the limit is kept exact by counting, at every step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.search.compiled import compiled, popcount, read_only
from bigearthnet_cbir.search.selection import is_listed
from bigearthnet_cbir.types import Neighbours

BLOCK = 4096
"""Codes of an archive block: 128 KiB at 256 bits, beside 8 KiB of distances, in a second-level cache."""

GROUP = 64
WORD_BYTES = 8


def as_words(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return (N, ceil(B / 8)) uint64 words of (N, B) packed codes, read-only, the missing bytes 0."""
    missing = -codes.shape[1] % WORD_BYTES
    if missing:
        codes = np.pad(codes, ((0, 0), (0, missing)))
    codes = np.ascontiguousarray(codes)
    if codes.ctypes.data % WORD_BYTES:
        codes = codes.copy()
    return read_only(codes.view(np.uint64))


@compiled
def _add_one(word: Any, bits: Any, distances: Any) -> None:
    for j in range(distances.size):
        distances[j] += np.uint16(popcount(word[j] ^ bits))


@compiled
def _add_four(word0: Any, word1: Any, word2: Any, word3: Any, bits: Any, distances: Any) -> None:
    bits0, bits1, bits2, bits3 = bits[0], bits[1], bits[2], bits[3]
    for j in range(distances.size):
        distances[j] += np.uint16(
            popcount(word0[j] ^ bits0)
            + popcount(word1[j] ^ bits1)
            + popcount(word2[j] ^ bits2)
            + popcount(word3[j] ^ bits3)
        )


@compiled
def _measure(columns: Any, query: Any, distances: Any) -> None:
    """Write the distances of one query to every code of a block; `columns` is (words, codes)."""
    distances[:] = 0
    words = query.size
    first = 0
    while first + 4 <= words:
        _add_four(
            columns[first],
            columns[first + 1],
            columns[first + 2],
            columns[first + 3],
            query[first : first + 4],
            distances,
        )
        first += 4
    while first < words:
        _add_one(columns[first], query[first], distances)
        first += 1


@compiled
def _collect(distances: Any, base: int, k: int, listed: Any, values: Any, places: Any, tally: Any, state: Any) -> None:
    """Append the codes of a block that come closer than the k-th so far, and keep the limit exact.

    `state` is [limit, candidates below it, candidates stored]. A code at the limit itself comes too late: k codes
    with a smaller position are at least as near.
    """
    limit, below, stored = state[0], state[1], state[2]
    for first in range(0, distances.size, GROUP):
        group = distances[first : first + GROUP]
        nearer = 0
        narrow = np.uint16(limit)
        for j in range(group.size):
            nearer += group[j] < narrow
        if nearer == 0:
            continue
        for j in range(group.size):
            distance = np.int64(group[j])
            if distance < limit and not (listed.size and is_listed(listed, base + first + j)):
                values[stored] = distance
                places[stored] = base + first + j
                stored += 1
                tally[distance] += 1
                below += 1
                while below >= k:
                    limit -= 1
                    below -= tally[limit]
    state[0], state[1], state[2] = limit, below, stored


@compiled
def _compact(values: Any, places: Any, k: int, state: Any) -> None:
    """Drop the stored candidates that are no longer among the k nearest, keeping the order."""
    limit = state[0]
    at_limit = k - state[1]
    kept = 0
    for i in range(state[2]):
        distance = values[i]
        values[kept] = distance
        places[kept] = places[i]
        if distance < limit:
            kept += 1
        elif distance == limit and at_limit > 0:
            at_limit -= 1
            kept += 1
    state[2] = kept


@compiled
def _finish(values: Any, places: Any, tally: Any, state: Any, indices: Any, distances: Any) -> None:
    """Write one query's candidates in order of distance, equals in archive order; then -1 and infinity."""
    slots = np.zeros(tally.size, np.int64)
    for distance in range(1, tally.size):
        slots[distance] = slots[distance - 1] + tally[distance - 1]
    for i in range(state[2]):
        slot = slots[values[i]]
        if values[i] <= state[0] and slot < indices.size:
            slots[values[i]] += 1
            indices[slot] = places[i]
            distances[slot] = values[i]
    for i in range(state[2], indices.size):
        indices[i] = -1
        distances[i] = np.inf


@compiled
def _search(queries: Any, codes: Any, offset: int, k: int, exclude: Any, indices: Any, distances: Any) -> None:
    count, words = queries.shape
    room = 2 * k + 2 * BLOCK
    values = np.empty((count, room), np.uint16)
    places = np.empty((count, room), np.int32)
    tallies = np.zeros((count, 64 * words + 2), np.int64)
    states = np.zeros((count, 3), np.int64)
    states[:, 0] = 64 * words + 1
    columns = np.empty((words, BLOCK), np.uint64)
    measured = np.empty(BLOCK, np.uint16)
    for first in range(0, codes.shape[0], BLOCK):
        size = min(BLOCK, codes.shape[0] - first)
        for j in range(size):
            for word in range(words):
                columns[word, j] = codes[first + j, word]
        for i in range(count):
            _measure(columns, queries[i], measured[:size])
            if states[i, 2] + size > room:
                _compact(values[i], places[i], k, states[i])
            _collect(
                measured[:size], offset + first, k, exclude[i], values[i], places[i], tallies[i], states[i]
            )
    for i in range(count):
        _finish(values[i], places[i], tallies[i], states[i], indices[i], distances[i])


def nearest_codes(
    queries: npt.NDArray[np.uint64],
    codes: npt.NDArray[np.uint64],
    offset: int,
    k: int,
    exclude: npt.NDArray[np.int32],
) -> Neighbours:
    """Return the k nearest codes of a shard; -1 and infinity where the shard has fewer.

    Args:
        queries: (Q, W) words from `as_words`.
        codes: (N, W) words of the shard.
        offset: archive position of the shard's first code.
        k: how many to return.
        exclude: (Q, E) int32 archive positions to leave out, each row ascending.
    """
    indices = np.empty((len(queries), k), np.int32)
    distances = np.empty((len(queries), k), np.float32)
    _search(read_only(queries), read_only(codes), offset, k, read_only(exclude), indices, distances)
    return Neighbours(indices, distances)
