"""One query straight over an archive: the results of `search`, to the last index, whatever may be found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.search.oracles import slow_search

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search import single_query
from bigearthnet_cbir.search.kernels.int16_dot import has_pair_products
from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.shards import PreparedArchive
from bigearthnet_cbir.search.single_query import nearest_code, nearest_prepared, nearest_rows

LARGE = 20_000
DISTANCES = ("cosine", "euclidean", "chi2")


def features(rng: np.random.Generator, size: int, width: int) -> np.ndarray:
    """Few different numbers, zero vectors among them, so that distances tie."""
    return rng.integers(0, 3, (size, width)).astype(np.float32)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 20), st.sampled_from(DISTANCES), st.floats(0.1, 1))
def test_chosen_rows_equal_the_definition(seed: int, size: int, width: int, distance: str, share: float) -> None:
    rng = np.random.default_rng(seed)
    archive, query = features(rng, size, width), features(rng, 1, width)
    chosen = np.flatnonzero(rng.random(size) <= share).astype(np.int32)
    if not len(chosen):
        return
    k = int(rng.integers(1, len(chosen) + 1))
    left_out = np.setdiff1d(np.arange(size), chosen)[None]
    expected = slow_search(query, archive, k, distance, left_out)
    lengths = np.linalg.norm(archive.astype(np.float64), axis=1) if distance == "cosine" and seed % 2 else None
    found = nearest_rows(query[0], archive, chosen, k, distance, lengths)
    assert np.array_equal(found.indices, expected.indices)
    assert np.allclose(found.distances, expected.distances, atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 20), st.integers(1, 3))
def test_codes_equal_the_definition(seed: int, size: int, width: int, queries: int) -> None:
    rng = np.random.default_rng(seed)
    archive = rng.integers(0, 4, (size, width), dtype=np.uint8)
    asks = rng.integers(0, 4, (queries, width), dtype=np.uint8)
    exclude = np.full((queries, 2), -1, np.int32)
    if size > 2:
        exclude[:, 0] = rng.integers(0, size, queries)
    k = int(rng.integers(1, size + 1 - (size > 2)))
    expected = slow_search(asks, archive, k, "hamming", exclude)
    found = search(asks, archive, k, "hamming", exclude)
    assert np.array_equal(found.indices, expected.indices)
    assert np.array_equal(found.distances, expected.distances)
    allowed = rng.random(size) < 0.5
    if allowed.any():
        left_out = np.flatnonzero(~allowed)[None]
        k = int(allowed.sum())
        assert np.array_equal(
            nearest_code(asks[0], archive, k, allowed).indices,
            slow_search(asks[:1], archive, k, "hamming", left_out).indices,
        )


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_a_large_search(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    archive, queries = features(rng, LARGE, 24), features(rng, 9, 24)
    codes, asks = (rng.integers(0, 8, (size, 8), dtype=np.uint8) for size in (LARGE, 9))
    left_out = np.sort(rng.choice(LARGE, 3000, replace=False)).astype(np.int32)
    chosen = np.setdiff1d(np.arange(LARGE), left_out).astype(np.int32)
    monkeypatch.setattr(single_query, "available_cores", lambda: threads)
    prepared = PreparedArchive(archive, "cosine")
    excluded = np.tile(left_out, (9, 1))
    together = search(queries, archive, 100, "cosine", excluded)
    by_bit_planes = search(asks, codes, 100, "hamming", excluded)
    allowed = np.ones(LARGE, np.bool_)
    allowed[left_out] = False
    for number in range(9):
        one = nearest_rows(queries[number], archive, chosen, 100, "cosine")
        assert np.array_equal(one.indices[0], together.indices[number])
        assert np.array_equal(one.distances[0], together.distances[number])
        if has_pair_products():
            one = nearest_prepared(queries[number], prepared, 100, left_out)
            assert np.array_equal(one.indices[0], together.indices[number])
            assert np.array_equal(one.distances[0], together.distances[number])
        one = nearest_code(asks[number], codes, 100, allowed)
        assert np.array_equal(one.indices[0], by_bit_planes.indices[number])
        assert np.array_equal(one.distances[0], by_bit_planes.distances[number])


def test_codes_of_a_prepared_archive_and_of_odd_widths() -> None:
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 256, (500, 5), dtype=np.uint8)
    expected = slow_search(codes[:2], codes, 20, "hamming")
    for archive in (codes, PreparedArchive(codes, "hamming"), np.asfortranarray(codes)):
        assert np.array_equal(search(codes[:2], archive, 20, "hamming").indices, expected.indices)


def test_queries_without_an_answer_are_refused() -> None:
    rows, places = np.ones((4, 3), np.float32), np.arange(4, dtype=np.int32)
    with pytest.raises(SearchError, match="k is 5, but 4 rows may be found"):
        nearest_rows(rows[0], rows, places, 5, "cosine")
    with pytest.raises(SearchError, match="distance is hamming"):
        nearest_rows(rows[0], rows, places, 1, "hamming")
    with pytest.raises(SearchError, match="NaN or infinit"):
        nearest_rows(np.full(3, np.inf, np.float32), rows, places, 1, "cosine")
    with pytest.raises(SearchError, match="chi2 is defined for non-negative features only"):
        nearest_rows(rows[0], -rows, places, 1, "chi2")
