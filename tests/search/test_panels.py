"""The cosine's integer screen: exact sums, a bound that holds, and the same answers with and without it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.search.oracles import assert_same, slow_search

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.kernels import int16_screen as panels_module
from bigearthnet_cbir.search.kernels.int16_dot import PANEL, has_pair_products, has_wide_pair_products
from bigearthnet_cbir.search.kernels.int16_screen import largest_integer, make_panels, round_queries, screen_panels
from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.ray_backend import shard_rows
from bigearthnet_cbir.search.shards import PreparedArchive, cut_shard

needs_instruction = pytest.mark.skipif(not has_pair_products(), reason="this processor has no AVX2")


def rows_of(kind: str, size: int, width: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((size, width))
    if kind == "collapsed":
        rows = 1.0 + 1e-4 * rows
    elif kind == "sparse":
        rows *= generator.random((size, width)) < 2 / width
    elif kind == "tiny":
        rows *= 1e-9
    return rows.astype(np.float32)


@needs_instruction
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["spread", "collapsed", "sparse", "tiny"]),
    size=st.integers(1, 70),
    width=st.sampled_from([1, 2, 3, 7, 64, 129, 256]),
    seed=st.integers(0, 50),
)
def test_screen_is_within_its_bound(kind: str, size: int, width: int, seed: int) -> None:
    rows, queries = rows_of(kind, size, width, seed), rows_of(kind, 5, width, seed + 100)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    query_lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
    panels = make_panels(rows, lengths)
    rounded = round_queries(queries.astype(np.float64), query_lengths, panels)
    screen = np.empty((len(rounded.values), PANEL * len(panels.values)), np.float32)
    screen_panels(rounded.values, rounded.steps, panels.values, screen)
    units = rows / np.where(lengths > 0, lengths, 1)[:, None]
    query_units = queries / np.where(query_lengths > 0, query_lengths, 1)[:, None]
    guessed = screen[:5, :size] * panels.steps.astype(np.float64) + rounded.centres[:, None]
    off = np.abs(guessed - query_units.astype(np.float64) @ units.T.astype(np.float64))
    assert (off <= rounded.bounds[:, None] + 8 * 2.0**-24).all()


@pytest.mark.skipif(not has_wide_pair_products(), reason="kernels are compiled without AVX512-VNNI here")
@pytest.mark.parametrize("queries", [4, 16, 20, 60])
@pytest.mark.parametrize("width", [2, 34, 256])
def test_wide_registers_give_the_same_sums(queries: int, width: int) -> None:
    generator = np.random.default_rng(queries * width)
    largest = largest_integer(width)
    values = generator.integers(-largest, largest + 1, (queries, width)).astype(np.int16)
    panels = generator.integers(-largest, largest + 1, (3, width // 2, PANEL, 2)).astype(np.int16)
    steps = generator.random(queries, dtype=np.float32)
    narrow, wide = (np.full((queries, 4 * PANEL), np.nan, np.float32) for _ in range(2))
    panels_module._screen_panels(values, steps, panels, narrow)
    panels_module._screen_panels_wide(values, steps, panels, wide)
    np.testing.assert_array_equal(narrow, wide)
    rows = panels.transpose(0, 2, 1, 3).reshape(3 * PANEL, width)
    exact = values.astype(np.int64) @ rows.astype(np.int64).T
    np.testing.assert_array_equal(wide[:, : 3 * PANEL], exact.astype(np.float32) * steps[:, None])


@needs_instruction
@pytest.mark.parametrize("width", [1, 2, 255, 256, 4096])
def test_the_largest_sums_fit(width: int) -> None:
    """All integers at their greatest, of one sign: the sum that an int32 must hold."""
    largest = largest_integer(width)
    assert (width + width % 2) * largest**2 < 2**31
    values = np.full((4, width + width % 2), largest, np.int16)
    values[:, width:] = 0
    panel = np.zeros((1, (width + 1) // 2, PANEL, 2), np.int16)
    panel[0] = values[0].reshape(-1, 1, 2)
    screen = np.empty((4, PANEL), np.float32)
    screen_panels(values, np.ones(4, np.float32), panel, screen)
    assert (screen == np.float32(width * largest**2)).all()


@pytest.mark.parametrize("kind", ["spread", "collapsed", "sparse"])
def test_with_and_without_integers_the_answer_is_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, queries = rows_of(kind, 3000, 48, 1), rows_of(kind, 300, 48, 2)
    archive[50:60] = archive[40]
    found = search(queries, archive, 400, "cosine")
    monkeypatch.setattr(panels_module, "has_pair_products", lambda: False)
    assert_same(search(queries, archive, 400, "cosine"), found)
    few = slow_search(queries[:1], archive, 400, "cosine")
    np.testing.assert_array_equal(found.indices[:1], few.indices)


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "hamming"])
@pytest.mark.parametrize("queries", [3, 1500])
def test_prepared_archive_is_searched_like_the_array(distance: str, queries: int) -> None:
    generator = np.random.default_rng(4)
    if distance == "hamming":
        archive = generator.integers(0, 256, (20_001, 16), dtype=np.uint8)
    else:
        archive = generator.standard_normal((20_001, 16), dtype=np.float32)
    prepared = PreparedArchive(archive, distance)
    expected = search(archive[:queries], archive, 50, distance, threads=1)
    assert_same(search(archive[:queries], prepared, 50, distance, threads=2), expected)
    pieces = [cut_shard(prepared.shard, a, min(a + 8192, 20_001)) for a in range(0, 20_001, shard_rows(20_001, 3))]
    assert [piece.offset for piece in pieces] == [0, 6912, 13824]


def test_archive_prepared_for_another_distance_is_refused() -> None:
    prepared = PreparedArchive(np.ones((5, 8), np.float32), "cosine")
    with pytest.raises(SearchError, match="prepared for cosine"):
        search(np.ones((1, 8), np.float32), prepared, 1, "euclidean")
