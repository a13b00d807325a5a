"""Compiled selection of the k smallest among candidates that stand in archive order, in linear time.

Nothing here compares two candidates with each other. Values are counted by the digits of their bit patterns, which
for floats rank as the values do, and every move keeps the archive order of equal values: ties need no second key.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bigearthnet_cbir.search.compiled import compiled

DIGIT_BITS = 11
DIGITS = 1 << DIGIT_BITS
"""Three digits of 11 bits cover the 32 of a float."""


@compiled
def _rank_of(bits: Any) -> Any:
    """Return a uint32 that ranks as the float with these bits does."""
    if bits & np.uint32(0x80000000):
        return ~bits
    return bits | np.uint32(0x80000000)


@compiled
def kth_smallest(values: Any, k: int, tally: Any) -> Any:
    """Return the k-th smallest (k >= 1) of the float32 `values`, by three rounds of counting.

    Args:
        values: (n,) float32, n >= k.
        k: rank, from 1.
        tally: (DIGITS,) int32 scratch.
    """
    patterns = values.view(np.uint32)
    prefix = np.uint32(0)
    known = np.uint32(0)
    left = k
    for shift in (np.uint32(21), np.uint32(10), np.uint32(0)):
        width = np.uint32(1023) if shift == np.uint32(0) else np.uint32(DIGITS - 1)
        tally[:] = 0
        for pattern in patterns:
            rank = _rank_of(pattern)
            if (rank & known) == prefix:
                tally[(rank >> shift) & width] += 1
        digit = 0
        while tally[digit] < left:
            left -= tally[digit]
            digit += 1
        prefix |= np.uint32(digit) << shift
        known |= width << shift
    bits = np.empty(1, np.uint32)
    bits[0] = prefix & np.uint32(0x7FFFFFFF) if prefix & np.uint32(0x80000000) else ~prefix
    return bits.view(np.float32)[0]


@compiled
def keep_up_to(values: Any, places: Any, count: int, limit: Any) -> int:
    """Move the candidates whose value is at most `limit` to the front, in order; return how many there are."""
    kept = 0
    for i in range(count):
        value = values[i]
        values[kept] = value
        places[kept] = places[i]
        kept += value <= limit
    return kept


@compiled
def keep_smallest(values: Any, places: Any, count: int, k: int, tally: Any) -> int:
    """Move the k smallest candidates, the earliest among equals, to the front, in order; return how many there are."""
    if count <= k:
        return count
    limit = kth_smallest(values[:count], k, tally)
    below = 0
    for i in range(count):
        below += values[i] < limit
    equal_left = k - below
    kept = 0
    for i in range(count):
        value = values[i]
        values[kept] = value
        places[kept] = places[i]
        if value < limit:
            kept += 1
        elif value == limit and equal_left > 0:
            equal_left -= 1
            kept += 1
    return kept


@compiled
def sort_candidates(values: Any, places: Any, count: int, spare_values: Any, spare_places: Any, tally: Any) -> None:
    """Sort the first `count` candidates by value, keeping the order of equals (radix sort, least digit first).

    Args:
        values: float32, not negative.
        places: int32 archive positions.
        count: how many of them stand.
        spare_values: scratch, at least `count` long.
        spare_places: scratch, at least `count` long.
        tally: (DIGITS,) int32 scratch.
    """
    source, source_places = values.view(np.uint32), places
    target, target_places = spare_values.view(np.uint32), spare_places
    for shift in (np.uint32(0), np.uint32(11), np.uint32(22)):
        tally[:] = 0
        for i in range(count):
            tally[(source[i] >> shift) & np.uint32(DIGITS - 1)] += 1
        start = 0
        for digit in range(DIGITS):
            size = tally[digit]
            tally[digit] = start
            start += size
        for i in range(count):
            digit = (source[i] >> shift) & np.uint32(DIGITS - 1)
            slot = tally[digit]
            tally[digit] += 1
            target[slot] = source[i]
            target_places[slot] = source_places[i]
        source, target = target, source
        source_places, target_places = target_places, source_places
    # Three rounds end in the spare arrays.
    for i in range(count):
        values.view(np.uint32)[i] = source[i]
        places[i] = source_places[i]


@compiled
def is_listed(listed: Any, place: Any) -> Any:
    """Return whether the ascending int32 `listed` holds `place`."""
    low, high = 0, listed.size
    while low < high:
        middle = (low + high) // 2
        if listed[middle] < place:
            low = middle + 1
        else:
            high = middle
    return low < listed.size and listed[low] == place
