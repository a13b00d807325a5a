"""Torch's search against the compiled one; on CPU tensors, and on a GPU where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.search.oracles import assert_same, slow_search

from bigearthnet_cbir.search import torch_backend as gpu
from bigearthnet_cbir.search.knn import search

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DISTANCES = ["cosine", "euclidean", "chi2", "hamming"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("distance", DISTANCES)
def test_device_search_equals_search(distance: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ROW_BLOCK", 700)
    monkeypatch.setattr(gpu, "QUERY_BLOCK", 20)
    monkeypatch.setattr(gpu, "PAIRS_AT_ONCE", 999)
    generator = np.random.default_rng(1)
    if distance == "hamming":
        archive = generator.integers(0, 256, (3000, 5), dtype=np.uint8)
    else:
        archive = generator.random((3000, 24), dtype=np.float32)
    exclude = np.array([[i, (7 * i) % 3000, -1] for i in range(50)], np.int32)
    for k in (1, 90, 2900):
        found = gpu.search_on_device(archive[:50], archive, k, distance, exclude, device)
        assert_same(found, search(archive[:50], archive, k, distance, exclude))


@pytest.mark.parametrize("distance", DISTANCES)
def test_many_ties_and_small_archives(distance: str) -> None:
    levels = np.random.default_rng(2).integers(0, 2, (40, 3))
    archive = levels.astype(np.uint8 if distance == "hamming" else np.float32)
    for k in (1, 7, 40):
        assert_same(
            gpu.search_on_device(archive[:5], archive, k, distance, device="cpu"),
            slow_search(archive[:5], archive, k, distance),
        )


def test_queries_that_the_screen_cannot_decide_are_decided_elsewhere() -> None:
    archive = np.repeat(np.random.default_rng(3).random((1, 8), dtype=np.float32), 2000, axis=0)
    archive[1500] *= 2
    found = gpu.search_on_device(archive[:2], archive, 30, "euclidean", device="cpu")
    assert (found.indices == np.arange(30)).all()
