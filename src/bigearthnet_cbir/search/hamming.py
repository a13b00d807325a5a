"""Exact k nearest packed codes by Hamming distance.

The archive is met in chunks of 256 codes, every query of a tile in turn, so that a chunk's table stays in the
first-level cache (see `bitslices`). A query only looks at codes that are nearer than its k-th so far; since distances
are small integers, that limit is kept exact by counting, at every step, and the result is sorted by counting too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.search.bitslices import (
    CASES,
    CHUNK,
    CHUNK_WORDS,
    FEW_LEVELS,
    choose_cases,
    nearer_few,
    nearer_many,
    planes_of,
    slice_codes,
    tabulate,
)
from bigearthnet_cbir.search.compiled import compiled, popcount, read_only, trailing_zeros
from bigearthnet_cbir.search.selection import is_listed
from bigearthnet_cbir.types import Neighbours

Words = npt.NDArray[np.uint64]
WORD_BYTES = 8


def as_words(codes: npt.NDArray[np.uint8]) -> Words:
    """Return (N, ceil(B / 8)) uint64 words of (N, B) packed codes, read-only, the missing bytes 0."""
    missing = -codes.shape[1] % WORD_BYTES
    if missing:
        codes = np.pad(codes, ((0, 0), (0, missing)))
    codes = np.ascontiguousarray(codes)
    if codes.ctypes.data % WORD_BYTES:
        codes = codes.copy()
    return read_only(codes.view(np.uint64))


def as_planes(words: Words, code_bytes: int) -> Words:
    """Return the (ceil(N / 256), P, 4) bit planes of (N, W) words that hold codes of `code_bytes` bytes."""
    planes = np.empty((-(-len(words) // CHUNK), planes_of(8 * code_bytes), CHUNK_WORDS), np.uint64)
    slice_codes(words, planes)
    return read_only(planes)


@compiled
def _distance(code: Any, query: Any) -> Any:
    if query.size == 4:  # 256 bits; spelt out, since a loop of unknown length costs more than the four words
        low = popcount(code[0] ^ query[0]) + popcount(code[1] ^ query[1])
        return np.int64(low + popcount(code[2] ^ query[2]) + popcount(code[3] ^ query[3]))
    total = np.int64(0)
    for word in range(query.size):
        total += np.int64(popcount(code[word] ^ query[word]))
    return total


@compiled
def _collect(
    marks: Any, words: Any, first: int, offset: int, query: Any, k: int, listed: Any, values: Any, places: Any,
    tally: Any, state: Any,
) -> None:
    """Append the marked codes of a chunk, which are all nearer than the limit, and lower the limit accordingly.

    `state` is [limit, candidates below it, candidates stored]. The limit is the k-th smallest distance so far, and
    a code at the limit itself comes too late: k codes with a smaller position are at least as near.
    """
    limit, below, stored = state[0], state[1], state[2]
    before = stored
    for part in range(CHUNK_WORDS):
        left = marks[part]
        start = first + 64 * part
        if start + 64 > words.shape[0]:  # codes that only fill the last chunk
            left &= (np.uint64(1) << np.uint64(max(words.shape[0] - start, 0))) - np.uint64(1)
        while left:
            code = start + np.int64(trailing_zeros(left))
            left &= left - np.uint64(1)
            if listed.size and is_listed(listed, offset + code):
                continue
            distance = _distance(words[code], query)
            values[stored] = distance
            places[stored] = offset + code
            tally[distance] += 1
            stored += 1
    below += stored - before
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
def _search(
    queries: Any, words: Any, planes: Any, offset: int, k: int, exclude: Any, indices: Any, distances: Any
) -> None:
    count, bits = len(queries), planes.shape[1]
    room = 2 * k + 2 * CHUNK
    values = np.empty((count, room), np.uint16)
    places = np.empty((count, room), np.int32)
    tallies = np.zeros((count, bits + 2), np.int32)
    states = np.zeros((count, 3), np.int64)
    states[:, 0] = bits + 1
    cases = np.empty((count, 2 * (bits // 3)), np.uint16)
    for i in range(count):
        choose_cases(queries[i], cases[i])
    table = np.empty((bits // 3, CASES, CHUNK_WORDS), np.uint64)
    marks = np.empty(CHUNK_WORDS, np.uint64)
    few = bits < 1 << FEW_LEVELS
    for chunk in range(planes.shape[0]):
        tabulate(planes[chunk], table)
        for i in range(count):
            limit = states[i, 0]
            found = nearer_few(table, cases[i], limit, marks) if few else nearer_many(table, cases[i], limit, marks)
            if not found:
                continue
            if states[i, 2] + CHUNK > room:
                _compact(values[i], places[i], k, states[i])
            _collect(
                marks, words, chunk * CHUNK, offset, queries[i], k, exclude[i], values[i], places[i], tallies[i],
                states[i],
            )
    for i in range(count):
        _finish(values[i], places[i], tallies[i], states[i], indices[i], distances[i])


def nearest_codes(
    queries: Words, words: Words, planes: Words, offset: int, k: int, exclude: npt.NDArray[np.int32]
) -> Neighbours:
    """Return the k nearest codes of a shard; -1 and infinity where the shard has fewer.

    Args:
        queries: (Q, W) words from `as_words`.
        words: (N, W) words of the shard.
        planes: the same codes from `as_planes`.
        offset: archive position of the shard's first code.
        k: how many to return.
        exclude: (Q, E) int32 archive positions to leave out, each row ascending.
    """
    indices = np.empty((len(queries), k), np.int32)
    distances = np.empty((len(queries), k), np.float32)
    _search(read_only(queries), words, planes, offset, k, read_only(exclude), indices, distances)
    return Neighbours(indices, distances)
