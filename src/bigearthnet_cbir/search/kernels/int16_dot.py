"""Dot products of 16-bit integers with the multiply-add instruction of the processor, accumulated in registers.

AVX2 has it for registers of 8 sums (vpmaddwd), AVX-512 for registers of 16. With AVX512-VNNI, LLVM fuses it with the
following addition (vpdpwssd). Both give the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from bigearthnet_cbir.compiled import cgutils, compiles_for, require_contiguous

PANEL = 16
"""Archive rows of a panel: two registers of pairs with AVX2, one with AVX-512."""

QUERIES_AT_ONCE = 4
"""Queries that share a load of the panel with AVX2; their sums use eight of sixteen registers."""

QUERIES_AT_ONCE_WIDE = 16
"""The same with AVX-512: 16 of 32 registers, enough independent sums to hide the latency of the instruction."""

NUMBER, WHOLE = ir.IntType(32), ir.IntType(64)


@cache
def has_pair_products() -> bool:
    """Return whether the target processor of the kernels has the instruction in AVX2."""
    return compiles_for("avx2")


@cache
def has_wide_pair_products() -> bool:
    """Return whether the target processor has the instruction in AVX-512, fused with the addition."""
    return has_pair_products() and compiles_for("avx512bw") and compiles_for("avx512vnni")


class _Registers(NamedTuple):
    """Register layout of one instruction.

    Attributes:
        lanes: sums in a register.
        queries: number of queries that share a load of the panel.
        instruction: its name in LLVM.
    """

    lanes: int
    queries: int
    instruction: str

    @property
    def pairs(self) -> Any:
        return ir.VectorType(ir.IntType(16), 2 * self.lanes)

    @property
    def sums(self) -> Any:
        return ir.VectorType(NUMBER, self.lanes)

    @property
    def results(self) -> Any:
        return ir.VectorType(ir.FloatType(), self.lanes)

    @property
    def parts(self) -> range:
        """Indices of the registers of a panel."""
        return range(PANEL // self.lanes)

    def repeated(self, builder: Any, value: Any) -> Any:
        """Return a register with `value` in all lanes."""
        empty = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        everywhere = ir.Constant(self.sums, [0] * self.lanes)
        return builder.shuffle_vector(builder.insert_element(empty, value, NUMBER(0)), empty, everywhere)


_AVX2 = _Registers(8, QUERIES_AT_ONCE, "llvm.x86.avx2.pmadd.wd")
_AVX512 = _Registers(16, QUERIES_AT_ONCE_WIDE, "llvm.x86.avx512.pmaddw.d.512")


def _row_pointers(builder: Any, array: Any, first: Any, column: Any, kind: Any, count: int) -> list[Any]:
    """Return pointers to `column` of `count` rows, from `first` on, of a two-dimensional array."""
    strides = [builder.extract_value(array.strides, axis) for axis in (0, 1)]
    start = builder.add(builder.ptrtoint(array.data, WHOLE), builder.mul(column, strides[1]))
    rows = [builder.add(first, WHOLE(row)) for row in range(count)]
    return [builder.inttoptr(builder.add(start, builder.mul(row, strides[0])), kind.as_pointer()) for row in rows]


def _add_products(builder: Any, registers: _Registers, rows: list[Any], panel: Any, pairs: Any) -> list[list[Any]]:
    """Sum the products over all pairs; return each query's registers of sums."""
    multiply = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(registers.sums, [registers.pairs, registers.pairs]),
        registers.instruction,
    )
    zero = ir.Constant(registers.sums, [0] * registers.lanes)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in registers.parts] for _ in rows]
    with cgutils.for_range(builder, pairs) as loop:
        index = builder.mul(loop.index, WHOLE(len(registers.parts)))
        parts = [
            builder.load(builder.gep(panel, [builder.add(index, WHOLE(part))]), align=4) for part in registers.parts
        ]
        for row, totals in zip(rows, sums, strict=True):
            pair = builder.load(builder.gep(row, [loop.index]), align=4)
            repeated = builder.bitcast(registers.repeated(builder, pair), registers.pairs)
            for part, total in zip(parts, totals, strict=True):
                product = builder.call(multiply, [part, repeated])
                builder.store(builder.add(builder.load(total), product), total)
    return [[builder.load(total) for total in totals] for totals in sums]


def _pair_products(registers: _Registers) -> Callable[..., None]:
    """Return the intrinsic for one register layout."""

    def typed(_context: Any, queries: Any, steps: Any, first: Any, panels: Any, panel: Any, screen: Any) -> Any:
        require_contiguous(queries, steps, panels, screen)
        return types.none(queries, steps, types.intp, panels, types.intp, screen), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows_in, steps_in, panels_in, out = (
            context.make_array(signature.args[at])(context, builder, arguments[at]) for at in (0, 1, 3, 5)
        )
        start, panel = arguments[2], arguments[4]
        offset = builder.mul(panel, builder.extract_value(panels_in.strides, 0))
        address = builder.add(builder.ptrtoint(panels_in.data, WHOLE), offset)
        values = builder.inttoptr(address, registers.pairs.as_pointer())
        rows = _row_pointers(builder, rows_in, start, WHOLE(0), NUMBER, registers.queries)
        sums = _add_products(builder, registers, rows, values, builder.extract_value(panels_in.shape, 1))
        column = builder.mul(panel, WHOLE(PANEL))
        targets = _row_pointers(builder, out, start, column, registers.results, registers.queries)
        for query, (target, totals) in enumerate(zip(targets, sums, strict=True)):
            step = builder.load(builder.gep(steps_in.data, [builder.add(start, WHOLE(query))]))
            for part, total in zip(registers.parts, totals, strict=True):
                value = builder.fmul(builder.sitofp(total, registers.results), registers.repeated(builder, step))
                builder.store(value, builder.gep(target, [WHOLE(part)]), align=4)
        return context.get_dummy_value()

    return cast(Callable[..., None], intrinsic(typed))


pair_products = _pair_products(_AVX2)
"""Write the products of 4 queries with the 16 rows of a panel, each multiplied by the step of its query, as float32.

Arguments: queries (Q, D') int16; steps (Q,) float32; the first of the 4 queries; panels (P, D' / 2, 16, 2) int16; the
index of the panel; screen (Q, 16 P) float32. Whole arrays and indices, because slicing would take more than a tenth of
the time. The sums must fit into int32. Requires `has_pair_products`.
"""

wide_pair_products = _pair_products(_AVX512)
"""The same for 16 queries, with AVX-512. Requires `has_wide_pair_products`."""
