"""Screen of the cosine distance with 16-bit integer products, about twice as fast as float32 with AVX2.

Archive rows are normalised to length 1, centred by subtracting a mean m, and rounded to integers with one step per
row; queries are rounded likewise. For a query u and a row v, <u, v> = <u, m> + <u, v - m>. The first term is the same
for all rows. The second is small if the embeddings are concentrated around m, so that rounding is equally effective
for a collapsed embedding. By the Cauchy-Schwarz inequality the error of the rounded product is at most

    |u - u'| max |v - m| + |u'| max |(v - m) - (v - m)'|,

where u' and (v - m)' are the rounded vectors. The lengths on the right are computed, so the bound is guaranteed.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import available_cores, compiled, compiled_loosely, kernel_array
from bigearthnet_cbir.search.kernels.int16_dot import (
    PANEL,
    QUERIES_AT_ONCE,
    QUERIES_AT_ONCE_WIDE,
    has_pair_products,
    has_wide_pair_products,
    pair_products,
    wide_pair_products,
)
from bigearthnet_cbir.types import DoubleArray, FloatArray

MOST: Final = 2**31 - 1
GREATEST: Final = 2**15 - 1
MIDDLE_ROWS: Final = 4096
"""Number of rows from which the mean is computed. Any value is valid; this many rows are as good as all."""

ROWS_AT_ONCE: Final = 1 << 14
"""Rows that a thread rounds at a time; whole panels."""

SAFE: Final = 1.0 + 1e-6
"""Factor on computed lengths that exceeds their rounding errors."""

Integers = npt.NDArray[np.int16]


class Panels(NamedTuple):
    """Rounded archive rows in panels of 16.

    Attributes:
        values: (ceil(N / 16), ceil(D / 2), 16, 2) int16; empty if the processor has no fast integer products.
        steps: (N,) float32 step of each row's integers.
        middle: (D,) float64 mean that was subtracted from the rows.
        reach: largest length of a centred row.
        error: largest length of a rounding error.
    """

    values: Integers
    steps: FloatArray
    middle: DoubleArray
    reach: float
    error: float


NO_PANELS: Final = Panels(
    np.empty((0, 0, PANEL, 2), np.int16), np.empty(0, np.float32), np.empty(0, np.float64), 0.0, 0.0
)


def largest_integer(width: int) -> int:
    """Return the largest magnitude for which a sum of `width` products fits into int32."""
    return min(GREATEST, math.isqrt(MOST // (width + width % 2)))


@compiled_loosely
def _round_row(row: Any, length: float, middle: Any, largest: float, spare: Any, integers: Any) -> Any:
    """Write (row / length - middle) / step to (D,) integers; return step, squared length, squared error."""
    inverse = 1.0 / length if length > 0.0 else 0.0
    reach, top = 0.0, 0.0
    for d in range(spare.size):
        value = row[d] * inverse - middle[d]
        spare[d] = value
        reach += value * value
        top = max(top, abs(value))
    step = np.float32(top / largest)
    inverse = 1.0 / np.float64(step) if step > np.float32(1e-30) else 0.0
    error = 0.0
    for d in range(spare.size):
        whole = np.int16(np.int32(np.rint(spare[d] * inverse)))
        integers[d] = whole
        left = spare[d] - whole * np.float64(step)
        error += left * left
    return step, reach, error


@compiled
def _round_rows(
    rows: Any, lengths: Any, middle: Any, largest: float, start: int, stop: int, values: Any, steps: Any
) -> Any:
    """Round rows start ... stop - 1 into their panels; return the largest squared length and squared error."""
    spare = np.empty(rows.shape[1], np.float64)
    integers = np.zeros(2 * values.shape[1], np.int16)
    reach, error = 0.0, 0.0
    for row in range(start, stop):
        step, squared, lost = _round_row(rows[row], lengths[row], middle, largest, spare, integers[: rows.shape[1]])
        steps[row] = step
        reach, error = max(reach, squared), max(error, lost)
        place = values[row // PANEL, :, row % PANEL, :]
        for pair in range(values.shape[1]):
            place[pair, 0] = integers[2 * pair]
            place[pair, 1] = integers[2 * pair + 1]
    return reach, error


def make_panels(rows: FloatArray, lengths: DoubleArray, threads: int | None = None) -> Panels:
    """Round (N, D) float32 archive rows of the given (N,) lengths for the cosine; NO_PANELS if it would not help."""
    if not has_pair_products():
        return NO_PANELS
    size, width = rows.shape
    some = slice(None, None, max(1, size // MIDDLE_ROWS))
    middle = (rows[some] / np.where(lengths[some] > 0, lengths[some], 1.0)[:, None]).mean(axis=0, dtype=np.float64)
    values = np.zeros((-(-size // PANEL), -(-width // 2), PANEL, 2), np.int16)
    steps = np.empty(size, np.float32)

    def round_from(start: int) -> tuple[float, float]:
        stop, largest = min(start + ROWS_AT_ONCE, size), float(largest_integer(width))
        reached: tuple[float, float] = _round_rows(
            kernel_array(rows), kernel_array(lengths), middle, largest, start, stop, values, steps
        )
        return reached

    with ThreadPoolExecutor(threads or available_cores()) as pool:
        reach, error = np.array(list(pool.map(round_from, range(0, size, ROWS_AT_ONCE)))).max(axis=0)
    return Panels(kernel_array(values), kernel_array(steps), middle, math.sqrt(reach) * SAFE, math.sqrt(error) * SAFE)


class RoundedQueries(NamedTuple):
    """A tile of queries, prepared for the screen.

    Attributes:
        values: (Q', 2 ceil(D / 2)) int16, Q' a multiple of QUERIES_AT_ONCE.
        steps: (Q',) float32.
        centres: (Q,) float64 products of the normalised queries with the mean.
        bounds: (Q,) float64 error bounds of the screen values, without the float32 rounding of the result.
    """

    values: Integers
    steps: FloatArray
    centres: DoubleArray
    bounds: DoubleArray


def round_queries(queries: DoubleArray, lengths: DoubleArray, panels: Panels) -> RoundedQueries:
    """Round (Q, D) queries of the given (Q,) lengths for one archive."""
    count, width = queries.shape
    units = queries / np.where(lengths > 0, lengths, 1.0)[:, None]
    steps = np.abs(units).max(axis=1).astype(np.float32) / np.float32(largest_integer(width) - 1)
    whole = np.rint(units / np.where(steps > 0, steps, 1.0).astype(np.float64)[:, None])
    lost = np.sqrt(((units - whole * steps[:, None].astype(np.float64)) ** 2).sum(axis=1)) * SAFE
    values = np.zeros((-(-count // QUERIES_AT_ONCE) * QUERIES_AT_ONCE, 2 * panels.values.shape[1]), np.int16)
    values[:count, :width] = whole
    padded = np.zeros(len(values), np.float32)
    padded[:count] = steps
    bounds = lost * panels.reach + (SAFE + lost) * panels.error
    return RoundedQueries(values, padded, units @ panels.middle, bounds)


def screen_panels(queries: Integers, query_steps: FloatArray, panels: Integers, screen: FloatArray) -> None:
    """Write the products of all queries with the rows of some panels, each multiplied by the step of its query.

    Args:
        queries: (Q', D') int16, Q' a multiple of QUERIES_AT_ONCE.
        query_steps: (Q',) float32.
        panels: (P, D' / 2, 16, 2) int16.
        screen: (Q', S) float32, S >= 16 P.
    """
    kernel = _screen_panels_wide if has_wide_pair_products() else _screen_panels
    kernel(queries, query_steps, panels, screen)


@compiled
def _screen_panels(queries: Any, query_steps: Any, panels: Any, screen: Any) -> None:
    for panel in range(panels.shape[0]):
        for first in range(0, queries.shape[0], QUERIES_AT_ONCE):
            pair_products(queries, query_steps, first, panels, panel, screen)


@compiled
def _screen_panels_wide(queries: Any, query_steps: Any, panels: Any, screen: Any) -> None:
    whole = queries.shape[0] - queries.shape[0] % QUERIES_AT_ONCE_WIDE
    for panel in range(panels.shape[0]):
        for first in range(0, whole, QUERIES_AT_ONCE_WIDE):
            wide_pair_products(queries, query_steps, first, panels, panel, screen)
        for first in range(whole, queries.shape[0], QUERIES_AT_ONCE):
            pair_products(queries, query_steps, first, panels, panel, screen)
