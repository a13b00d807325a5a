"""Every metric against loops written from docs/metrics.md, by hand, and chance against a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearthnet_cbir.evaluation import ground_truth
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.metrics import mean_curves, original_convention_curves, retrieval_curves
from bigearthnet_cbir.evaluation.random_ranking import chance_curves


def labels_of(sets: list[set[int]], classes: int = 19) -> np.ndarray:
    return np.array([[int(c in members) for c in range(classes)] for members in sets], dtype=np.uint8)


def slow_curves(queries: list[set[int]], archive: list[set[int]], ranking: list[list[int]]) -> dict[str, list[float]]:
    """The standard definitions, one query and one rank at a time."""
    length = len(ranking[0])
    sums: dict[str, list[float]] = {}
    counted = 0
    for query, order in zip(queries, ranking, strict=True):
        if not query:
            continue
        counted += 1
        ideal_order = sorted((len(query & item) for item in archive), reverse=True)
        for k in range(1, length + 1):
            top = [archive[place] for place in order[:k]]
            s = [len(query & item) for item in top]
            n = [sum(value > 0 for value in s[: i + 1]) for i in range(k)]
            acg = [sum(s[: i + 1]) / (i + 1) for i in range(k)]
            ideal = sum((2**value - 1) / math.log2(2 + i) for i, value in enumerate(ideal_order[:k]))
            dcg = sum((2**value - 1) / math.log2(2 + i) for i, value in enumerate(s))
            at_k = {
                "precision": sum(v / len(item) if item else 0 for v, item in zip(s, top, strict=True)) / k,
                "recall": sum(v / len(query) for v in s) / k,
                "f1score": sum(2 * v / (len(item) + len(query)) for v, item in zip(s, top, strict=True)) / k,
                "average_precision": sum(n[i] / (i + 1) for i in range(k) if s[i]) / n[-1] if n[-1] else 0,
                "average_cumulative_gains": acg[-1],
                "weighted_avg_precision": sum(acg[i] for i in range(k) if s[i]) / n[-1] if n[-1] else 0,
                "normalized_discounted_cumulative_gains": dcg / ideal if ideal else 0,
            }
            for name, value in at_k.items():
                sums.setdefault(name, [0.0] * length)[k - 1] += value
    means = {name: [value / counted for value in values] for name, values in sums.items()}
    means["f1score_harmonic"] = [
        2 * p * r / (p + r) if p + r else 0 for p, r in zip(means["precision"], means["recall"], strict=True)
    ]
    return means


def slow_original(queries: list[set[int]], archive: list[set[int]], ranking: list[list[int]]) -> dict[str, list[float]]:
    """The original scripts' definitions of the five curves that mean something else there."""
    length = len(ranking[0])
    sums: dict[str, list[float]] = {}
    counted = 0
    for query, order in zip(queries, ranking, strict=True):
        if not query:
            continue
        counted += 1
        all_s = [len(query & archive[place]) for place in order]
        ideal_order = sorted(all_s, reverse=True)
        for k in range(1, length + 1):
            item, s = archive[order[k - 1]], all_s[:k]
            p, r = (s[-1] / len(item) if item else 0), s[-1] / len(query)
            relevant = sum(value > 0 for value in s)
            weighted = sum(sum(s[: i + 1]) / (i + 1) / (i + 1) for i in range(k) if s[i])
            ideal = sum((2**value - 1) / math.log2(2 + i) for i, value in enumerate(ideal_order[:k]))
            at_k = {
                "precision": p,
                "recall": r,
                "f1score": 2 * p * r / (p + r) if p + r else 0,
                "weighted_avg_precision": weighted / relevant if relevant else 0,
                "normalized_discounted_cumulative_gains": sum(
                    (2**value - 1) / math.log2(2 + i) for i, value in enumerate(s)
                ) / ideal if ideal else 0,
            }  # fmt: skip
            for name, value in at_k.items():
                sums.setdefault(name, [0.0] * length)[k - 1] += value
    return {name: [value / counted for value in values] for name, values in sums.items()}


def test_one_query_by_hand() -> None:
    """Query {0, 1}; retrieved {0}, {2}, {0, 1, 2}."""
    archive = [{0}, {2}, {0, 1, 2}]
    curves = retrieval_curves(labels_of([{0, 1}]), labels_of(archive), np.array([[0, 1, 2]]))
    expected = {
        "precision": [1, 1 / 2, (1 + 2 / 3) / 3],
        "recall": [1 / 2, 1 / 4, 1 / 2],
        "f1score": [2 / 3, 1 / 3, (2 / 3 + 4 / 5) / 3],
        "average_precision": [1, 1, (1 + 2 / 3) / 2],
        "average_cumulative_gains": [1, 1 / 2, 1],
        "weighted_avg_precision": [1, 1, (1 + 1) / 2],
    }
    for name, values in expected.items():
        assert curves[name] == pytest.approx(values), name
    dcg = [1, 1, 1 + 3 / 2]
    ideal = [3, 3 + 1 / math.log2(3), 3 + 1 / math.log2(3)]
    ndcg = curves["normalized_discounted_cumulative_gains"]
    assert ndcg == pytest.approx([a / b for a, b in zip(dcg, ideal, strict=True)])
    original = original_convention_curves(labels_of([{0, 1}]), labels_of(archive), np.array([[0, 1, 2]]))
    assert original["precision"] == pytest.approx([1, 0, 2 / 3])
    assert original["weighted_avg_precision"] == pytest.approx([1, 1, (1 + 1 / 3) / 2])


