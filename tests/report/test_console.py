import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.report.console import run_text, table_line
from bigearthnet_cbir.report.display_names import HEADLINE_NAMES
from bigearthnet_cbir.results import CurveVariant, DirectionResult, RunResults

NAMES = (
    "precision", "recall", "f1score", "f1score_harmonic", "average_precision", "normalized_discounted_cumulative_gains",
)  # fmt: skip


FEW = ("fused", "s1_s2")


def results(level: float, ranks: int = 40, names: Iterable[str] = FEW, **more: Any) -> RunResults:
    curves = {name: np.full(ranks, level) for name in NAMES}
    chance = {name: np.full(ranks, 0.111) for name in NAMES}
    attributes = {
        "query_split": "val", "archive_split": "test", "queries": 3, "archive_size": 41, "distance": "cosine",
        "feature_kind": "projection", "k": ranks, "queries_without_labels": 1,
        "protocol": "csmae", "convention": "standard",
    }  # fmt: skip
    directions = {name: DirectionResult(curves, chance, **more) for name in names}
    return RunResults(attributes, {}, directions)


def test_text_names_what_was_measured_and_shows_chance_and_baselines() -> None:
    text = run_text(results(0.5), {"untrained": results(0.222)})
    for word in ("csmae", "3 val", "41 test", "standard", "cosine", "projection", "1 queries without labels"):
        assert word in text[: text.index("precision")]
    for word in ("fused -> fused", "S1 -> S2", "chance", "untrained", "0.500", "0.222", "0.111"):
        assert word in text
    assert "S2 -> S1" not in text


def test_map_is_shown_at_the_last_rank_where_the_curve_is_shorter() -> None:
    lines = [line.split() for line in run_text(results(0.5), {}).splitlines()]
    assert ["rank", "8", "16", "32", "40"] in lines


def test_a_baseline_with_fewer_ranks_has_dashes_where_it_ends() -> None:
    lines = [line.split() for line in run_text(results(0.5, 40), {"untrained": results(0.25, 20)}).splitlines()]
    assert ["untrained", "0.250", "0.250", "-", "-"] in lines


def test_options_narrow_and_widen() -> None:
    text = run_text(results(0.5), {}, ["s1_s2"], ["f1score"], 3)
    assert "fused" not in text
    assert "f1score" in text
    assert "recall" not in text
    assert ["rank", "1", "2", "3"] in [line.split() for line in text.splitlines()]


def test_a_direction_of_a_later_version_is_printed_by_its_name() -> None:
    lines = [line.split() for line in run_text(results(0.5, names=("fused", "s3_s1")), {}, ["s3_s1"]).splitlines()]
    assert ["s3_s1"] in lines
    assert ["s3_s1", *["0.500"] * 6] in lines


def test_file_of_the_original_scripts_is_said_to_be_one() -> None:
    curves = {"precision": np.array([0.5, 0.4])}
    old = RunResults({}, {}, {"fused": DirectionResult(curves, {}, curves)}, original_only=True)
    assert "original scripts" in run_text(old, {})


def test_headlines_come_with_intervals_ties_and_figures_without_neighbours() -> None:
    ends = {name: np.array([0.25, 0.75]) for name in ("P@10", "mAP@10")}
    ties = CurveVariant(
        {"average_precision": np.full(40, 0.333)}, {"mean_group": 4.5, "largest_group": 12, "cut_queries": 1}
    )
    within = CurveVariant(
        {name: np.full(30, 0.444) for name in NAMES},
        {"radius": 2, "dropped_mean": 7.5, "dropped_queries": 3, "queries_left_out": 0},
    )
    text = run_text(results(0.5, intervals=ends, tie_aware=ties, exclude_within=within), {})
    lines = [line.split() for line in text.splitlines()]
    assert ["95", "%", ".250-.750", "-", "-", "-", ".250-.750", "-"] in lines
    assert ["tie-aware", "-", "-", "-", "-", "0.333", "-"] in lines
    assert ["no", "neighbours", *["0.444"] * 6] in lines
    assert re.search(r"no neighbours: .*\b2\b.*\b7\.5\b.*\n.*\b3\b.*\b0\b", text)
    notes = text[text.index("tie-aware:") :]
    assert re.findall(r"[\d.]+", notes.splitlines()[0]) == ["4.5", "4.5", "12"]
    assert re.search(r" 2 .*increase top_k", notes)
    assert max(map(len, text.splitlines())) <= 79


def test_columns_stay_apart_where_everything_is_found() -> None:
    ends = {"P@10": np.array([0.25, 0.75]), **{name: np.array([0.9, 1.0]) for name in ("R@10", "F1@10")}}
    ends |= {name: np.array([1.0, 1.0]) for name in ("F1@5", "mAP@10", "NDCG@10")}
    text = run_text(results(1.0, intervals=ends), {"perfect": results(1.0)})
    lines = [line.split() for line in text.splitlines()]
    assert ["95", "%", ".250-.750", *[".900-1.00"] * 2, *["1.00-1.00"] * 3] in lines
    assert ["mAP", *["1.000"] * 4] in lines
    assert max(map(len, text.splitlines())) <= 79


def test_a_row_of_long_cells_keeps_them_apart() -> None:
    assert table_line("x" * 30, dict.fromkeys(HEADLINE_NAMES, "1" * 12)).split() == ["x" * 30, *["1" * 12] * 6]


def test_everything_by_default_fits_one_screen() -> None:
    intervals = {"P@10": (0.25, 0.75)}
    run = results(0.5, 1000, DIRECTIONS, intervals=intervals)
    text = run_text(run, {"untrained": results(0.3, 1000, DIRECTIONS), "band_statistics": results(0.3, 1000)})
    assert len(text.splitlines()) <= 50
    assert max(map(len, text.splitlines()[1:])) <= 120
    for word in ("S1 -> fused", "S2 -> fused", "S2 -> S1"):
        assert word in text
