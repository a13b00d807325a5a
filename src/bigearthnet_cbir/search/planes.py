"""Conversion of packed codes to bit planes of 256 codes, for the kernels of `kernels/bit_planes`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import compiled, kernel_array
from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.kernels.bit_planes import (
    CHUNK,
    CHUNK_WORDS,
    SEGMENT_BITS,
    WIDE_LEVELS,
    levels_for,
    planes_of,
)

CodeWords: TypeAlias = npt.NDArray[np.uint64]
WORD_BYTES: Final = 8


def check_code_bytes(width: int) -> None:
    """Raise SearchError for codes that are too long for the distance counters."""
    if levels_for(planes_of(8 * width)) > WIDE_LEVELS:
        most = ((1 << WIDE_LEVELS) - 2) // SEGMENT_BITS * SEGMENT_BITS // 8
        raise SearchError(f"codes have {width:,} bytes; a Hamming search takes {most:,} at most; shorten the codes")


def as_words(codes: npt.NDArray[np.uint8]) -> CodeWords:
    """Return (N, ceil(B / 8)) uint64 words of (N, B) packed codes, read-only, padded with zero bytes."""
    missing = -codes.shape[1] % WORD_BYTES
    if missing:
        codes = np.pad(codes, ((0, 0), (0, missing)))
    return kernel_array(kernel_array(codes).view(np.uint64))


def as_planes(pieces: Iterable[npt.NDArray[np.uint8]], size: int, width: int) -> CodeWords:
    """Return the (ceil(N / 256), P, 4) uint64 bit planes of packed codes, given in pieces.

    Args:
        pieces: consecutive (n, B) codes; every n but the last a multiple of 256.
        size: N, total number of codes.
        width: B, bytes per code.
    """
    planes = np.empty((-(-size // CHUNK), planes_of(8 * width), CHUNK_WORDS), np.uint64)
    first = 0
    for codes in pieces:
        slice_codes(as_words(codes), planes[first // CHUNK : -(-(first + len(codes)) // CHUNK)])
        first += len(codes)
    return kernel_array(planes)


@compiled
def _transpose(square: Any) -> None:
    """Transpose 64 words of 64 bits in place, bit j of word i with bit i of word j (Warren 2013, section 7-3)."""
    width = 32
    mask = np.uint64(0x00000000FFFFFFFF)
    while width:
        shift = np.uint64(width)
        for pair in range(32):
            upper = np.uint64(2 * pair - (pair & (width - 1)))
            lower = upper + shift
            swap = ((square[upper] >> shift) ^ square[lower]) & mask
            square[upper] ^= swap << shift
            square[lower] ^= swap
        width //= 2
        mask ^= mask << np.uint64(width)


@compiled
def slice_codes(words: Any, planes: Any) -> None:
    """Convert (N, W) uint64 codes to (ceil(N / 256), P, 4) uint64 planes, padded with zeros."""
    square = np.empty(64, np.uint64)
    for chunk in range(planes.shape[0]):
        planes[chunk] = np.uint64(0)
        for part in range(CHUNK_WORDS):
            first = chunk * CHUNK + part * 64
            for word in range(words.shape[1]):
                for i in range(64):
                    square[i] = words[first + i, word] if first + i < words.shape[0] else np.uint64(0)
                _transpose(square)
                for bit in range(min(64, planes.shape[1] - word * 64)):
                    planes[chunk, word * 64 + bit, part] = square[bit]
