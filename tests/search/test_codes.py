"""Thresholds, bits and packed codes against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search.binary_codes import binarize, median_thresholds, pack


def test_thresholds_are_the_archives_medians() -> None:
    archive = np.random.default_rng(0).standard_normal((101, 130)).astype(np.float32)
    expected = [sorted(column)[50] for column in archive.T.tolist()]
    assert median_thresholds(archive).tolist() == expected


def test_a_bit_is_one_above_its_threshold_only() -> None:
    features = np.array([[1, 2, 3], [3, 2, 1]], np.float32)
    assert binarize(features, np.array([2, 2, 2], np.float32)).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_every_bit_halves_an_archive_without_ties() -> None:
    archive = np.random.default_rng(1).permutation(np.arange(200.0)).reshape(20, 10).astype(np.float32)
    assert (binarize(archive, median_thresholds(archive)).sum(axis=0) == 10).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 70), st.integers(0, 999))
def test_packing_keeps_every_bit_and_fills_with_zeros(width: int, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2, (3, width), dtype=np.uint8)
    codes = pack(bits)
    assert codes.shape == (3, -(-width // 8))
    for row, code in zip(bits, codes, strict=True):
        number = int.from_bytes(code.tobytes(), "big")
        text = format(number, f"0{8 * len(code)}b")
        assert text == "".join(map(str, row)) + "0" * (8 * len(code) - width)


def test_mistakes_are_refused() -> None:
    features = np.zeros((2, 3), np.float32)
    with pytest.raises(SearchError, match="one threshold per column"):
        binarize(features, np.zeros(2, np.float32))
    with pytest.raises(SearchError, match="NaN"):
        binarize(np.full((2, 3), np.nan, np.float32), np.zeros(3, np.float32))
    with pytest.raises(SearchError, match="NaN"):
        median_thresholds(np.full((2, 3), np.inf, np.float32))
    with pytest.raises(SearchError, match=r"\(N, D\)"):
        median_thresholds(np.empty((0, 3), np.float32))
    with pytest.raises(SearchError, match="other than 0 and 1"):
        pack(np.array([[0, 2]], np.uint8))
