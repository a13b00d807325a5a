"""Every kernel against a brute-force sort, and every way of cutting the work against every other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.search.oracles import assert_same, distance_matrix, slow_search

from bigearthnet_cbir.search.kernels.merge import merge
from bigearthnet_cbir.search.knn import iter_search, search, search_slice
from bigearthnet_cbir.search.shards import make_shard
from bigearthnet_cbir.types import Neighbours

FLOAT_DISTANCES = ("cosine", "euclidean", "chi2")
DISTANCES = (*FLOAT_DISTANCES, "hamming")


def vectors(rows: int, width: int, distance: str, seed: int, levels: int = 1 << 20) -> np.ndarray:
    """Features or codes; few levels make many ties."""
    generator = np.random.default_rng(seed)
    if distance == "hamming":
        return generator.integers(0, min(levels, 256), (rows, width), dtype=np.uint8)
    signs = -levels // 2 if distance != "chi2" else 0
    return (generator.integers(signs, levels, (rows, width)) / 8).astype(np.float32)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data(), distance=st.sampled_from(DISTANCES))
def test_search_equals_sorting_everything(data: st.DataObject, distance: str) -> None:
    size = data.draw(st.integers(1, 150), "archive")
    width = data.draw(st.sampled_from([1, 2, 3, 8, 16, 31, 32, 33, 64, 128]), "columns")
    levels = data.draw(st.sampled_from([1, 2, 3, 1 << 20]), "levels")
    k = data.draw(st.one_of(st.just(size), st.integers(1, size)), "k")
    seed = data.draw(st.integers(0, 1000), "seed")
    queries = vectors(data.draw(st.integers(1, 4), "queries"), width, distance, seed, levels)
    archive = vectors(size, width, distance, seed + 1, levels)
    assert_same(search(queries, archive, k, distance, threads=1), slow_search(queries, archive, k, distance))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), distance=st.sampled_from(DISTANCES))
def test_excluded_positions_are_never_returned(data: st.DataObject, distance: str) -> None:
    archive = vectors(60, 8, distance, 3, levels=4)
    listed = st.lists(st.integers(-1, 59), min_size=5, max_size=5)
    exclude = np.array(data.draw(st.lists(listed, min_size=3, max_size=3)), np.int32)
    k = data.draw(st.integers(1, 55))
    found = search(archive[:3], archive, k, distance, exclude, threads=1)
    assert_same(found, slow_search(archive[:3], archive, k, distance, exclude))


@pytest.mark.parametrize("distance", DISTANCES)
def test_blocks_shards_and_threads_agree_to_the_last_bit(distance: str) -> None:
    queries, archive = vectors(300, 24, distance, 5), vectors(9001, 24, distance, 6)
    archive[7000] = archive[40]
    whole = search(queries, archive, 700, distance, threads=1)
    assert_same(search(queries, archive, 700, distance, threads=3), whole)
    assert_same(search(queries[123:124], archive, 700, distance), Neighbours(*(part[123:124] for part in whole)))
    for block in (1, 77, 256, 299):
        found = list(iter_search(queries[:100], archive, 700, distance, block=block, threads=2))
        assert [first for first, _ in found] == list(range(0, 100, block))
        joined = Neighbours(*(np.concatenate(arrays) for arrays in zip(*(f for _, f in found), strict=True)))
        assert_same(joined, Neighbours(*(part[:100] for part in whole)))
    nothing = np.empty((300, 0), np.int32)
    for rows in (640, 1000, 4097, 8999):
        shards = [make_shard(archive, a, min(a + rows, 9001), distance) for a in range(0, 9001, rows)]
        assert_same(merge([search_slice(queries, shard, distance, 700, nothing) for shard in shards]), whole)
    sample = slow_search(queries[:2], archive, 700, distance)
    assert_same(Neighbours(*(part[:2] for part in whole)), sample)


@pytest.mark.parametrize("distance", DISTANCES)
def test_equal_items_come_in_archive_order(distance: str) -> None:
    archive = np.repeat(vectors(1, 16, distance, 8), 9000, axis=0)
    found = search(archive[:2], archive, 4500, distance)
    assert (found.indices == np.arange(4500)).all()
    assert (found.distances == 0).all()


@pytest.mark.parametrize("distance", FLOAT_DISTANCES)
def test_items_closer_than_the_screen_can_tell_are_still_ranked_exactly(distance: str) -> None:
    """A collapsed embedding: float32 products see one point, the definition sees an order."""
    generator = np.random.default_rng(9)
    step = np.float32(2.0**-11 if distance == "cosine" else 2.0**-23)
    archive = 1 + generator.integers(0, 4, (6000, 64)).astype(np.float32) * step
    expected = slow_search(archive[:2], archive, 50, distance)
    assert len(np.unique(expected.distances)) > 2
    assert_same(search(archive[:2], archive, 50, distance), expected)


def test_hamming_limit_survives_an_archive_that_comes_ever_closer() -> None:
    """Every code beats all before it: the candidate lists overflow and are cut back many times."""
    bits = np.tril(np.ones((256, 256), np.uint8))[::-1]
    archive = np.repeat(np.packbits(bits, axis=1), 200, axis=0)
    query = np.zeros((1, 32), np.uint8)
    found = search(query, archive, 300, "hamming")
    assert found.distances[0].tolist() == [1.0] * 200 + [2.0] * 100
    assert found.indices[0].tolist() == [*range(51000, 51200), *range(50800, 50900)]


def test_float_limit_survives_an_archive_that_comes_ever_closer() -> None:
    archive = np.linspace(1, 0, 30_000, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    found = search(np.zeros((1, 4), np.float32), archive, 200, "euclidean")
    assert found.indices[0].tolist() == list(range(29_999, 29_799, -1))


@pytest.mark.parametrize("bits", [8, 64, 72, 128, 192, 256, 320, 512, 1024])
def test_every_code_length(bits: int) -> None:
    queries, archive = vectors(3, bits // 8, "hamming", bits), vectors(500, bits // 8, "hamming", bits + 1)
    archive[100] = ~queries[0]
    assert_same(search(queries, archive, 500, "hamming"), slow_search(queries, archive, 500, "hamming"))
    assert distance_matrix(queries[:1], archive[100:101], "hamming")[0, 0] == bits


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
@pytest.mark.parametrize("distance", FLOAT_DISTANCES)
def test_scale_of_the_features_does_not_hurt(distance: str, scale: float) -> None:
    archive = (vectors(400, 20, distance, 12) * np.float32(scale)).astype(np.float32)
    queries = (vectors(4, 20, distance, 13) * np.float32(scale)).astype(np.float32)
    assert_same(search(queries, archive, 60, distance), slow_search(queries, archive, 60, distance))


def test_zero_vectors_stand_at_cosine_distance_one() -> None:
    archive = np.array([[0, 0], [1, 0], [-1, 0], [0, 1]], np.float32)
    found = search(np.array([[0, 0], [2, 0]], np.float32), archive, 4, "cosine")
    assert found.distances.tolist() == [[1, 1, 1, 1], [0, 1, 1, 2]]
    assert found.indices.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2]]
