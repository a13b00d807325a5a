"""Labels, positions and distances in any layout and type give equal figures; positions of nothing are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.arrangements import arranged, layouts
from tests.evaluation.helpers import random_labels
from tests.evaluation.test_metrics import slow_curves, slow_original

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.bootstrap import resampled_means
from bigearthnet_cbir.evaluation.breakdown import by_class, confusion
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.headline_metrics import query_columns
from bigearthnet_cbir.evaluation.metrics import (
    mean_curves,
    original_convention_curves,
    per_query_values,
    retrieval_curves,
)
from bigearthnet_cbir.evaluation.random_ranking import chance_curves
from bigearthnet_cbir.evaluation.tie_aware import tie_aware_curves
from bigearthnet_cbir.results import CurveVariant

QUERIES, ARCHIVE = random_labels(9, 1), random_labels(30, 2)
QUERIES[3] = 0
ORDER = np.argsort(np.random.default_rng(3).random((9, 30)), axis=1)
INDICES, EXCLUDE = ORDER[:, :12], np.concatenate([ORDER[:, 20:22], np.full((9, 1), -1)], axis=1)
DISTANCES = np.sort(np.random.default_rng(4).integers(0, 5, (9, 12)), axis=1)
TRUTH = GroundTruth.of(QUERIES, ARCHIVE)
LEFT_OUT = GroundTruth.of(QUERIES, ARCHIVE, EXCLUDE)
COLUMNS = query_columns(LEFT_OUT, INDICES)

kinds = st.sampled_from(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
label_kinds = st.sampled_from(["?", "i1", "u1", "i4", "i8", "f2", "f4", "f8"])


def sets_of(labels: np.ndarray) -> list[set[int]]:
    return [set(np.flatnonzero(row).tolist()) for row in labels]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_layouts_and_types_change_no_figure(data: st.DataObject) -> None:
    queries = arranged(QUERIES, data.draw(layouts, "query layout"), data.draw(label_kinds))
    archive = arranged(ARCHIVE, data.draw(layouts, "archive layout"), data.draw(label_kinds))
    indices = arranged(INDICES, data.draw(layouts, "layout"), data.draw(kinds, "type"))
    exclude = arranged(EXCLUDE, data.draw(layouts, "exclude layout"), data.draw(st.sampled_from(["i1", "i4", "i8"])))
    kind = data.draw(st.sampled_from(["f2", "f4", "f8"]))
    distances = arranged(DISTANCES.astype(np.float64), data.draw(layouts, "distance layout"), kind)

    for slow, fast in ((slow_curves, retrieval_curves), (slow_original, original_convention_curves)):
        expected, found = slow(sets_of(QUERIES), sets_of(ARCHIVE), INDICES.tolist()), fast(queries, archive, indices)
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, abs=1e-12), name
    truth = GroundTruth.of(queries, archive, exclude)
    np.testing.assert_array_equal(query_columns(truth, indices), COLUMNS)
    np.testing.assert_array_equal(confusion(truth, indices), confusion(LEFT_OUT, INDICES))
    for name, curve in chance_curves(LEFT_OUT, 9).items():
        np.testing.assert_array_equal(chance_curves(truth, 9)[name], curve)
    ties = tie_aware_curves(truth, indices, distances)
    plain: CurveVariant = tie_aware_curves(LEFT_OUT, INDICES, DISTANCES.astype(np.float64))
    for name, curve in plain.curves.items():
        np.testing.assert_array_equal(ties.curves[name], curve)
    assert ties.numbers == plain.numbers


@settings(max_examples=25, deadline=None, derandomize=True)
@given(layout=layouts, kind=st.sampled_from(["f4", "f8"]), seed=st.integers(0, 9))
def test_layouts_change_no_interval(layout: str, kind: str, seed: int) -> None:
    values = (np.random.default_rng(seed).integers(0, 64, (31, 3)) / 64).astype(np.float64)
    drawn = np.random.default_rng(7).integers(31, size=(20, 31))
    expected = np.array([values[row].mean(axis=0) for row in drawn])
    found = resampled_means(arranged(values, layout, kind), 20, seed=7)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(found, resampled_means(values, 20, seed=7))


def with_indices(indices: Any) -> list[Callable[[], Any]]:
    distances = np.zeros(np.shape(indices))
    return [
        lambda: retrieval_curves(QUERIES, ARCHIVE, indices),
        lambda: original_convention_curves(QUERIES, ARCHIVE, indices),
        lambda: mean_curves(TRUTH, indices),
        lambda: tie_aware_curves(TRUTH, indices, distances),
        lambda: per_query_values(TRUTH, indices, [1]),
        lambda: query_columns(TRUTH, indices),
        lambda: confusion(TRUTH, indices),
    ]


@pytest.mark.parametrize("position", [-1, 30, -(2**32), 2**32, 2**63 - 1])
@pytest.mark.parametrize("call", range(len(with_indices(INDICES))))
def test_positions_outside_the_archive_are_refused(call: int, position: int) -> None:
    wrong = INDICES.astype(np.int64)
    wrong[5, 2] = position
    with pytest.raises(ResultsError, match=rf"indices go from .*{abs(position):,}.* first in row 5; an archive of 30"):
        with_indices(wrong)[call]()


@pytest.mark.parametrize("call", range(len(with_indices(INDICES))))
def test_indices_that_are_no_positions_are_refused(call: int) -> None:
    with pytest.raises(ResultsError, match="indices hold float64"):
        with_indices(INDICES.astype(np.float64))[call]()
    for shape in (INDICES[:4], INDICES[0], INDICES[None]):
        with pytest.raises(ResultsError, match="indices have shape"):
            with_indices(shape)[call]()


def with_exclude(exclude: Any) -> list[Callable[[], Any]]:
    return [
        lambda: retrieval_curves(QUERIES, ARCHIVE, INDICES, exclude),
        lambda: GroundTruth.of(QUERIES, ARCHIVE, exclude),
    ]


@pytest.mark.parametrize("call", range(len(with_exclude(EXCLUDE))))
def test_excluded_positions_that_mean_nothing_are_refused(call: int) -> None:
    for position in (30, 2**32, 2**63 - 1):
        wrong = EXCLUDE.astype(np.int64)
        wrong[3, 1] = position  # of a query without labels
        with pytest.raises(ResultsError, match=f"exclude has position {position:,}; an archive of 30 has 0 to 29"):
            with_exclude(wrong)[call]()
    with pytest.raises(ResultsError, match="exclude holds float64"):
        with_exclude(EXCLUDE.astype(np.float64))[call]()
    for shape in (EXCLUDE[:4], EXCLUDE[0]):
        with pytest.raises(ResultsError, match="exclude has shape"):
            with_exclude(shape)[call]()


def test_every_negative_excluded_position_is_filling() -> None:
    filled = np.where(EXCLUDE < 0, -(2**40), EXCLUDE.astype(np.int64))
    np.testing.assert_array_equal(query_columns(GroundTruth.of(QUERIES, ARCHIVE, filled), INDICES), COLUMNS)


def test_breakdown_of_columns_in_another_layout() -> None:
    plain, other = by_class(COLUMNS, QUERIES), by_class(np.asfortranarray(COLUMNS), np.asfortranarray(QUERIES))
    for name, values in plain.figures.items():
        np.testing.assert_array_equal(other.figures[name], values)
