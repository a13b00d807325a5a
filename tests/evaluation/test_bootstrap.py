"""Intervals against scipy's percentile bootstrap, draw by draw, and against resampling written as a loop."""

import numpy as np
import pytest
from scipy import stats
from tests.evaluation.helpers import random_labels

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation import bootstrap
from bigearthnet_cbir.evaluation.bootstrap import headline_intervals, interval, paired_differences, resampled_means
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.headline_metrics import COLUMNS, figures, query_columns
from bigearthnet_cbir.evaluation.metrics import retrieval_curves
from bigearthnet_cbir.evaluation.summary import HEADLINES, headline


def columns_of(seed: int, ranks: int = 12) -> np.ndarray:
    queries, archive = random_labels(60, 1), random_labels(80, 2)
    indices = np.argsort(np.random.default_rng(seed).random((60, 80)), axis=1)[:, :ranks]
    return query_columns(GroundTruth.of(queries, archive), indices)


def harmonic_of_means(precision: np.ndarray, recall: np.ndarray, axis: int = -1) -> np.ndarray:
    p, r = precision.mean(axis=axis), recall.mean(axis=axis)
    return 2 * p * r / (p + r)


def test_mean_of_the_columns_gives_the_headline_figures() -> None:
    queries, archive = random_labels(60, 1), random_labels(80, 2)
    for ranks in (3, 7, 30):
        indices = np.argsort(np.random.default_rng(3).random((60, 80)), axis=1)[:, :ranks]
        columns = query_columns(GroundTruth.of(queries, archive), indices)
        expected = headline(retrieval_curves(queries, archive, indices))
        kept = columns[queries.any(axis=1)]
        assert {name: float(value) for name, value in figures(kept.mean(axis=0)).items()} == pytest.approx(expected)


def test_intervals_are_those_of_scipy() -> None:
    columns = bootstrap.labelled(columns_of(3))
    found = headline_intervals(columns)
    options = {"method": "percentile", "n_resamples": 1000, "confidence_level": 0.95, "vectorized": True}
    for name, curve, rank in HEADLINES:
        if curve == "f1score_harmonic":
            data = [columns[:, COLUMNS.index((part, rank))] for part in ("precision", "recall")]
            result = stats.bootstrap(
                data, harmonic_of_means, paired=True, rng=np.random.default_rng(bootstrap.SEED), **options
            )
        else:
            data = [columns[:, COLUMNS.index((curve, rank))]]
            result = stats.bootstrap(data, np.mean, rng=np.random.default_rng(bootstrap.SEED), **options)
        assert found[name] == pytest.approx(list(result.confidence_interval), abs=1e-12), name
        assert found[name][0] < figures(columns.mean(axis=0))[name] < found[name][1]


def test_cutting_the_resamples_into_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).random((31, 2))
    whole = resampled_means(values, 50)
    monkeypatch.setattr(bootstrap, "_DRAWS", 100)
    assert np.array_equal(whole, resampled_means(values, 50))


def test_resampled_means_equal_a_loop() -> None:
    values = np.random.default_rng(6).random((9, 3))
    drawn = np.random.default_rng(7).integers(9, size=(20, 9))
    expected = [np.mean([values[place] for place in row], axis=0) for row in drawn]
    assert resampled_means(values, 20, seed=7) == pytest.approx(np.array(expected))


def test_queries_without_labels_do_not_count() -> None:
    columns = columns_of(9)
    more = np.concatenate([columns, np.full((3, columns.shape[1]), np.nan)])
    for name, ends in headline_intervals(columns).items():
        assert np.array_equal(ends, headline_intervals(more)[name])
    assert np.isnan(headline_intervals(more[-3:])["F1@10"]).all()


def test_paired_difference_is_that_of_scipy() -> None:
    first, second = bootstrap.labelled(columns_of(10)), bootstrap.labelled(columns_of(11))
    found = paired_differences(first, second)
    column = COLUMNS.index(("average_precision", 10))
    result = stats.bootstrap(
        (first[:, column] - second[:, column],), np.mean, method="percentile", n_resamples=1000,
        confidence_level=0.95, rng=np.random.default_rng(bootstrap.SEED),
    )  # fmt: skip
    assert found["mAP@10"][1:] == pytest.approx(tuple(result.confidence_interval), abs=1e-12)
    harmonic = [figures(run.mean(axis=0))["F1@10"] for run in (first, second)]
    assert found["F1@10"].value == pytest.approx(float(harmonic[0] - harmonic[1]))


def test_a_run_does_not_differ_from_itself_but_from_a_worse_one() -> None:
    columns = columns_of(12)
    assert not any(found.excludes_zero or found.value for found in paired_differences(columns, columns).values())
    assert all(found.excludes_zero for found in paired_differences(columns, columns * 0.9).values())


def test_other_queries_are_refused() -> None:
    columns = columns_of(13)
    with pytest.raises(ResultsError, match="60 and 59 queries"):
        paired_differences(columns, columns[:-1])


def test_interval_holds_the_middle_95_percent() -> None:
    assert interval(np.arange(1001.0)) == pytest.approx([25, 975])
