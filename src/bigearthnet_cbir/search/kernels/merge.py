"""Merge of sorted partial results from the shards of one archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bigearthnet_cbir.compiled import compiled, kernel_array
from bigearthnet_cbir.types import Neighbours


@compiled
def _merge(left: Any, left_distances: Any, right: Any, right_distances: Any, indices: Any, distances: Any) -> None:
    """Merge two lists per query; `left` holds smaller archive positions, so it comes first in ties."""
    k = indices.shape[1]
    for i in range(indices.shape[0]):
        a, b = 0, 0
        for slot in range(k):
            # Padding has infinite distance and is last in both lists, so a + b never exceeds k.
            if right[i, b] < 0 or (left[i, a] >= 0 and left_distances[i, a] <= right_distances[i, b]):
                indices[i, slot], distances[i, slot] = left[i, a], left_distances[i, a]
                a = min(a + 1, k - 1)
            else:
                indices[i, slot], distances[i, slot] = right[i, b], right_distances[i, b]
                b = min(b + 1, k - 1)


def merge(parts: Sequence[Neighbours]) -> Neighbours:
    """Return the k nearest of all parts, ties by archive index.

    Args:
        parts: at least one result of equal shape (Q, k), from shards in ascending archive order; -1 and infinity
            pad the lists of shards with fewer items.
    """
    merged = parts[0]
    for part in parts[1:]:
        indices, distances = np.empty_like(merged.indices), np.empty_like(merged.distances)
        _merge(
            kernel_array(merged.indices), kernel_array(merged.distances),
            kernel_array(part.indices), kernel_array(part.distances),
            indices, distances,
        )  # fmt: skip
        merged = Neighbours(indices, distances)
    return merged
