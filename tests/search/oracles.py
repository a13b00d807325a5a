"""Slow searches, written from the definitions alone."""

from __future__ import annotations

import numpy as np

from bigearthnet_cbir.types import Neighbours


def distance_matrix(queries: np.ndarray, archive: np.ndarray, distance: str) -> np.ndarray:
    """(Q, N) float32; one pair at a time."""
    result = np.empty((len(queries), len(archive)), np.float32)
    for i, query in enumerate(queries):
        for j, item in enumerate(archive):
            if distance == "hamming":
                result[i, j] = sum((int(a) ^ int(b)).bit_count() for a, b in zip(query, item, strict=True))
                continue
            u, v = query.astype(np.float64), item.astype(np.float64)
            if distance == "cosine":
                lengths = np.sqrt(u @ u) * np.sqrt(v @ v)
                cosine = np.float32((u @ v) / lengths if lengths > 0 else 0.0)
                result[i, j] = np.float32(1.0) - min(cosine, np.float32(1.0))
            elif distance == "euclidean":
                result[i, j] = np.sqrt(((u - v) ** 2).sum())
            else:
                result[i, j] = 0.5 * ((u - v) ** 2 / (u + v + 1e-10)).sum()
    return result


def slow_search(
    queries: np.ndarray, archive: np.ndarray, k: int, distance: str, exclude: np.ndarray | None = None
) -> Neighbours:
    """Sort everything by (distance, archive index) and take the first k."""
    distances = distance_matrix(queries, archive, distance)
    indices = np.empty((len(queries), k), np.int32)
    for i, row in enumerate(distances):
        order = np.lexsort((np.arange(len(archive)), row))
        if exclude is not None:
            order = order[~np.isin(order, exclude[i])]
        indices[i] = order[:k]
    return Neighbours(indices, np.take_along_axis(distances, indices.astype(np.int64), axis=1))


def assert_same(found: Neighbours, expected: Neighbours) -> None:
    """Equal to the last bit."""
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert found.indices.dtype == np.int32
    assert found.distances.dtype == np.float32
