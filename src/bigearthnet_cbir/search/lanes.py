"""Row sums in double precision, in one fixed order: sixteen lanes, then halves onto halves.

A loop that the compiler may reorder is fast, but its last bit depends on how wide the machine's registers are; a loop
that it may not reorder runs at a quarter of the speed. Spelling the lanes out gives both: the order of the additions
is the same on every machine, so a mixed cluster returns the same distances to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils as untyped_cgutils
from numba.extending import intrinsic

cgutils: Any = untyped_cgutils

LANES = 16
DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
FLOATS = ir.VectorType(ir.FloatType(), LANES)


def _load(builder: Any, data: Any, index: Any, kind: Any, alignment: int) -> Any:
    pointer = builder.bitcast(builder.gep(data, [index]), kind.as_pointer())
    return builder.load(pointer, align=alignment)


def _fold(builder: Any, total: Any) -> Any:
    width = LANES
    while width > 1:
        width //= 2
        undefined = ir.Constant(total.type, ir.Undefined)
        half = ir.VectorType(ir.IntType(32), width)
        low = builder.shuffle_vector(total, undefined, ir.Constant(half, list(range(width))))
        high = builder.shuffle_vector(total, undefined, ir.Constant(half, list(range(width, 2 * width))))
        total = builder.fadd(low, high)
    return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))


def _row_sum(term: Callable[[Any, Any, Any], Any]) -> Any:
    """Return an intrinsic that sums term(u, v) over the first `size` elements; `size` is a multiple of LANES.

    Its arguments: u (D,) float64, v (D,) float32, both contiguous.
    """

    def row_sum(_context: Any, u: Any, v: Any, size: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            u_data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            v_data = context.make_array(signature.args[1])(context, builder, arguments[1]).data
            total = cgutils.alloca_once_value(builder, ir.Constant(DOUBLES, [0.0] * LANES))
            zero, step = ir.Constant(arguments[2].type, 0), ir.Constant(arguments[2].type, LANES)
            with cgutils.for_range_slice(builder, zero, arguments[2], step, arguments[2].type) as (index, _):
                left = _load(builder, u_data, index, DOUBLES, 8)
                right = builder.fpext(_load(builder, v_data, index, FLOATS, 4), DOUBLES)
                builder.store(builder.fadd(builder.load(total), term(builder, left, right)), total)
            return _fold(builder, builder.load(total))

        return types.float64(u, v, types.intp), generate

    return intrinsic(row_sum)


def _product(builder: Any, u: Any, v: Any) -> Any:
    return builder.fmul(u, v)


def _square(builder: Any, u: Any, v: Any) -> Any:
    difference = builder.fsub(u, v)
    return builder.fmul(difference, difference)


def _chi_square(builder: Any, u: Any, v: Any) -> Any:
    tiny = ir.Constant(DOUBLES, [1e-10] * LANES)
    return builder.fdiv(_square(builder, u, v), builder.fadd(builder.fadd(u, v), tiny))


product_sum = _row_sum(_product)
square_sum = _row_sum(_square)
chi_square_sum = _row_sum(_chi_square)
