import numpy as np

from bigearthnet_cbir.report.text import run_text
from bigearthnet_cbir.storage.results import DirectionResults, RunResults

NAMES = (
    "precision", "recall", "f1score", "f1score_harmonic", "average_precision", "normalized_discounted_cumulative_gains",
)  # fmt: skip


def results(level: float, ranks: int = 40) -> RunResults:
    curves = {name: np.full(ranks, level) for name in NAMES}
    chance = {name: np.full(ranks, 0.111) for name in NAMES}
    attributes = {
        "query_split": "val", "archive_split": "test", "queries": 3, "archive_size": 41, "distance": "cosine",
        "feature_kind": "projection", "k": ranks, "queries_without_labels": 1,
    }  # fmt: skip
    directions = {name: DirectionResults(curves, chance, {}) for name in ("fused", "s1_s2")}
    return RunResults(attributes, directions, original_only=False)


def test_text_names_what_was_measured_and_shows_chance_and_baselines() -> None:
    text = run_text(results(0.5), {"untrained": results(0.222)})
    assert "val (3 queries) searched in test (41 patches), cosine distance" in text
    assert "1 queries without labels left out" in text
    for word in ("fused -> fused", "S1 -> S2", "chance", "untrained", "0.500", "0.222", "0.111"):
        assert word in text
    assert "S2 -> S1" not in text


def test_map_is_shown_at_the_last_rank_where_the_curve_is_shorter() -> None:
    lines = [line.split() for line in run_text(results(0.5), {}).splitlines()]
    assert ["rank", "8", "16", "32", "40"] in lines


def test_options_narrow_and_widen() -> None:
    text = run_text(results(0.5), {}, ["s1_s2"], ["f1score"], 3)
    assert "fused" not in text
    assert "f1score" in text
    assert "recall" not in text
    assert ["rank", "1", "2", "3"] in [line.split() for line in text.splitlines()]


def test_file_of_the_original_scripts_is_said_to_be_one() -> None:
    curves = {"precision": np.array([0.5, 0.4])}
    old = RunResults({}, {"fused": DirectionResults(curves, {}, curves)}, original_only=True)
    assert "original scripts" in run_text(old, {})
