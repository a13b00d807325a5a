"""The prepared ground truth against counting shared labels pair by pair."""

import numpy as np
import pytest
from tests.evaluation.helpers import random_labels

from bigearthnet_cbir.evaluation import ground_truth
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.metrics import mean_curves, retrieval_curves
from bigearthnet_cbir.evaluation.spatial_exclusion import SpatialExclusion
from bigearthnet_cbir.types import PatchPair

QUERIES, ARCHIVE = random_labels(9, 1), random_labels(40, 2)
QUERIES[3] = 0
ARCHIVE[7] = 0
EXCLUDE = np.array([[q, 39, 39, -1] for q in range(9)])


def counted(query: np.ndarray, exclude: set[int]) -> tuple[list[int], list[float]]:
    """Return how many items share s labels with a query, and the sums of the pairs' precision and F1."""
    tally, sums = [0] * 33, [0.0, 0.0]
    for position, item in enumerate(ARCHIVE):
        if position in exclude:
            continue
        shared = int((query & item).sum())
        tally[shared] += 1
        sums[0] += shared / item.sum() if shared else 0.0
        sums[1] += 2 * shared / (item.sum() + query.sum()) if shared else 0.0
    return tally, sums


@pytest.mark.parametrize("exclude", [None, EXCLUDE])
def test_tallies_equal_counting_pair_by_pair(exclude: np.ndarray | None) -> None:
    truth = GroundTruth.of(QUERIES, ARCHIVE, exclude)
    for row, query in enumerate(QUERIES):
        tally, sums = counted(query, set() if exclude is None else set(exclude[row].tolist()))
        assert truth.tallies[row].tolist() == tally
        assert truth.pair_sums[row].tolist() == pytest.approx(sums)
    assert truth.sizes.tolist() == [40 if exclude is None else 38] * 9


def pair_at(column: int, acquisition: str) -> PatchPair:
    return PatchPair(f"S2A_MSIL2A_{acquisition}_{column}_0", f"S1A_IW_GRDH_1SDV_{acquisition}_33UUP_{column}_0")


def test_without_spatial_neighbours_equals_excluding_them_and_the_queries_that_keep_too_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Query 0 shares its acquisition with the whole archive but one; the others lose patches beside them."""
    monkeypatch.setattr(ground_truth, "_BLOCK", 4)
    archive = [pair_at(10 * column, "20180101" if column else "20180102") for column in range(40)]
    queries = [pair_at(900, "20180101"), *(pair_at(10 * column, f"2018020{column}") for column in range(1, 9))]
    near = SpatialExclusion(queries, archive, 10, least=2)
    assert near.left_out.tolist() == [True] + [False] * 8
    labels = QUERIES.copy()
    labels[0] = 0
    expected = GroundTruth.of(labels, ARCHIVE, near[:])
    found = GroundTruth.of(QUERIES, ARCHIVE, EXCLUDE).without(near)
    np.testing.assert_array_equal(found.queries, expected.queries)
    np.testing.assert_array_equal(found.tallies[1:], expected.tallies[1:])
    indices = np.argsort(np.random.default_rng(3).random((9, 40)), axis=1)[:, :12]
    for name, curve in retrieval_curves(labels, ARCHIVE, indices, near[:]).items():
        np.testing.assert_array_equal(mean_curves(found, indices).standard[name], curve)


def test_preparing_changes_no_labels_that_were_given() -> None:
    queries, archive = QUERIES.copy(), ARCHIVE.copy()
    GroundTruth.of(queries, archive, EXCLUDE)
    np.testing.assert_array_equal(queries, QUERIES)
    np.testing.assert_array_equal(archive, ARCHIVE)
