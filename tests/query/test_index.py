"""The index of a run: what it holds, that it resumes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import RealPairs

from bigearthnet_cbir.errors import MissingIndexError, QueryError
from bigearthnet_cbir.query.find import find, query_vector
from bigearthnet_cbir.query.index import Index, open_index


def test_holds_every_pair_once(index: Index, real_pairs: RealPairs) -> None:
    assert len(index) == 6
    assert {index.pair(position) for position in range(6)} == set(real_pairs.pairs)
    for position, pair in enumerate(map(index.pair, range(6))):
        assert index.position(pair.s1) == index.position(pair.s2) == position
    assert index.vectors("fused").shape == (6, 16)
    assert index.vectors("s1").shape == index.vectors("s2").shape == (6, 8)
    assert sorted(index.catalogue.split) == ["test", "test", "train", "train", "train", "val"]
    assert set(index.catalogue.country) == {"Austria"}


def test_finds_the_nearest(index: Index) -> None:
    vectors = np.asarray(index.vectors("fused"), np.float64)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for position in range(6):
        found = find(index, query_vector(index, position, "fused", "fused"), k=5, asked=position)
        others = [other for other in range(6) if other != position]
        expected = sorted(others, key=lambda other: (1 - units[position] @ units[other], other))
        assert found.indices.tolist() == expected
        assert np.allclose(found.distances, [1 - units[position] @ units[other] for other in expected], atol=1e-6)


def test_unknown_name_is_told_with_its_nearest(index: Index) -> None:
    name = index.names_s2[0]
    with pytest.raises(QueryError, match=f"not in the index; the nearest names are {name}"):
        index.position(name[:-1] + "x")


def test_no_index_and_a_broken_one_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingIndexError, match=r"make one by project/index\.py"):
        open_index(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(QueryError, match="damaged"):
        open_index(tmp_path)
