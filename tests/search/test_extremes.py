"""Magnitudes at which float32 underflows or overflows, codes of any length, and positions of any integer type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.search.oracles import assert_same, slow_search

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search import torch_backend as gpu
from bigearthnet_cbir.search.distances import LONGEST, SHORTEST
from bigearthnet_cbir.search.knn import iter_search, search
from bigearthnet_cbir.types import Neighbours

LANES = 16


def lane_sum(terms: np.ndarray) -> np.float64:
    """Add as docs/scale.md says: sixteen lanes, halves onto halves, then the rest one by one."""
    whole = len(terms) - len(terms) % LANES
    lanes = np.zeros(LANES)
    for row in terms[:whole].reshape(-1, LANES):
        lanes = lanes + row
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    total = lanes[0]
    for term in terms[whole:]:
        total = total + term
    return total


def exact_distance(query: np.ndarray, item: np.ndarray, distance: str) -> np.float32:
    u, v = query.astype(np.float64), item.astype(np.float64)
    if distance == "euclidean":
        return np.float32(np.sqrt(lane_sum((u - v) * (u - v))))
    if distance == "chi2":
        return np.float32(0.5 * lane_sum((u - v) * (u - v) / (u + v + 1e-10)))
    lengths = np.sqrt(lane_sum(u * u)) * np.sqrt(lane_sum(v * v))
    cosine = np.float32(lane_sum(u * v) / lengths) if lengths > 0 else np.float32(0)
    return np.float32(1) - min(cosine, np.float32(1))


def exact_search(queries: np.ndarray, archive: np.ndarray, k: int, distance: str) -> Neighbours:
    distances = np.array([[exact_distance(u, v, distance) for v in archive] for u in queries], np.float32)
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k].astype(np.int32)
    return Neighbours(indices, np.take_along_axis(distances, indices, 1))


@st.composite
def extreme_rows(draw: st.DrawFn, rows: int, width: int, distance: str) -> np.ndarray:
    """Rows about some magnitude, each element that times a factor of a few or of many powers of ten."""
    centre = draw(st.integers(-44, 14))
    spread = draw(st.sampled_from([0, 0, 1, 6, 30]))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    powers = centre + generator.integers(-spread, spread, (rows, width), endpoint=True)
    found = generator.integers(0, 20, (rows, width)) / 7 * 10.0 ** np.clip(powers, -45, 13)
    if distance != "chi2":
        found *= generator.choice([-1, 1], (rows, width))
    if distance == "cosine":
        lengths = np.sqrt((found**2).sum(axis=1))
        found[(lengths < 2 * SHORTEST)] = 0
    with np.errstate(under="ignore"):
        return found.astype(np.float32)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data(), distance=st.sampled_from(["cosine", "euclidean", "chi2"]))
def test_neighbours_are_exact_at_every_magnitude(data: st.DataObject, distance: str) -> None:
    width = data.draw(st.sampled_from([1, 3, 16, 17, 40]), "columns")
    archive = data.draw(extreme_rows(60, width, distance), "archive")
    queries = data.draw(extreme_rows(2, width, distance), "queries")
    queries = np.concatenate([queries, archive[:1]])
    assert (np.linalg.norm(archive.astype(np.float64), axis=1) < LONGEST).all()
    k = data.draw(st.integers(1, 59), "k")
    expected = exact_search(queries, archive, k, distance)
    assert_same(search(queries, archive, k, distance, threads=1), expected)
    assert_same(gpu.search_on_device(queries, archive, k, distance, device="cpu"), expected)


@pytest.mark.parametrize("width", [8, 64])
def test_chi_square_of_tiny_features_finds_the_nearest(width: int) -> None:
    """Squares about the smallest float32: those of the many are rounded to 0, the one nearer item's are doubled."""
    archive = np.full((5000, width), 6.9e-46**0.5, np.float32)
    archive[3000, ::2], archive[3000, 1::2] = 0, 7.1e-46**0.5
    query = np.zeros((1, width), np.float32)
    assert exact_distance(query[0], archive[3000], "chi2") < exact_distance(query[0], archive[0], "chi2")
    for found in (search(query, archive, 1, "chi2"), gpu.search_on_device(query, archive, 1, "chi2", device="cpu")):
        assert found.indices.tolist() == [[3000]]


