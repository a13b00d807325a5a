"""Candidates by Hamming distance ordered by cosine: exact, in the order of an exact search, and how much they miss."""

from __future__ import annotations

import numpy as np
import pytest
from tests.search.oracles import assert_same, distance_matrix, slow_search

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search import two_stage
from bigearthnet_cbir.search.binarizers import fit_binarizers
from bigearthnet_cbir.search.knn import iter_search, search
from bigearthnet_cbir.search.two_stage import iter_rerank, recall_curve, rerank_by_cosine
from bigearthnet_cbir.types import Neighbours


class File:
    """Rows that are read by slices only."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape = array, array.shape

    def __getitem__(self, part: slice) -> np.ndarray:
        assert isinstance(part, slice)
        return self.array[part].copy()


def world() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    archive = generator.standard_normal((150, 20)).astype(np.float32)
    archive[40:45] = archive[40]  # equal vectors: ties
    return generator.standard_normal((37, 20)).astype(np.float32), archive


def test_the_list_is_an_exact_search_among_the_hamming_candidates() -> None:
    queries, archive = world()
    binarizer = fit_binarizers("itq", {"s1": archive}, 16)["s1"]
    codes = binarizer.codes(queries), binarizer.codes(archive)
    blocks = iter_search(*codes, 12, "hamming", block=10)
    found = [block for _, block in iter_rerank(blocks, queries, archive, 5)]
    candidates = slow_search(*codes, 12, "hamming").indices
    cosine = distance_matrix(queries, archive, "cosine")
    for query, block_row in enumerate(zip(*(np.concatenate(parts) for parts in zip(*found, strict=True)), strict=True)):
        expected = sorted(candidates[query], key=lambda row: (cosine[query, row], row))[:5]
        assert block_row[0].tolist() == expected
        assert block_row[1].tolist() == cosine[query, expected].tolist()


def test_all_candidates_give_the_exact_search_to_the_last_bit() -> None:
    queries, archive = world()
    everything = np.tile(np.random.default_rng(1).permutation(150).astype(np.int32), (37, 1))
    assert_same(rerank_by_cosine(queries, everything, archive, 30), search(queries, archive, 30, "cosine"))


def test_a_file_is_read_in_pieces_that_hold_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, archive = world()
    monkeypatch.setattr(two_stage, "PIECE_BYTES", 4 * 20 * 7)
    some = np.random.default_rng(2).choice(150, (37, 9)).astype(np.int32)
    some.sort(axis=1)
    blocks = [(0, Neighbours(some, some.astype(np.float32)))]
    expected = rerank_by_cosine(queries, some, archive, 4)
    for most in (0, 1 << 30):
        monkeypatch.setattr(two_stage, "ARCHIVE_BYTES", most)
        assert_same(next(iter_rerank(blocks, queries, File(archive), 4))[1], expected)
    assert_same(rerank_by_cosine(queries, some, File(archive), 4), rerank_by_cosine(queries, some, archive, 4))


def test_recall_equals_the_loops() -> None:
    queries, archive = world()
    binarizer = fit_binarizers("rotation", {"s1": archive}, 16)["s1"]
    candidates = search(binarizer.codes(queries), binarizer.codes(archive), 25, "hamming").indices
    found = rerank_by_cosine(queries, candidates, archive, 8)
    exact = search(queries, archive, 8, "cosine")
    curve = recall_curve(found.indices, exact.indices)
    for k in range(1, 9):
        shares = [len(set(a[:k]) & set(b[:k])) / k for a, b in zip(found.indices, exact.indices, strict=True)]
        assert curve[k - 1] == pytest.approx(np.mean(shares))
    assert 0 < curve[-1] < 1
    assert recall_curve(exact.indices, exact.indices).tolist() == [1] * 8


def test_vectors_without_a_cosine_are_refused() -> None:
    queries, archive = world()
    rows = np.arange(5, dtype=np.int32)[None]
    archive[3, 0] = np.nan
    with pytest.raises(SearchError, match="NaN"):
        rerank_by_cosine(queries[:1], rows, archive, 2)
    assert isinstance(rerank_by_cosine(queries[:1], rows[:, :3], archive, 2), Neighbours)