label_sets = st.sets(st.integers(0, 18), max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(label_sets, min_size=1, max_size=4), st.lists(label_sets, min_size=1, max_size=9), st.randoms())
def test_curves_equal_the_loops(queries: list[set[int]], archive: list[set[int]], random: object) -> None:
    queries = [*queries, {0}]
    length = random.randint(1, len(archive))  # type: ignore[attr-defined]
    ranking = [random.sample(range(len(archive)), length) for _ in queries]  # type: ignore[attr-defined]
    arguments = labels_of(queries), labels_of(archive), np.array(ranking)
    for fast, slow in (
        (retrieval_curves(*arguments), slow_curves(queries, archive, ranking)),
        (original_convention_curves(*arguments), slow_original(queries, archive, ranking)),
    ):
        for name, values in slow.items():
            assert fast[name] == pytest.approx(values, abs=1e-12), name


def random_labels(rows: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.random((rows, 19)) < generator.random(19) * 0.4).astype(np.uint8)


def test_blocks_of_queries_add_up_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = GroundTruth.of(random_labels(50, 1), random_labels(80, 2))
    indices = np.argsort(np.random.default_rng(3).random((50, 80)), axis=1)[:, :30]
    whole = mean_curves(truth, indices)
    monkeypatch.setattr(ground_truth, "_BLOCK", 7)
    assert [rows.stop - rows.start for rows in truth.blocks()] == [7] * 7 + [1]
    parts = mean_curves(truth, indices)
    for one, other in zip(whole, parts, strict=True):
        assert all(np.array_equal(curve, other[name]) for name, curve in one.items())


def test_queries_without_labels_are_left_out() -> None:
    archive = random_labels(20, 4)
    found = retrieval_curves(labels_of([{1}, set(), {2}]), archive, np.tile(np.arange(5), (3, 1)))
    alone = retrieval_curves(labels_of([{1}, {2}]), archive, np.tile(np.arange(5), (2, 1)))
    assert all(np.array_equal(found[name], curve) for name, curve in alone.items())


def test_no_curve_is_ever_nan() -> None:
    nothing = labels_of([set(), set()])
    for curves in (
        retrieval_curves(nothing, nothing, np.array([[0, 1], [1, 0]])),
        retrieval_curves(labels_of([{3}]), nothing, np.array([[0, 1]])),
        chance_curves(GroundTruth.of(nothing, nothing), 2),
        chance_curves(GroundTruth.of(labels_of([{3}]), nothing), 2),
    ):
        assert all(np.isfinite(curve).all() for curve in curves.values())


def test_perfect_ranking_has_ndcg_one_also_without_the_query_itself() -> None:
    archive = random_labels(40, 5)
    archive[:, 0] = 1
    shared = archive.astype(int) @ archive.astype(int).T
    np.fill_diagonal(shared, -1)
    order = np.argsort(-shared, axis=1, kind="stable")[:, :39]
    curves = retrieval_curves(archive, archive, order, exclude=np.arange(40)[:, None])
    assert curves["normalized_discounted_cumulative_gains"] == pytest.approx(np.ones(39))


@pytest.mark.parametrize("leave_out_self", [False, True])
def test_chance_is_the_mean_over_many_random_rankings(leave_out_self: bool) -> None:
    archive = random_labels(30, 6)
    queries = archive[:12]
    exclude = np.arange(12)[:, None] if leave_out_self else None
    expected = chance_curves(GroundTruth.of(queries, archive, exclude), 25)
    generator = np.random.default_rng(7)
    rounds = 3000
    total: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        keys = generator.random((12, 30))
        if leave_out_self:
            keys[np.arange(12), np.arange(12)] = 2
        curves = retrieval_curves(queries, archive, np.argsort(keys, axis=1)[:, :25], exclude)
        for name, curve in curves.items():
            total[name] = total.get(name, 0) + curve
    for name, curve in expected.items():
        if name != "f1score_harmonic":
            assert total[name] / rounds == pytest.approx(curve, abs=0.012), name


def test_chance_equals_all_orders_of_a_small_archive() -> None:
    from itertools import permutations

    queries, archive = [{0, 1}], [{0}, {0, 1}, {2}, set()]
    orders = list(permutations(range(4)))
    expected = chance_curves(GroundTruth.of(labels_of(queries), labels_of(archive)), 4)
    every = [retrieval_curves(labels_of(queries), labels_of(archive), np.array([order])) for order in orders]
    for name in expected:
        if name != "f1score_harmonic":
            assert np.mean([curves[name] for curves in every], axis=0) == pytest.approx(expected[name]), name
