"""Figures by class and by number of labels against selecting the queries by hand."""

import numpy as np
import pytest
from tests.evaluation.helpers import labels_of, random_labels

from bigearthnet_cbir.evaluation.bootstrap import headline_intervals
from bigearthnet_cbir.evaluation.breakdown import SHOWN, by_class, by_label_count, confusion
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.headline_metrics import query_columns
from bigearthnet_cbir.evaluation.metrics import retrieval_curves
from bigearthnet_cbir.evaluation.summary import headline

QUERIES, ARCHIVE = random_labels(90, 1), random_labels(70, 2)
QUERIES[:, 4] = 0
QUERIES[5] = 0
INDICES = np.argsort(np.random.default_rng(3).random((90, 70)), axis=1)[:, :12]
TRUTH = GroundTruth.of(QUERIES, ARCHIVE)
COLUMNS = query_columns(TRUTH, INDICES)


def check_group(values: dict[str, np.ndarray], group: int, chosen: np.ndarray) -> None:
    expected = headline(retrieval_curves(QUERIES[chosen], ARCHIVE, INDICES[chosen]))
    ends = headline_intervals(COLUMNS[chosen])
    for name in SHOWN:
        assert values[name][group] == pytest.approx([expected[name], *ends[name]]), (group, name)


def test_a_query_counts_for_each_class_it_has() -> None:
    found = by_class(COLUMNS, QUERIES)
    assert found.queries.tolist() == QUERIES.sum(axis=0).tolist()
    assert found.queries[4] == 0
    for label in range(19):
        if found.queries[label] == 0:
            assert all(np.isnan(found.figures[name][label]).all() for name in SHOWN)
        else:
            check_group(found.figures, label, np.flatnonzero(QUERIES[:, label]))


def test_numbers_of_labels_present_are_told_apart() -> None:
    labels, found = by_label_count(COLUMNS, QUERIES)
    counts = QUERIES.sum(axis=1)
    assert labels.tolist() == sorted(set(counts.tolist()) - {0})
    assert found.queries.sum() == (counts > 0).sum()
    for group, number in enumerate(labels):
        check_group(found.figures, group, np.flatnonzero(counts == number))


def test_confusion_equals_a_loop() -> None:
    found = confusion(TRUTH, INDICES)
    for row in range(19):
        for column in range(19):
            held = [ARCHIVE[place, column] for q in range(90) if QUERIES[q, row] for place in INDICES[q, :10]]
            if held:
                assert found[row, column] == pytest.approx(np.mean(held))
            else:
                assert np.isnan(found[row, column])


def test_confusion_of_few_items_by_hand() -> None:
    found = confusion(GroundTruth.of(labels_of([{0}, {0, 1}], 3), labels_of([{0}, {1, 2}], 3)), np.array([[0], [1]]))
    assert found[:2].tolist() == [[0.5, 0.5, 0.5], [0.0, 1.0, 1.0]]
