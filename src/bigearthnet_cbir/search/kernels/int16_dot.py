"""Products of 16-bit integers by the processor's own multiply-and-add of pairs (AVX2 vpmaddwd), from registers only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from bigearthnet_cbir.compiled import cgutils, compiles_for, require_contiguous

PANEL = 16
"""Archive rows side by side: two registers of pairs."""

QUERIES_AT_ONCE = 4
"""Queries that share a load of the panel: eight of sixteen registers hold their sums."""

HALF = PANEL // 2
PAIRS = ir.VectorType(ir.IntType(16), 2 * HALF)
SUMS = ir.VectorType(ir.IntType(32), HALF)
RESULTS = ir.VectorType(ir.FloatType(), HALF)
NUMBER, WHOLE = ir.IntType(32), ir.IntType(64)


@cache
def has_pair_products() -> bool:
    """Return whether kernels are compiled for processors with the instruction."""
    return compiles_for("avx2")


def _repeated(builder: Any, value: Any) -> Any:
    """Return a register with `value` in all places."""
    kind = ir.VectorType(value.type, HALF)
    empty = ir.Constant(kind, ir.Undefined)
    everywhere = ir.Constant(ir.VectorType(NUMBER, HALF), [0] * HALF)
    return builder.shuffle_vector(builder.insert_element(empty, value, NUMBER(0)), empty, everywhere)


def _row_pointers(builder: Any, array: Any, first: Any, column: Any, kind: Any) -> list[Any]:
    """Return pointers to `column` of QUERIES_AT_ONCE rows, from `first` on, of a two-dimensional array."""
    strides = [builder.extract_value(array.strides, axis) for axis in (0, 1)]
    start = builder.add(builder.ptrtoint(array.data, WHOLE), builder.mul(column, strides[1]))
    rows = [builder.add(first, WHOLE(row)) for row in range(QUERIES_AT_ONCE)]
    return [builder.inttoptr(builder.add(start, builder.mul(row, strides[0])), kind.as_pointer()) for row in rows]


def _add_products(builder: Any, rows: list[Any], panel: Any, pairs: Any) -> list[Any]:
    """Sum the products over all pairs; return two registers of sums for each query."""
    multiply = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(SUMS, [PAIRS, PAIRS]), "llvm.x86.avx2.pmadd.wd"
    )
    zero = ir.Constant(SUMS, [0] * HALF)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(2 * QUERIES_AT_ONCE)]
    with cgutils.for_range(builder, pairs) as loop:
        place = builder.mul(loop.index, WHOLE(2))
        halves = [builder.load(builder.gep(panel, [builder.add(place, WHOLE(half))]), align=4) for half in (0, 1)]
        for query, row in enumerate(rows):
            pair = builder.load(builder.gep(row, [loop.index]), align=4)
            repeated = builder.bitcast(_repeated(builder, pair), PAIRS)
            for half in (0, 1):
                total = sums[2 * query + half]
                product = builder.call(multiply, [halves[half], repeated])
                builder.store(builder.add(builder.load(total), product), total)
    return [builder.load(total) for total in sums]


def _pair_products(_context: Any, queries: Any, steps: Any, first: Any, panels: Any, panel: Any, screen: Any) -> Any:
    require_contiguous(queries, steps, panels, screen)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows_in, steps_in, panels_in, out = (
            context.make_array(signature.args[at])(context, builder, arguments[at]) for at in (0, 1, 3, 5)
        )
        start, place = arguments[2], arguments[4]
        values = builder.inttoptr(
            builder.add(
                builder.ptrtoint(panels_in.data, WHOLE), builder.mul(place, builder.extract_value(panels_in.strides, 0))
            ),
            PAIRS.as_pointer(),
        )
        rows = _row_pointers(builder, rows_in, start, WHOLE(0), NUMBER)
        sums = _add_products(builder, rows, values, builder.extract_value(panels_in.shape, 1))
        targets = _row_pointers(builder, out, start, builder.mul(place, WHOLE(PANEL)), RESULTS)
        for query, target in enumerate(targets):
            step = _repeated(builder, builder.load(builder.gep(steps_in.data, [builder.add(start, WHOLE(query))])))
            for half in (0, 1):
                value = builder.fmul(builder.sitofp(sums[2 * query + half], RESULTS), step)
                builder.store(value, builder.gep(target, [WHOLE(half)]), align=4)
        return context.get_dummy_value()

    return types.none(queries, steps, types.intp, panels, types.intp, screen), generate


pair_products = cast(Callable[..., None], intrinsic(_pair_products))
"""Write the products of 4 queries with the 16 rows of a panel, each times its query's step, as float32.

Arguments: queries (Q, D') int16; steps (Q,) float32; the first of the 4 queries; panels (P, D' / 2, 16, 2) int16; the
panel's place; screen (Q, 16 P) float32. Whole arrays and places, because cutting out slices would cost more than a
tenth of the time. The sums must fit an int32. Only where `has_pair_products`.
"""