@pytest.mark.parametrize("width", [2045, 2046, 2047, 2048, 2456, 2460, 9001])
def test_codes_of_any_length(width: int) -> None:
    generator = np.random.default_rng(width)
    queries, archive = (generator.integers(0, 256, (n, width), dtype=np.uint8) for n in (3, 300))
    archive[7], archive[9] = ~queries[0], queries[1]
    distances = np.array([[np.bitwise_count(u ^ v).sum() for v in archive] for u in queries], np.float32)
    indices = np.argsort(distances, axis=1, kind="stable").astype(np.int32)
    expected = Neighbours(indices, np.take_along_axis(distances, indices, 1))
    found = search(queries, archive, 300, "hamming")
    assert_same(found, expected)
    assert found.distances[0, -1] == 8 * width
    assert_same(gpu.search_on_device(queries, archive, 300, "hamming", device="cpu"), expected)


def test_codes_that_are_too_long_are_refused() -> None:
    codes = np.zeros((1, 131_071), np.uint8)
    with pytest.raises(SearchError, match=r"codes have 131,071 bytes; a Hamming search takes 131,070 at most"):
        search(codes, codes, 1, "hamming")
    assert search(codes[:, :131_070], ~codes[:, :131_070], 1, "hamming").distances[0, 0] == 8 * 131_070


ARCHIVE = np.random.default_rng(1).random((50, 6), dtype=np.float32)


@pytest.mark.parametrize("position", [50, 2**31, 2**32, 2**32 + 3, 2**40])
@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_excluded_positions_beyond_the_archive_are_refused(position: int, kind: type) -> None:
    exclude = np.array([[1], [position], [2]], kind)
    message = f"query 1 excludes position {position:,}, but the archive has 0 to 49"
    with pytest.raises(SearchError, match=message):
        search(ARCHIVE[:3], ARCHIVE, 5, "cosine", exclude)
    with pytest.raises(SearchError, match=message):
        gpu.search_on_device(ARCHIVE[:3], ARCHIVE, 5, "cosine", exclude, "cpu")


def test_every_negative_position_is_filling() -> None:
    exclude = np.array([[-1, 3], [-(2**32), 4], [-(2**31) - 1, -7]], np.int64)
    expected = slow_search(ARCHIVE[:3], ARCHIVE, 9, "euclidean", exclude)
    np.testing.assert_array_equal(search(ARCHIVE[:3], ARCHIVE, 9, "euclidean", exclude).indices, expected.indices)
    unsigned = np.array([[0], [1], [2]], np.uint8)
    assert (search(ARCHIVE[:3], ARCHIVE, 1, "euclidean", unsigned).indices != unsigned).all()


def test_excluded_positions_are_integers() -> None:
    with pytest.raises(SearchError, match="exclude is float64; it needs integer archive positions"):
        search(ARCHIVE[:1], ARCHIVE, 1, "cosine", np.array([[0.0]]))


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "chi2"])
def test_a_broken_row_is_named_by_its_place_in_the_whole_array(distance: str) -> None:
    rows = np.random.default_rng(2).random((1000, 4), dtype=np.float32)
    broken = rows.copy()
    broken[700, 1] = broken[900, 0] = np.nan
    with pytest.raises(
        SearchError, match=r"archive: 2 feature vectors have NaN or infinite values, the first in row 700;"
    ):
        search(rows[:1], broken, 1, distance)
    blocks = iter_search(broken, rows, 1, distance, start=100, block=256)
    with pytest.raises(
        SearchError, match=r"queries: 1 feature vectors have NaN or infinite values, the first in row 700;"
    ):
        list(blocks)
    broken[700, 1], broken[900, 0] = 1e20, 0
    with pytest.raises(SearchError, match=r"queries: row 700 has length 1e\+20"):
        list(iter_search(broken, rows, 1, distance, start=100, block=256))


def test_a_negative_feature_is_named_too() -> None:
    rows = np.random.default_rng(3).random((600, 4), dtype=np.float32)
    rows[555, 2] = -2
    with pytest.raises(SearchError, match=r"queries: the smallest feature is -2 in row 555, but chi2"):
        list(iter_search(rows, rows[:9], 1, "chi2", block=256))
