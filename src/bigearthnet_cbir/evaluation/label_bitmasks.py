"""Label sets as 32-bit masks: the number of shared labels is the population count of an AND."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import compiled, kernel_array, popcount
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.types import DoubleArray

Words = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]
MOST_LABELS = 32


def label_words(labels: npt.NDArray[Any]) -> Words:
    """Return the (N,) uint32 words of (N, L) multi-hot labels, label j in bit j.

    Raises:
        ResultsError: `labels` is not two-dimensional, has more than 32 classes, or values other than 0 and 1.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.shape[1] > MOST_LABELS:
        raise ResultsError(f"labels have shape {labels.shape}; metrics need (N, L) with L <= {MOST_LABELS}")
    if not ((labels == 0) | (labels == 1)).all():
        raise ResultsError("labels have values other than 0 and 1; metrics need multi-hot label vectors")
    bits = np.left_shift(np.uint32(1), np.arange(labels.shape[1], dtype=np.uint32))
    return kernel_array((labels.astype(np.uint32) * bits).sum(axis=1, dtype=np.uint32))


def label_counts(words: Words) -> Counts:
    """Return the (N,) number of labels in each word."""
    counts: Counts = np.bitwise_count(words).astype(np.int64)
    return counts


def shared_labels(queries: Words, archive: Words) -> tuple[Counts, DoubleArray]:
    """Count the archive items by number of shared labels, for every query.

    Label sets repeat in archives and queries; each distinct pair of label sets is processed once.

    Returns:
        The (Q, 33) number of items that share s labels with a query, and the (Q, 2) sums of precision and F1 over all
        items.
    """
    distinct, back = np.unique(queries, return_inverse=True)
    items, times = np.unique(archive, return_counts=True)
    tally, sums = np.zeros((len(distinct), MOST_LABELS + 1), np.int64), np.zeros((len(distinct), 2))
    _meet_all(distinct, items, times, tally, sums)
    return tally[back], sums[back]


@compiled
def _meet_all(queries: Any, items: Any, times: Any, tally: Any, sums: Any) -> None:
    """Fill the tally (Q, 33) of shared labels, and the sums (Q, 2) of s / |Y_i| and 2 s / (|Y_i| + |Y_q|)."""
    for q in range(queries.size):
        labels = np.int64(popcount(queries[q]))
        for i in range(items.size):
            shared = np.int64(popcount(queries[q] & items[i]))
            tally[q, shared] += times[i]
            if shared:
                size = np.int64(popcount(items[i]))
                sums[q, 0] += times[i] * shared / size
                sums[q, 1] += times[i] * 2.0 * shared / (size + labels)


@compiled
def leave_out(queries: Any, archive: Any, exclude: Any, tally: Any, sums: Any) -> None:
    """Subtract excluded items from the results of `shared_labels`, in place.

    Args:
        queries: (Q,) words.
        archive: (N,) words.
        exclude: (Q, E) of positions.excluded_positions; a repeated position in a row counts once.
        tally: (Q, 33), changed.
        sums: (Q, 2), changed.
    """
    for q in range(queries.size):
        labels = np.int64(popcount(queries[q]))
        for e in range(exclude.shape[1]):
            place = exclude[q, e]
            if place < 0 or (e > 0 and exclude[q, e - 1] == place):
                continue
            shared = np.int64(popcount(queries[q] & archive[place]))
            tally[q, shared] -= 1
            if shared:
                size = np.int64(popcount(archive[place]))
                sums[q, 0] -= shared / size
                sums[q, 1] -= 2.0 * shared / (size + labels)
