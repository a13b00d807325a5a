"""Exact k nearest packed codes by Hamming distance.

The archive is processed in chunks of 256 codes by all queries of a tile, so that the table of a chunk stays in the L1
cache (see `bit_planes`). A query considers only codes that are nearer than its current k-th distance. Distances are
small integers, so a histogram keeps this limit exact at every step, and the result is sorted by counting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import compiled, kernel_array, popcount, trailing_zeros
from bigearthnet_cbir.search.kernels.bit_planes import (
    CASES,
    CHUNK,
    CHUNK_WORDS,
    FEW_LEVELS,
    case_rows,
    choose_cases,
    levels_for,
    nearer_few,
    nearer_many,
    tabulate,
)
from bigearthnet_cbir.search.kernels.topk import is_listed
from bigearthnet_cbir.search.planes import CodeWords
from bigearthnet_cbir.search.rows import batched_ranges
from bigearthnet_cbir.types import Neighbours

TALLIES = 1 << 24
"""Histogram entries per pass; only for codes of more than 8 KB does a pass have fewer queries than a tile."""

MANY = np.uint64(5)
"""If more than this many of 64 codes are marked, all 64 distances are unpacked at once."""


@compiled
def _distance(sums: Any, part: int, bit: Any) -> Any:
    """Return the distance of one code of a chunk, gathered from the planes of the sums."""
    total = np.uint64(0)
    for level in range(FEW_LEVELS):  # a constant, so that the compiler unrolls the loop
        total |= ((sums[level + 1, part] >> bit) & np.uint64(1)) << np.uint64(level)
    for level in range(FEW_LEVELS, sums.shape[0] - 1):
        total |= ((sums[level + 1, part] >> bit) & np.uint64(1)) << np.uint64(level)
    return np.int64(total)


@compiled
def _low_bytes(sums: Any, part: int, groups: Any) -> None:
    """Write the distances of 64 codes, modulo 256, one byte each: eight 8 x 8 bit squares, transposed.

    Warren 2012, "Hacker's Delight", section 7-3, has the three steps of the transposition.

    Args:
        sums: sums of a chunk.
        part: index of a group of 64 codes.
        groups: (8,) uint64 output.
    """
    for group in range(8):
        move = np.uint64(8 * group)
        square = np.uint64(0)
        for level in range(8):
            square |= ((sums[level + 1, part] >> move) & np.uint64(255)) << np.uint64(8 * level)
        swap = (square ^ (square >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
        square ^= swap ^ (swap << np.uint64(7))
        swap = (square ^ (square >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
        square ^= swap ^ (swap << np.uint64(14))
        swap = (square ^ (square >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
        groups[group] = square ^ swap ^ (swap << np.uint64(28))


@compiled
def _high_bits(sums: Any, part: int, bit: Any) -> Any:
    """Return the distance of one code without its low byte."""
    total = np.uint64(0)
    for level in range(8, sums.shape[0] - 1):
        total |= ((sums[level + 1, part] >> bit) & np.uint64(1)) << np.uint64(level)
    return np.int64(total)


@compiled
def _collect(
    sums: Any, size: int, first: int, k: int, listed: Any, kept: Any, tally: Any, state: Any, groups: Any
) -> None:
    """Append the marked codes of a chunk, which are all nearer than the limit, and lower the limit.

    The limit is the current k-th smallest distance. A code at the limit is not needed, because k codes with smaller
    positions are at least as near.

    Args:
        sums: marks and distances of the chunk, from `bit_planes`.
        size: codes in the chunk.
        first: archive position of its first code.
        k: number of neighbours.
        listed: ascending positions to exclude.
        kept: (R,) int64 candidates, distance << 32 | position, in archive order.
        tally: (bits + 2,) int32 candidates by distance.
        state: [limit, candidates below it, candidates kept].
        groups: (8,) uint64 scratch.
    """
    low_bytes = groups.view(np.uint8)
    limit, below, stored = state[0], state[1], state[2]
    before = stored
    for part in range(CHUNK_WORDS):
        left = sums[0, part]
        if 64 * part + 64 > size:  # padding of the last chunk
            left &= (np.uint64(1) << np.uint64(max(size - 64 * part, 0))) - np.uint64(1)
        many = popcount(left) > MANY
        if many:
            _low_bytes(sums, part, groups)
        while left:
            bit = trailing_zeros(left)
            left &= left - np.uint64(1)
            place = first + 64 * part + np.int64(bit)
            if listed.size and is_listed(listed, place):
                continue
            distance = np.int64(low_bytes[bit]) + _high_bits(sums, part, bit) if many else _distance(sums, part, bit)
            kept[stored] = (distance << 32) | place
            tally[distance] += 1
            stored += 1
    below += stored - before
    while below >= k:
        limit -= 1
        below -= tally[limit]
    state[0], state[1], state[2] = limit, below, stored


@compiled
def _compact(kept: Any, k: int, state: Any) -> None:
    """Drop the candidates that are no longer among the k nearest, keeping the order."""
    limit = state[0]
    at_limit = k - state[1]
    stored = 0
    for i in range(state[2]):
        candidate = kept[i]
        distance = candidate >> 32
        kept[stored] = candidate
        equal = (distance == limit) & (at_limit > 0)
        at_limit -= equal
        stored += (distance < limit) | equal
    state[2] = stored


@compiled
def _finish(kept: Any, tally: Any, state: Any, slots: Any, ranked: Any, indices: Any, distances: Any) -> None:
    """Write one query's candidates in order of distance, ties in archive order, then -1 and infinity.

    `ranked` is (k + 1,) scratch; its last element receives surplus candidates without a branch.
    """
    k = indices.size
    start = 0
    for distance in range(slots.size):
        slots[distance] = start if distance <= state[0] else k
        start += tally[distance]
    for i in range(state[2]):
        distance = kept[i] >> 32
        slot = min(slots[distance], k)
        slots[distance] = slot + 1
        ranked[slot] = kept[i]
    for i in range(min(state[2], k)):
        indices[i] = ranked[i] & 0x7FFFFFFF
        distances[i] = ranked[i] >> 32
    for i in range(state[2], k):
        indices[i] = -1
        distances[i] = np.inf


@compiled
def _search(
    queries: Any, planes: Any, size: int, offset: int, k: int, exclude: Any, cases: Any, sums: Any, found: Any
) -> None:
    """See nearest_codes; `cases` and `sums` are scratch with the type and size for the code length."""
    count, bits = len(queries), planes.shape[1]
    room = 2 * k + 2 * CHUNK
    kept = np.empty((count, room), np.int64)
    tallies = np.zeros((count, bits + 2), np.int32)
    states = np.zeros((count, 3), np.int64)
    states[:, 0] = bits + 1
    for i in range(count):
        choose_cases(queries[i], cases[i])
    table = np.empty((bits // 3, CASES, CHUNK_WORDS), np.uint64)
    few = sums.shape[0] == 1 + FEW_LEVELS
    groups = np.empty(8, np.uint64)
    for chunk in range(planes.shape[0]):
        tabulate(planes[chunk], table)
        first = chunk * CHUNK
        for i in range(count):
            limit = states[i, 0]
            marked = nearer_few(table, cases[i], limit, sums) if few else nearer_many(table, cases[i], limit, sums)
            if marked:
                if states[i, 2] + CHUNK > room:
                    _compact(kept[i], k, states[i])
                _collect(
                    sums,
                    min(CHUNK, size - first),
                    offset + first,
                    k,
                    exclude[i],
                    kept[i],
                    tallies[i],
                    states[i],
                    groups,
                )
    slots, ranked = np.empty(bits + 2, np.int64), np.empty(k + 1, np.int64)
    for i in range(count):
        _finish(kept[i], tallies[i], states[i], slots, ranked, found.indices[i], found.distances[i])


def nearest_codes(
    queries: CodeWords, planes: CodeWords, size: int, offset: int, k: int, exclude: npt.NDArray[np.int32]
) -> Neighbours:
    """Return the k nearest codes of a shard, padded with -1 and infinity if the shard has fewer.

    Args:
        queries: (Q, W) words from `as_words`.
        planes: the shard's codes from `as_planes`.
        size: number of codes.
        offset: archive position of the first code.
        k: number of neighbours.
        exclude: (Q, E) int32 archive positions to exclude, each row ascending.
    """
    found = Neighbours(np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32))
    words, listed, bits = kernel_array(queries), kernel_array(exclude), planes.shape[1]
    sums = np.empty((1 + levels_for(bits), CHUNK_WORDS), np.uint64)
    for a, b in batched_ranges(len(words), max(1, TALLIES // bits)):
        part = Neighbours(found.indices[a:b], found.distances[a:b])
        _search(words[a:b], planes, size, offset, k, listed[a:b], case_rows(b - a, bits), sums, part)
    return found


@compiled
def scan_codes(query: Any, codes: Any, allowed: Any, first: int, stop: int, found: Any) -> None:
    """Write the nearest of rows first ... stop - 1 to one query, straight over XOR and population count.

    For a single query this reads the codes once and writes nothing, where bit planes pay off for many.

    Args:
        query: (W,) uint64 words of the query's code.
        codes: (N, W) uint64 words.
        allowed: (N,) bool rows that may be found; or (0,) for all.
        first: row.
        stop: row.
        found: Neighbours of (1, k) arrays to fill; -1 and infinity where there are fewer than k.
    """
    k, bits = found.indices.shape[1], 64 * query.size
    kept = np.empty(2 * k + CHUNK, np.int64)
    tally, slots, ranked = np.zeros(bits + 2, np.int32), np.empty(bits + 2, np.int64), np.empty(k + 1, np.int64)
    state = np.zeros(3, np.int64)
    state[0] = bits + 1
    limit = bits + 1
    for row in range(first, stop):
        distance = np.int64(0)
        for word in range(query.size):
            distance += np.int64(popcount(query[word] ^ codes[row, word]))
        if distance >= limit or (allowed.size and not allowed[row]):
            continue
        if state[2] == kept.size:
            _compact(kept, k, state)
        kept[state[2]] = (distance << 32) | row
        tally[distance] += 1
        state[1] += 1
        state[2] += 1
        while state[1] >= k:
            limit -= 1
            state[1] -= tally[limit]
        state[0] = limit
    _finish(kept, tally, state, slots, ranked, found.indices[0], found.distances[0])
