"""Row sums in double precision with one fixed order of additions: sixteen lanes, then pairwise halving.

If the compiler may reorder a loop, it is fast, but the last bit depends on the register width of the machine; without
reordering it has a quarter of the speed. Explicit lanes are fast and have the same order of additions on every machine,
so that a cluster of different machines returns identical distances.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from bigearthnet_cbir.compiled import cgutils, require_contiguous

CACHE_LINE = 64
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

    Arguments: u (D,) float64, v (D,) float32, both contiguous.
    """

    def row_sum(_context: Any, u: Any, v: Any, size: Any) -> Any:
        require_contiguous(u, v)

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


MARKS = 64
"""Number of pairs that `marks_within` compares at once."""

MANY_FLOATS = ir.VectorType(ir.FloatType(), MARKS)


def _marks_within(_context: Any, screen: Any, scale: Any, shift: Any, first: Any, limit: Any) -> Any:
    require_contiguous(screen, scale, shift)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = []
        for kind, argument in zip(signature.args[:3], arguments[:3], strict=True):
            data = context.make_array(kind)(context, builder, argument).data
            values.append(_load(builder, data, arguments[3], MANY_FLOATS, 4))
        seed = ir.Constant(MANY_FLOATS, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), MARKS), [0] * MARKS)
        limits = builder.insert_element(seed, arguments[4], ir.Constant(ir.IntType(32), 0))
        limits = builder.shuffle_vector(limits, seed, lanes)
        shifted = builder.fsub(values[2], builder.fmul(values[0], values[1]))
        return builder.bitcast(builder.fcmp_ordered("<=", shifted, limits), ir.IntType(64))

    return types.uint64(screen, scale, shift, types.intp, types.float32), generate


marks_within = cast(Callable[..., Any], intrinsic(_marks_within))
"""Return a 64-bit mask of the pairs with shift - screen * scale <= limit.

Arguments: screen, scale, shift, contiguous float32; the index of the first pair; limit, float32.
"""


def _prefetch(_context: Any, row: Any) -> Any:
    require_contiguous(row)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        whole, number = ir.IntType(64), ir.IntType(32)
        data = builder.ptrtoint(array.data, whole)
        size = builder.mul(builder.extract_value(array.shape, 0), array.itemsize)
        byte = ir.IntType(8).as_pointer()
        call = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0"
        )
        with cgutils.for_range_slice(builder, whole(0), size, whole(CACHE_LINE), whole) as (offset, _):
            place = builder.inttoptr(builder.add(data, offset), byte)
            builder.call(call, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(row), generate


prefetch = cast(Callable[[Any], None], intrinsic(_prefetch))
"""Prefetch the memory of a contiguous array; hardware cannot predict the irregular access to archive rows."""

product_sum = _row_sum(_product)
square_sum = _row_sum(_square)
chi_square_sum = _row_sum(_chi_square)
