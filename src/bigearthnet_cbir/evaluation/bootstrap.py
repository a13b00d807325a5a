"""Bootstrap confidence intervals of means over queries.

The percentile bootstrap: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13,
https://doi.org/10.1201/9780429246593. A compiled loop sums one block of draws while NumPy generates the next.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np

from bigearthnet_cbir.compiled import compiled_loosely, kernel_array
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.headline_metrics import COLUMNS, figures
from bigearthnet_cbir.types import DoubleArray

RESAMPLES: Final = 1000
CONFIDENCE: Final = 0.95
SEED: Final = 0

_DRAWS: Final = 1 << 21
"""Draws per block (16 MiB); each thread holds one block at a time."""
_THREADS: Final = min(8, os.cpu_count() or 1)


class Difference(NamedTuple):
    """Difference of a metric between two runs.

    Attributes:
        value: difference on all queries.
        lower: lower limit of the interval.
        upper: upper limit of the interval.
    """

    value: float
    lower: float
    upper: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.lower > 0 or self.upper < 0


def resampled_means(values: DoubleArray, resamples: int = RESAMPLES, seed: int = SEED) -> DoubleArray:
    """Return (resamples, F) means of (Q, F) per-query values over Q queries drawn with replacement.

    Raises:
        ResultsError: there are no queries, or a value is not finite.
    """
    queries = len(values)
    if queries == 0 or not np.isfinite(values).all():
        raise ResultsError(f"{queries:,} queries, not all with finite values; exclude queries without labels")
    generator = np.random.default_rng(seed)
    columns = kernel_array(np.transpose(values), np.float64)
    means = np.empty((resamples, len(columns)))
    rows = max(1, _DRAWS // queries)
    under_way: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, resamples, rows):
            part = means[first : first + rows]
            drawn = generator.integers(queries, size=(len(part), queries))
            under_way.append(pool.submit(_add_drawn, drawn, columns, part))
            if len(under_way) > _THREADS:
                under_way.popleft().result()
        for block in under_way:
            block.result()
    means /= queries
    return means


@compiled_loosely
def _add_drawn(drawn: Any, columns: Any, sums: Any) -> None:
    """Write the column sums of the queries in each row of `drawn` to that row of `sums`."""
    times = np.empty(columns.shape[1], np.int32)
    for resample in range(drawn.shape[0]):
        times[:] = 0
        for query in drawn[resample]:
            times[query] += 1
        for column in range(columns.shape[0]):
            values, total = columns[column], 0.0
            for query in range(values.size):
                total += times[query] * values[query]
            sums[resample, column] = total


def interval(samples: DoubleArray) -> DoubleArray:
    """Return the (2, ...) limits of the central 95 % of (R, ...) resampled values."""
    outside = (1 - CONFIDENCE) / 2
    ends: DoubleArray = np.quantile(samples, [outside, 1 - outside], axis=0)
    return ends


def labelled(columns: DoubleArray) -> DoubleArray:
    """Return the rows of headline_metrics.query_columns that belong to queries with labels."""
    return columns[np.isfinite(columns).all(axis=1)]


def headline_intervals(columns: DoubleArray) -> dict[str, DoubleArray]:
    """Return (2,) lower and upper limits by the names of summary.HEADLINES; NaN if no query has labels.

    Args:
        columns: (Q, C) from headline_metrics.query_columns.
    """
    kept = labelled(columns)
    if len(kept) == 0:
        return {name: np.full(2, np.nan) for name in figures(np.zeros(len(COLUMNS)))}
    return {name: interval(samples) for name, samples in figures(resampled_means(kept)).items()}


def paired_differences(first: DoubleArray, second: DoubleArray) -> dict[str, Difference]:
    """Return the difference first - second of every headline metric, with its interval (paired bootstrap).

    Both runs use the same resampled queries, so that the difficulty that both share for a query cancels out.

    Args:
        first: (Q, C) from headline_metrics.query_columns.
        second: (Q, C) of the same queries in the same order.

    Raises:
        ResultsError: the numbers of queries differ, or none has labels.
    """
    if first.shape != second.shape:
        raise ResultsError(f"{len(first):,} and {len(second):,} queries; a paired comparison needs the same queries")
    both = labelled(np.concatenate([first, second], axis=1))
    samples = resampled_means(both)
    plain = _difference(both.mean(axis=0))
    ends = {name: interval(values) for name, values in _difference(samples).items()}
    return {name: Difference(float(plain[name]), *map(float, ends[name])) for name in plain}


def _difference(means: DoubleArray) -> dict[str, DoubleArray]:
    left, right = figures(means[..., : len(COLUMNS)]), figures(means[..., len(COLUMNS) :])
    return {name: np.asarray(left[name] - right[name]) for name in left}
