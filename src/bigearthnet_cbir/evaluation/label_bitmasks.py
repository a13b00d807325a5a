"""Label sets as 32-bit words: shared labels are one AND and one population count away."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import compiled, kernel_array, popcount
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.positions import excluded_positions
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
        raise ResultsError("labels hold values other than 0 and 1; metrics need multi-hot label vectors")
    bits = np.left_shift(np.uint32(1), np.arange(labels.shape[1], dtype=np.uint32))
    return kernel_array((labels.astype(np.uint32) * bits).sum(axis=1, dtype=np.uint32))


def label_counts(words: Words) -> Counts:
    """Return the (N,) number of labels in each word."""
    counts: Counts = np.bitwise_count(words).astype(np.int64)
    return counts


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
def _leave_out(queries: Any, words: Any, exclude: Any, tally: Any, sums: Any) -> None:
    """Take excluded positions, from positions.excluded_positions, out of what _meet_all filled."""
    for q in range(queries.size):
        labels = np.int64(popcount(queries[q]))
        for e in range(exclude.shape[1]):
            place = exclude[q, e]
            if place < 0 or (e > 0 and exclude[q, e - 1] == place):
                continue
            shared = np.int64(popcount(queries[q] & words[place]))
            tally[q, shared] -= 1
            if shared:
                size = np.int64(popcount(words[place]))
                sums[q, 0] -= shared / size
                sums[q, 1] -= 2.0 * shared / (size + labels)


class ArchiveLabels:
    """The label words of an archive. Archives repeat few label sets, so each distinct one is met once.

    Attributes:
        words: (N,) uint32.
    """

    def __init__(self, labels: npt.NDArray[Any]) -> None:
        self.words = label_words(labels)
        self._items, self._times = np.unique(self.words, return_counts=True)
        self._known: dict[int, int] = {}
        self._tally = np.zeros((0, MOST_LABELS + 1), np.int64)
        self._sums = np.zeros((0, 2))

    def __len__(self) -> int:
        return len(self.words)

    def shared_label_counts(
        self, queries: Words, exclude: npt.NDArray[Any] | None = None
    ) -> tuple[Counts, DoubleArray]:
        """Return what queries with these words find in the archive, their excluded positions left out.

        Args:
            queries: (Q,) words.
            exclude: (Q, E) archive positions, -1 as filling, or None.

        Returns:
            The (Q, 33) number of items that share s labels, and the (Q, 2) sums over all items of the pair's
            precision and of its F1.

        Raises:
            ResultsError: see positions.excluded_positions.
        """
        distinct, back = np.unique(queries, return_inverse=True)
        self._learn(np.array([word for word in distinct if int(word) not in self._known], np.uint32))
        rows = np.array([self._known[int(word)] for word in distinct], np.int64)[back]
        tally, sums = self._tally[rows], self._sums[rows]
        if exclude is not None:
            listed = excluded_positions(exclude, len(queries), len(self))
            _leave_out(kernel_array(queries), self.words, listed, tally, sums)
        return tally, sums

    def _learn(self, new: Words) -> None:
        tally, sums = np.zeros((len(new), MOST_LABELS + 1), np.int64), np.zeros((len(new), 2))
        _meet_all(new, self._items, self._times, tally, sums)
        self._known.update({int(word): len(self._tally) + row for row, word in enumerate(new)})
        self._tally = np.concatenate([self._tally, tally])
        self._sums = np.concatenate([self._sums, sums])
