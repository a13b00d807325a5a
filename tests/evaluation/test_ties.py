"""Tie-aware curves against the plain ones, averaged over every order of equal distances."""

from itertools import chain, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.helpers import labels_of, random_labels

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.metrics import retrieval_curves
from bigearthnet_cbir.evaluation.tie_aware import TIE_AWARE, tie_aware_curves
from bigearthnet_cbir.results import CurveVariant


def all_orders(distances: list[int]) -> list[list[int]]:
    """Every ranking that sorts the archive by distance."""
    groups = [[i for i, d in enumerate(distances) if d == level] for level in sorted(set(distances))]
    return [list(chain(*parts)) for parts in product(*(permutations(group) for group in groups))]


def tie_aware(queries: np.ndarray, archive: np.ndarray, distances: np.ndarray, k: int) -> CurveVariant:
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    ranked = np.take_along_axis(distances, indices, axis=1).astype(np.float32)
    return tie_aware_curves(GroundTruth.of(queries, archive), indices.astype(np.int32), ranked)


def groups(found: CurveVariant) -> tuple[float, ...]:
    return tuple(found.numbers[name] for name in ("mean_group", "largest_group", "cut_queries"))


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.integers(0, 5), min_size=1, max_size=4),
    st.lists(st.tuples(st.sets(st.integers(0, 5), max_size=3), st.integers(0, 2)), min_size=1, max_size=6),
)
def test_curves_are_the_mean_over_all_orders(query: set[int], items: list[tuple[set[int], int]]) -> None:
    archive, distances = labels_of([labels for labels, _ in items]), [distance for _, distance in items]
    found = tie_aware(labels_of([query]), archive, np.array([distances]), len(items)).curves
    every = [retrieval_curves(labels_of([query]), archive, np.array([order])) for order in all_orders(distances)]
    for name in TIE_AWARE:
        assert found[name] == pytest.approx(np.mean([curves[name] for curves in every], axis=0), abs=1e-12), name


def test_without_ties_the_curves_are_the_plain_ones() -> None:
    queries, archive = random_labels(20, 1), random_labels(50, 2)
    distances = np.argsort(np.random.default_rng(3).random((20, 50)), axis=1)
    found = tie_aware(queries, archive, distances, 30)
    plain = retrieval_curves(queries, archive, np.argsort(distances, axis=1)[:, :30])
    for name in TIE_AWARE:
        assert found.curves[name] == pytest.approx(plain[name])
    assert groups(found) == (1, 1, 0)


def test_order_of_the_archive_does_not_matter_where_groups_are_whole() -> None:
    queries, archive = random_labels(15, 4), random_labels(400, 5)
    distances = np.random.default_rng(6).integers(0, 9, (15, 400))
    order = np.random.default_rng(7).permutation(400)
    one, other = (
        tie_aware(queries, archive, distances, 400),
        tie_aware(queries, archive[order], distances[:, order], 400),
    )
    for name in TIE_AWARE:
        assert one.curves[name] == pytest.approx(other.curves[name])


def test_long_groups_agree_with_sampled_orders() -> None:
    queries, archive = random_labels(3, 8), random_labels(300, 9)
    distances = np.random.default_rng(10).integers(0, 3, (3, 300))
    found = tie_aware(queries, archive, distances, 300).curves
    generator = np.random.default_rng(11)
    total = dict.fromkeys(TIE_AWARE, 0.0)
    for _ in range(2000):
        shuffled = np.argsort(distances + generator.random((3, 300)) * 0.5, axis=1)
        curves = retrieval_curves(queries, archive, shuffled)
        total = {name: total[name] + curves[name] for name in TIE_AWARE}
    for name in TIE_AWARE:
        assert found[name][4:] == pytest.approx(total[name][4:] / 2000, abs=0.02), name


def test_the_query_itself_is_left_out_of_the_ideal() -> None:
    archive = labels_of([{0, 1}, {0}, {2}])
    truth = GroundTruth.of(archive[:1], archive, np.array([[0]]))
    found = tie_aware_curves(truth, np.array([[1, 2]]), np.array([[3.0, 3.0]]))
    expected = [
        retrieval_curves(archive[:1], archive, np.array([order]), np.array([[0]])) for order in ([1, 2], [2, 1])
    ]
    for name in TIE_AWARE:
        assert found.curves[name] == pytest.approx(np.mean([curves[name] for curves in expected], axis=0))
    assert groups(found)[2] == 0


def test_groups_are_measured_at_rank_ten_and_cut_ones_counted() -> None:
    archive = random_labels(40, 12)
    archive[:, 0] = 1
    distances = np.array([[0] * 8 + [1] * 4 + [2] * 28, [0] * 40])
    found = tie_aware(archive[:2], archive, distances, 20)
    assert groups(found) == (12, 20, 1)
    assert groups(tie_aware(archive[:2], archive, distances, 40))[2] == 0


def test_distances_of_another_shape_are_refused() -> None:
    archive = random_labels(6, 13)
    with pytest.raises(ResultsError, match=r"distances have shape \(1, 1\); they must be \(1, 2\)"):
        tie_aware_curves(GroundTruth.of(archive[:1], archive), np.array([[0, 1]]), np.array([[1.0]]))


@pytest.mark.parametrize("distances", [[[2.0, 1.0]], [[np.nan, np.nan]], [[1.0, np.nan]], [[np.nan, 1.0]]])
def test_distances_that_no_search_returns_are_refused(distances: list[list[float]]) -> None:
    archive = random_labels(6, 13)
    with pytest.raises(ResultsError, match=r"distances of query 1 .*NaN.*not ascending"):
        tie_aware_curves(
            GroundTruth.of(archive[:2], archive), np.array([[0, 1]] * 2), np.array([[0.0, 1.0], *distances])
        )


def test_a_group_is_cut_only_where_it_is_seen_and_may_go_on() -> None:
    """Lists of ten, a tie that ends before them, one that they end in, one that is all there is, and none at all."""
    archive = np.ones((40, 1), np.uint8)
    steps = np.arange(10.0)
    lists = {"no tie": (steps, 0), "ended before": (np.maximum(steps, 3), 0), "last three": (np.minimum(steps, 7), 1)}
    for name, (distances, expected) in lists.items():
        truth = GroundTruth.of(archive[:1], archive)
        found = tie_aware_curves(truth, np.arange(10)[None], distances[None])
        assert groups(found)[2] == expected, name
    ten, equal = GroundTruth.of(archive[:1], archive[:10]), np.zeros((1, 10))
    assert groups(tie_aware_curves(ten, np.arange(10)[None], equal))[1:] == (10, 0)
    without_itself = GroundTruth.of(archive[:1], archive[:11], np.array([[0]]))
    assert groups(tie_aware_curves(without_itself, np.arange(1, 11)[None], equal))[2] == 0
