"""Label sets as 32-bit words: shared labels are one AND and one population count away."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.types import ByteArray

MOST_LABELS: Final = 32

Words = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]


def to_words(labels: ByteArray) -> Words:
    """Return (N,) words of (N, L) multi-hot rows, label j in bit j.

    Raises:
        ValueError: there are more than 32 labels.
    """
    if labels.ndim != 2 or labels.shape[1] > MOST_LABELS:
        raise ValueError(f"labels have shape {labels.shape}; give (N, L) with L <= {MOST_LABELS}")
    powers = np.uint32(1) << np.arange(labels.shape[1], dtype=np.uint32)
    words: Words = np.where(labels > 0, powers, np.uint32(0)).sum(axis=1, dtype=np.uint32)
    return words


def shared(words: Words, others: Words) -> npt.NDArray[np.uint8]:
    """Return how many labels two broadcast arrays of words share."""
    counted: npt.NDArray[np.uint8] = np.bitwise_count(words & others)
    return counted


class ArchiveLabels:
    """The label words of an archive, and what every query asks of them.

    Attributes:
        words: (N,) of the archive.
        sizes: (N,) number of labels of each item.
    """

    def __init__(self, labels: ByteArray) -> None:
        self.words = to_words(labels)
        self.sizes = np.bitwise_count(self.words)
        self._distinct, self._times = np.unique(self.words, return_counts=True)

    def __len__(self) -> int:
        return len(self.words)

    def totals(self, query_words: Words, weights: Any) -> npt.NDArray[np.float64]:
        """Return (Q,) sums over the archive of weights(shared labels, labels of the item, labels of the query)."""
        unique, back = np.unique(query_words, return_inverse=True)
        sizes = np.bitwise_count(self._distinct)[None, :]
        values = weights(shared(unique[:, None], self._distinct[None, :]), sizes, np.bitwise_count(unique)[:, None])
        result: npt.NDArray[np.float64] = (values * self._times).sum(axis=1)[back]
        return result

    def shared_histogram(self, query_words: Words, exclude: npt.NDArray[np.integer] | None) -> Counts:
        """Return (Q, 33) numbers of archive items that share s labels with a query, excluded positions left out."""
        unique, back = np.unique(query_words, return_inverse=True)
        table = np.zeros((len(unique), MOST_LABELS + 1), dtype=np.int64)
        counts = shared(unique[:, None], self._distinct[None, :])
        for s in range(MOST_LABELS + 1):
            table[:, s] = ((counts == s) * self._times).sum(axis=1)
        histogram: Counts = table[back]
        if exclude is not None:
            for column in exclude.T:
                rows = np.nonzero(column >= 0)[0]
                lost = shared(query_words[rows], self.words[column[rows]])
                histogram[rows, lost] -= 1
        return histogram
