"""Bit-sliced Hamming distances of 256 codes at a time, with logical operations on vector registers.

Codes are stored as planes: plane p has bit p of 256 consecutive codes. For three planes, a query differs from a code in
0 to 3 bits. This two-bit number depends only on the query's three bits, so the planes of all eight cases are tabulated
once per 256 codes and used by every query of a tile. Each query then adds the two-bit numbers with full adders (five
logical instructions each) and compares the sums with its limit. There is no population count and no shuffle, and
distances are not written to memory. The method follows the carry-save population count of Harley and Seal (Warren 2013,
Hacker's Delight, section 5-1); the shared tables follow the method of the four Russians (Arlazarov et al. 1970).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from bigearthnet_cbir.compiled import cgutils, compiled, require_contiguous

CHUNK: Final = 256
"""Codes per plane: the width of an AVX2 register; other processors split or combine registers."""

CHUNK_WORDS: Final = 4
SEGMENT: Final = 8
"""Triples of planes added per round."""

SEGMENT_BITS: Final = 3 * SEGMENT
CASES: Final = 10
"""Planes tabulated per triple: the low bit of the sum for both parities of the query, the high bit for all 8 cases."""

FEW_LEVELS: Final = 9
MANY_LEVELS: Final = 14
WIDE_LEVELS: Final = 20
"""Bits of a distance: 9 for codes of up to 504 bits, 14 for usual code lengths, 20 for the longest codes."""

PLANE = ir.VectorType(ir.IntType(64), CHUNK_WORDS)


def planes_of(bits: int) -> int:
    """Return the number of planes for codes with this many bits: whole segments, padded with zeros."""
    return -(-bits // SEGMENT_BITS) * SEGMENT_BITS


def levels_for(planes: int) -> int:
    """Return the bits needed for distances and for the limit above the largest; more than WIDE_LEVELS is too many."""
    needed = (planes + 1).bit_length()
    return next((levels for levels in (FEW_LEVELS, MANY_LEVELS, WIDE_LEVELS) if needed <= levels), needed)


def case_rows(queries: int, planes: int) -> npt.NDArray[Any]:
    """Return (Q, 2 * triples) integers for table rows; a wider type for long codes, which have more rows."""
    kind = np.uint32 if levels_for(planes) > MANY_LEVELS else np.uint16
    return np.empty((queries, 2 * (planes // 3)), kind)


class _Adder:
    """Running bit-sliced sums of 256 codes, as LLVM values."""

    def __init__(self, builder: Any, levels: int) -> None:
        self._builder = builder
        zero = ir.Constant(PLANE, [0] * CHUNK_WORDS)
        self._sums = [cgutils.alloca_once_value(builder, zero) for _ in range(levels)]

    def sums(self) -> list[Any]:
        return [self._builder.load(place) for place in self._sums]

    def add(self, incoming: dict[int, list[Any]]) -> None:
        """Add planes, given by their power of two."""
        pending = {level: list(planes) for level, planes in incoming.items()}
        for level, place in enumerate(self._sums):
            total = self._builder.load(place)
            planes, carries = pending.get(level, []), []
            while planes:
                first = planes.pop(0)
                total, carry = self._full(total, first, planes.pop(0)) if planes else self._half(total, first)
                carries.append(carry)
            self._builder.store(total, place)
            pending.setdefault(level + 1, []).extend(carries)

    def _full(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        differ = self._builder.xor(a, b)
        carry = self._builder.or_(self._builder.and_(a, b), self._builder.and_(differ, c))
        return self._builder.xor(differ, c), carry

    def _half(self, a: Any, b: Any) -> tuple[Any, Any]:
        return self._builder.xor(a, b), self._builder.and_(a, b)


def _below(builder: Any, sums: list[Any], limit: Any) -> Any:
    """Return the plane of codes whose sum is less than the integer `limit`, from the lowest bit up."""
    one = ir.Constant(limit.type, 1)
    below = ir.Constant(PLANE, [0] * CHUNK_WORDS)
    for level, total in enumerate(sums):
        bit = builder.and_(builder.lshr(limit, ir.Constant(limit.type, level)), one)
        seed = builder.insert_element(
            ir.Constant(PLANE, ir.Undefined), builder.neg(bit), ir.Constant(ir.IntType(32), 0)
        )
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), CHUNK_WORDS), [0] * CHUNK_WORDS)
        wanted = builder.shuffle_vector(seed, ir.Constant(PLANE, ir.Undefined), lanes)
        # Less if the limit has this bit and the sum does not; undecided if they are equal.
        less = builder.and_(builder.not_(total), wanted)
        agree = builder.not_(builder.xor(total, wanted))
        below = builder.or_(less, builder.and_(agree, below))
    return below


def _nearer(levels: int) -> Callable[..., Any]:
    """Return an intrinsic that marks the codes of a chunk that are nearer to a query than its limit.

    Arguments: table (triples, CASES, CHUNK_WORDS) uint64; cases (2 * triples,), the query's two table rows per
    triple, uint16, or uint32 for WIDE_LEVELS instead of `levels`; limit, int64; sums (1 + levels, CHUNK_WORDS) uint64,
    output: the marks, then the bits of the distances, lowest first. It returns the OR of the marks.
    """

    def nearer(_context: Any, table: Any, cases: Any, limit: Any, sums: Any) -> Any:
        require_contiguous(table, cases, sums)
        wanted = WIDE_LEVELS if cases.dtype == types.uint32 else levels

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            arrays = [context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1, 3)]
            table_data = builder.bitcast(arrays[0].data, PLANE.as_pointer())
            case_data, target = arrays[1].data, builder.bitcast(arrays[2].data, PLANE.as_pointer())
            count = builder.extract_value(arrays[1].shape, 0)
            adder = _Adder(builder, wanted)
            zero, step = ir.Constant(count.type, 0), ir.Constant(count.type, 2 * SEGMENT)
            with cgutils.for_range_slice(builder, zero, count, step, count.type) as (first, _):
                planes = []
                for i in range(2 * SEGMENT):
                    place = builder.gep(case_data, [builder.add(first, ir.Constant(count.type, i))])
                    row = builder.zext(builder.load(place), count.type)
                    planes.append(builder.load(builder.gep(table_data, [row]), align=8))
                adder.add({0: planes[0::2], 1: planes[1::2]})
            below = _below(builder, adder.sums(), arguments[2])
            for level, plane in enumerate([below, *adder.sums()]):
                builder.store(plane, builder.gep(target, [ir.Constant(count.type, level)]), align=8)
            words = [builder.extract_element(below, ir.Constant(ir.IntType(32), i)) for i in range(CHUNK_WORDS)]
            return builder.or_(builder.or_(words[0], words[1]), builder.or_(words[2], words[3]))

        return types.uint64(table, cases, types.int64, sums), generate

    return cast(Callable[..., Any], intrinsic(nearer))


nearer_few = _nearer(FEW_LEVELS)
nearer_many = _nearer(MANY_LEVELS)


@compiled
def tabulate(planes: Any, table: Any) -> None:
    """Compute the table (triples, CASES, 4) of a chunk from its (P, 4) planes."""
    for triple in range(table.shape[0]):
        for part in range(CHUNK_WORDS):
            a, b, c = planes[3 * triple, part], planes[3 * triple + 1, part], planes[3 * triple + 2, part]
            table[triple, 0, part] = a ^ b ^ c
            table[triple, 1, part] = ~(a ^ b ^ c)
            for case in range(4):  # two of the three differ; the other four cases are the complements
                x = ~a if case & 1 else a
                y = ~b if case & 2 else b
                high = (x & y) | (c & (x | y))
                table[triple, 2 + case, part] = high
                table[triple, 2 + (case ^ 7), part] = ~high


@compiled
def choose_cases(words: Any, cases: Any) -> None:
    """Write the table rows of one query's (W,) code: (2 * triples,), low bit and high bit of each triple."""
    for triple in range(cases.size // 2):
        word, bit = (3 * triple) >> 6, (3 * triple) & 63
        three = words[word] >> np.uint64(bit) if word < words.size else np.uint64(0)
        if bit > 61 and word + 1 < words.size:
            three |= words[word + 1] << np.uint64(64 - bit)
        case = np.int64(three & np.uint64(7))
        parity = (case ^ (case >> 1) ^ (case >> 2)) & 1
        cases[2 * triple] = CASES * triple + parity
        cases[2 * triple + 1] = CASES * triple + 2 + case
