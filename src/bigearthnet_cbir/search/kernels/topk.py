"""Compiled selection of the k smallest candidates in linear time; candidates are in archive order.

Selection uses histograms of the digits of the bit patterns, whose order equals that of the floats, and no comparisons
of pairs. All steps are stable, so that ties stay in archive order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bigearthnet_cbir.compiled import compiled, compiled_loosely

DIGIT_BITS = 11
DIGITS = 1 << DIGIT_BITS
"""Three digits of 11 bits cover the 32 of a float."""

FEW = 512
FEW_DIGIT_BITS = 8
"""Narrower digits for short lists, for which clearing and reading the histogram costs more than another round."""

STEPS = 1000
"""Bins of the one-round selection; with one more for rounding, below DIGITS."""


@compiled
def _rank_of(bits: Any) -> Any:
    """Return a uint32 whose order equals that of the float with these bits."""
    if bits & np.uint32(0x80000000):
        return ~bits
    return bits | np.uint32(0x80000000)


@compiled
def kth_smallest(values: Any, k: int, tally: Any) -> Any:
    """Return the k-th smallest (k >= 1) of the float32 `values`, with three histogram rounds.

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
def compact_leq(values: Any, indices: Any, count: int, limit: Any) -> int:
    """Move the candidates whose value is at most `limit` to the front, in order; return their number."""
    kept = 0
    for i in range(count):
        value = values[i]
        values[kept] = value
        indices[kept] = indices[i]
        kept += value <= limit
    return kept


@compiled
def keep_smallest(values: Any, indices: Any, count: int, k: int, tally: Any) -> int:
    """Move the k smallest candidates, the first in ties, to the front, in order; return their number."""
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
        indices[kept] = indices[i]
        if value < limit:
            kept += 1
        elif value == limit and equal_left > 0:
            equal_left -= 1
            kept += 1
    return kept


@compiled
def sort_candidates(values: Any, indices: Any, count: int, spare: Any, spare_indices: Any, tally: Any) -> None:
    """Sort the first `count` candidates by value, stable (radix sort, least significant digit first).

    Args:
        values: (R,) float32, not negative.
        indices: (R,) int32 archive indices.
        count: number of candidates.
        spare: (R,) uint32 scratch.
        spare_indices: (R,) int32 scratch.
        tally: (DIGITS,) int32 scratch.
    """
    patterns = values.view(np.uint32)
    lowest, highest = np.uint32(0xFFFFFFFF), np.uint32(0)
    for i in range(count):
        lowest, highest = min(lowest, patterns[i]), max(highest, patterns[i])
    bits = np.uint32(DIGIT_BITS) if count > FEW else np.uint32(FEW_DIGIT_BITS)
    digits = 1 << bits
    mask = np.uint32(digits - 1)
    shift = np.uint32(0)
    # Only the digits that the range of the values needs.
    while count and shift < np.uint32(32) and (highest - lowest) >> shift:
        tally[:digits] = 0
        for i in range(count):
            tally[((patterns[i] - lowest) >> shift) & mask] += 1
        start = 0
        for digit in range(digits):
            size = tally[digit]
            tally[digit] = start
            start += size
        for i in range(count):
            digit = np.int64(((patterns[i] - lowest) >> shift) & mask)
            slot = tally[digit]
            tally[digit] = slot + 1
            spare[slot] = patterns[i]
            spare_indices[slot] = indices[i]
        patterns[:count] = spare[:count]
        indices[:count] = spare_indices[:count]
        shift += bits


@compiled_loosely
def kth_upper_bound(values: Any, k: int, tally: Any) -> Any:
    """Return a value that is at least the k-th smallest of the float32 `values`, and usually only slightly larger.

    One histogram with equal bins between the smallest and the largest value.

    Args:
        values: (n,) float32, n >= k >= 1.
        k: rank, from 1.
        tally: (DIGITS,) int32 scratch.
    """
    low, high = values[0], values[0]
    for value in values:
        low, high = min(low, value), max(high, value)
    steps = np.float32(STEPS)
    spread = high - low
    if not spread > np.float32(1e-30):
        return np.float64(high)
    scale = steps / spread
    tally[: STEPS + 1] = 0
    for value in values:
        tally[np.int32((value - low) * scale)] += 1
    step = 0
    count = np.int64(tally[0])
    while count < k:
        step += 1
        count += tally[step]
    # One more bin than needed, for the rounding above.
    return np.float64(low) + (step + 2) * np.float64(spread) / STEPS


@compiled
def is_listed(listed: Any, place: Any) -> Any:
    """Return whether the ascending int32 array `listed` contains `place`."""
    low, high = 0, listed.size
    while low < high:
        middle = (low + high) // 2
        if listed[middle] < place:
            low = middle + 1
        else:
            high = middle
    return low < listed.size and listed[low] == place
