"""Relevance feedback: Rocchio's rule against a calculation by hand, the logistic regression against its ranking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.query.test_find import small_index

from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.pipelines.query import mark_vector
from bigearthnet_cbir.query.feedback import logistic, rocchio
from bigearthnet_cbir.query.find import find


def test_rocchio_by_hand() -> None:
    """Unit vectors (0.6, 0.8) and (1, 0); their mean (0.8, 0.4); 2 x that less (0, -1) is (1.6, 1.8)."""
    wanted = np.array([[3, 4], [2, 0]], np.float32)
    unwanted = np.array([[0, -7]], np.float32)
    length = np.sqrt(1.6**2 + 1.8**2)
    assert np.allclose(rocchio(wanted, unwanted), [1.6 / length, 1.8 / length], atol=1e-7)
    assert np.allclose(rocchio(wanted), np.array([0.8, 0.4]) / np.sqrt(0.8), atol=1e-7)
    assert rocchio(wanted, np.empty((0, 2), np.float32)).dtype == np.float32


def test_one_wanted_patch_is_that_patch() -> None:
    vector = np.array([[1, -2, 2]], np.float32)
    assert np.allclose(rocchio(vector), vector[0] / 3)


@pytest.mark.parametrize(
    ("wanted", "unwanted", "message"),
    [
        (np.empty((0, 2)), np.ones((1, 2)), "0 patches .* mark one as relevant"),
        (np.array([[0.0, 0.0]]), None, "0 or not finite"),
        (np.array([[1.0, np.nan]]), None, "0 or not finite"),
        (np.array([[1.0, 0.0], [-1.0, 0.0]]), None, "cancel out.* remove a mark"),
    ],
)
def test_marks_without_a_direction_are_refused(wanted: np.ndarray, unwanted: np.ndarray | None, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        rocchio(wanted, unwanted)


def test_logistic_ranks_by_its_weights() -> None:
    """Two clouds apart in the first coordinate: the regression's own scores rank as the cosine to its weights does."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(3)
    wanted = (rng.normal(size=(8, 5)) + np.eye(5)[0] * 3).astype(np.float32)
    unwanted = (rng.normal(size=(6, 5)) - np.eye(5)[0] * 3).astype(np.float32)
    found = logistic(wanted, unwanted)
    assert np.isclose(np.linalg.norm(found), 1, atol=1e-6)
    assert np.argmax(np.abs(found)) == 0
    assert found[0] > 0
    units = np.concatenate([wanted, unwanted]) / np.linalg.norm(np.concatenate([wanted, unwanted]), axis=1)[:, None]
    oracle = LogisticRegression(class_weight="balanced", max_iter=1000).fit(units, [1] * 8 + [0] * 6)
    others = rng.normal(size=(50, 5))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert np.argsort(-oracle.decision_function(others)).tolist() == np.argsort(-others @ found).tolist()


def test_logistic_needs_five_of_each() -> None:
    with pytest.raises(QueryError, match="4 patches are marked as not relevant; a logistic regression needs 5"):
        logistic(np.ones((5, 2), np.float32), np.ones((4, 2), np.float32))
    with pytest.raises(QueryError, match="have equal vectors"):
        logistic(np.ones((5, 2), np.float32), np.ones((5, 2), np.float32))


def test_marks_in_an_index(tmp_path: Path) -> None:
    """One wanted pair and none unwanted finds what the pair itself finds, by every distance."""
    index = small_index(tmp_path, 120)
    for distance in ("cosine", "hamming", "euclidean"):
        vector = mark_vector(index, [7], [], "fused", "fused", "rocchio", distance)
        one = find(index, vector, distance=distance, k=30, asked=7)
        two = find(index, np.asarray(index.vectors("fused")[7]), distance=distance, k=30, asked=7)
        assert np.allclose(one.distances, two.distances, atol=1e-5)
    with pytest.raises(QueryError, match="use --distance cosine"):
        mark_vector(index, [1, 2, 3, 4, 5], [6, 7, 8, 9, 10], "s1", "s1", "logistic", "hamming")
    assert mark_vector(index, [1, 2, 3, 4, 5], [6, 7, 8, 9, 10], "s1", "s2", "logistic").shape == (6,)
