"""Equal values give equal neighbours, however they lie in memory and whatever type they come in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.arrangements import LAYOUTS, arranged, layouts
from tests.search.oracles import assert_same, slow_search

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search import archive_shards
from bigearthnet_cbir.search import torch_backend as gpu
from bigearthnet_cbir.search.knn import concat_neighbours, iter_search, search
from bigearthnet_cbir.search.shards import PreparedArchive

DISTANCES = ("cosine", "euclidean", "chi2", "hamming")
FLOATS = ("f2", "f4", "f8", "g")
INTEGERS = ("i1", "i2", "i4", "i8")


def values(rows: int, width: int, distance: str, seed: int) -> np.ndarray:
    """Values that every float type holds exactly."""
    generator = np.random.default_rng(seed)
    if distance == "hamming":
        return generator.integers(0, 256, (rows, width), dtype=np.uint8)
    signs = 0 if distance == "chi2" else -64
    return (generator.integers(signs, 64, (rows, width)) / 8).astype(np.float32)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data(), distance=st.sampled_from(DISTANCES))
def test_layouts_and_types_change_nothing(data: st.DataObject, distance: str) -> None:
    width = data.draw(st.sampled_from([1, 2, 3, 7, 8, 16, 24, 33, 64]), "columns")
    queries = values(data.draw(st.integers(1, 5), "queries"), width, distance, data.draw(st.integers(0, 99), "seed"))
    archive = values(data.draw(st.integers(3, 40), "archive"), width, distance, data.draw(st.integers(100, 199)))
    exclude = np.array([[i % 2, -1] for i in range(len(queries))], np.int64)
    k = data.draw(st.integers(1, len(archive) - 2), "k")
    expected = slow_search(queries, archive, k, distance, exclude)
    types = ["u1"] if distance == "hamming" else FLOATS
    mine, theirs = (data.draw(st.sampled_from(types), "type") for _ in range(2))
    found_in = arranged(archive, data.draw(layouts, "archive layout"), theirs)
    asked = arranged(queries, data.draw(layouts, "query layout"), mine)
    left_out = arranged(exclude, data.draw(layouts, "exclude layout"), data.draw(st.sampled_from(INTEGERS)))
    assert_same(search(asked, found_in, k, distance, left_out, threads=1), expected)
    assert_same(search(asked, PreparedArchive(found_in, distance), k, distance, left_out, threads=2), expected)
    assert_same(gpu.search_on_device(asked, found_in, k, distance, left_out, "cpu"), expected)


class NotAnArray:
    """Rows that are read by slices only, as from a file."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape = rows, rows.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.rows[rows]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("distance", DISTANCES)
def test_layouts_change_nothing_in_shards_of_a_file(
    distance: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, archive = values(300, 24, distance, 1), values(2000, 24, distance, 2)
    expected = search(queries, archive, 30, distance)
    monkeypatch.setattr(archive_shards, "ARCHIVE_BYTES", 0)
    monkeypatch.setattr(archive_shards, "SHARD_BYTES", 24 * 600)
    monkeypatch.setattr(archive_shards, "LEAST_SHARD", 256)
    asked, found_in = NotAnArray(arranged(queries, layout)), NotAnArray(arranged(archive, layout))
    blocks = [found for _, found in iter_search(asked, found_in, 30, distance, block=100, threads=2)]
    assert_same(concat_neighbours(blocks, 30), expected)


def test_arrays_with_gaps_are_refused() -> None:
    archive = values(9, 4, "cosine", 3)
    with pytest.raises(SearchError, match="queries: a masked array"):
        search(np.ma.masked_less(archive, 0), archive, 2, "cosine")


def test_vectors_that_float32_cannot_hold_are_refused() -> None:
    archive = values(9, 4, "euclidean", 4)
    wide = archive.astype(np.float64)
    wide[5] = 1e-60
    with pytest.raises(SearchError, match="queries: row 5 is too small for float32"):
        search(wide, archive, 2, "euclidean")
    wide[5] = 1e60
    with pytest.raises(
        SearchError, match=r"archive: 1 feature vectors have NaN or infinite values, the first in row 5"
    ):
        search(archive, wide, 2, "euclidean")
