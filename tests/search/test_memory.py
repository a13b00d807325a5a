"""What a search holds at a time, by Python's own count of what it allocates: it does not grow with the shards."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.search.oracles import assert_same

from bigearthnet_cbir.search import archive_shards, rows
from bigearthnet_cbir.search import binary_codes as codes
from bigearthnet_cbir.search import ray_backend as parallel
from bigearthnet_cbir.search.binary_codes import binarize, codes_of, median_thresholds, pack
from bigearthnet_cbir.search.knn import iter_search, search
from bigearthnet_cbir.search.shards import PreparedArchive
from bigearthnet_cbir.types import Neighbours

pytestmark = pytest.mark.slow

MEGA = 1 << 20


class File:
    """Rows that are read by slices only; a slice is a copy, as from a disk."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape = array, array.shape

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.array[part].copy()


def peak_of(call: Callable[[], Any]) -> int:
    """Return the most bytes that a call had allocated at once, and still holds after it; the call runs twice."""
    call()  # compiles
    gc.collect()
    tracemalloc.start()
    kept = call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return peak


@pytest.mark.parametrize("distance", ["hamming", "euclidean", "cosine"])
def test_lists_are_merged_shard_by_shard(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    archive = generator.integers(0, 256, (10_240, 8), dtype=np.uint8)
    archive = archive if distance == "hamming" else archive.astype(np.float32)
    queries, k = archive[:1024], 500
    expected = search(queries, archive, k, distance)
    monkeypatch.setattr(archive_shards, "ARCHIVE_BYTES", 0)
    monkeypatch.setattr(archive_shards, "LEAST_SHARD", 512)
    monkeypatch.setattr(archive_shards, "SHARD_BYTES", 512 * archive.itemsize * 8)
    found: list[Neighbours] = []

    def run() -> None:
        found[:] = [part for _, part in iter_search(queries, File(archive), k, distance, threads=1)]

    peak = peak_of(run)
    assert_same(found[0], expected)
    lists = 1024 * k * 8
    assert peak < 4 * lists  # one merged list, and a few tiles and shards under way: not twenty shards' lists


def test_a_file_of_codes_is_prepared_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE_BYTES", 1 << 18)
    archive = File(np.random.default_rng(1).integers(0, 256, (100_000, 19), dtype=np.uint8))
    planes = PreparedArchive(archive, "hamming").shard.planes  # type: ignore[union-attr]
    assert peak_of(lambda: PreparedArchive(archive, "hamming")) < planes.nbytes + MEGA
    nearest = search(archive.array[:20], PreparedArchive(archive, "hamming"), 5, "hamming")
    assert_same(nearest, search(archive.array[:20], archive.array, 5, "hamming"))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_a_file_of_features_is_read_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE_BYTES", 1 << 18)
    archive = File(np.random.default_rng(2).random((50_000, 24)).astype(kind))
    singles = archive.array.size * 4
    assert peak_of(lambda: PreparedArchive(archive, "euclidean")) < singles + 3 * MEGA


def test_thresholds_and_codes_are_made_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "MEDIAN_BYTES", MEGA)
    monkeypatch.setattr(codes, "BLOCK_BYTES", 1 << 18)
    features = File(np.random.default_rng(3).standard_normal((50_000, 60), dtype=np.float32))
    thresholds = median_thresholds(features)
    np.testing.assert_array_equal(thresholds, np.median(features.array, axis=0))
    np.testing.assert_array_equal(codes_of(features, thresholds), pack(binarize(features.array, thresholds)))
    assert features.array.nbytes > 11 * MEGA
    assert peak_of(lambda: codes_of(features, median_thresholds(features))) < 3 * MEGA


class Reference:
    """Stands for one of Ray's: what it refers to lives until it is dropped."""

    def __init__(self, part: Neighbours) -> None:
        self.part = part


def test_ray_results_are_merged_and_dropped_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = np.random.default_rng(4).random((900, 8), dtype=np.float32)
    parts = [search(archive[:20], archive[a : a + 90], 30, "euclidean") for a in range(0, 900, 90)]
    references = [Reference(Neighbours(part.indices + 90 * i, part.distances)) for i, part in enumerate(parts)]
    alive = weakref.WeakSet(references)
    seen: list[int] = []

    def fetched(reference: Reference) -> Neighbours:
        seen.append(len(alive))
        return reference.part

    monkeypatch.setattr(parallel, "fetched", fetched)
    first, found = parallel._collected(40, references)
    assert first == 40
    assert_same(found, search(archive[:20], archive, 30, "euclidean"))
    assert seen == list(range(10, 0, -1))
