"""Parts of a report: choice of queries, tables as CSV and LaTeX, pictures, axes."""

import csv
import io
import math

import numpy as np
import pytest

from bigearthnet_cbir.report.axes import ceiling, shown_ranks, tick_labels
from bigearthnet_cbir.report.query_sampling import SAMPLE_REASONS, sample_queries
from bigearthnet_cbir.report.render import environment
from bigearthnet_cbir.report.rgb import decode_jpeg, downsample, encode_jpeg, stretch, stretch_limits, to_rgb
from bigearthnet_cbir.report.table_export import latex_escape, to_csv, to_latex
from bigearthnet_cbir.report.table_view import table_view
from bigearthnet_cbir.report.tables import Estimate, Table

TABLE = Table("t", "R&D <b>", ("", "a_b"), (("50 %", Estimate(0.25, 0.2, 0.3)), ("none", Estimate(math.nan))))


def test_choice_takes_the_ends_the_middle_and_some_at_random() -> None:
    scores = np.linspace(0, 1, 101)
    chosen = sample_queries(scores, scores, 8, seed=3)
    assert [reason for reason, _ in chosen] == [word for word in SAMPLE_REASONS for _ in range(2)]
    assert [query for _, query in chosen[:6]] == [100, 99, 50, 51, 0, 1]
    assert chosen == sample_queries(scores, scores, 8, seed=3)
    assert len({query for _, query in chosen}) == 8


def test_choice_breaks_ties_by_the_finer_score_then_the_position() -> None:
    finer = np.array([0.1, 0.9, 0.9, 0.2])
    assert sample_queries(np.ones(4), finer, 1, seed=0) == [("best", 1)]


@pytest.mark.parametrize("count", [0, 1, 3, 5, 20])
def test_choice_never_shows_a_query_twice_or_one_without_a_score(count: int) -> None:
    scores = np.array([0.5, np.nan, 0.5, 0.1, 0.9])
    queries = [query for _, query in sample_queries(scores, scores, count, seed=0)]
    assert len(set(queries)) == len(queries) <= count
    assert 1 not in queries
    if count == 20:
        assert set(queries) == {0, 2, 3, 4}


def test_csv_keeps_precision_and_puts_the_interval_in_columns() -> None:
    table = Table("t", "", ("", "run"), (("x", Estimate(1 / 3, 0.1, 0.5)),))
    assert list(csv.reader(io.StringIO(to_csv(table)))) == [
        ["", "run", "run lower", "run upper"],
        ["x", repr(1 / 3), "0.1", "0.5"],
    ]


def test_latex_is_escaped_and_in_booktabs_style() -> None:
    text = to_latex(TABLE)
    assert r"a\_b" in text
    assert r"50 \% & 0.250 {\small [0.200, 0.300]} \\" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"none & -- \\" in text


def test_latex_escape_covers_every_special_character() -> None:
    assert latex_escape(r"\&%$#_{}~^") == (r"\textbackslash{}\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}")


def test_a_line_break_in_a_caption_stays_in_the_latex_comment() -> None:
    for line_break in ("\n", "\r", "\u2028"):
        assert to_latex(Table("t", f"a{line_break}\\input{{b}}", ("",), ())).splitlines()[0] == r"% a \input{b}"


def test_runs_of_the_same_name_and_tables_without_rows_are_written() -> None:
    table = Table("t", "", ("", "run", "run"), (("x", Estimate(0.5, 0.1, 0.9), Estimate(0.25)), ("y", 3, "NA")))
    rows = [["", "run", "run lower", "run upper", "run"], ["x", "0.5", "0.1", "0.9", "0.25"], ["y", "3", "", "", "NA"]]
    assert list(csv.reader(io.StringIO(to_csv(table)))) == rows
    assert r"x & 0.500 {\small [0.100, 0.900]} & 0.250 \\" in to_latex(table)
    empty = Table("t", "", ("", "run"), ())
    assert list(csv.reader(io.StringIO(to_csv(empty)))) == [["", "run"]]
    assert r" & run \\" in to_latex(empty)


def test_html_table_escapes_and_shows_a_dash_for_nan() -> None:
    text = environment().get_template("macros.html.j2").module.table(table_view(TABLE))
    assert "R&amp;D &lt;b&gt;" in text
    assert "<td>\u2013</td>" in text.replace(' class="own"', "")


def test_stretch_maps_the_percentiles_to_black_and_full_brightness() -> None:
    values = np.linspace(0, 100, 101, dtype=np.float32)
    picture = np.repeat(values[:, None, None], 3, axis=2)
    pixels = stretch(picture, stretch_limits([picture]))
    assert pixels[:3].max() == 0
    assert pixels[98:].min() == 255
    assert (np.diff(pixels[:, 0, 0].astype(int)) >= 0).all()


def test_radar_shows_both_polarisations_and_their_difference() -> None:
    bands = {"VV": np.full((2, 2), -10.0, "f4"), "VH": np.full((2, 2), -17.0, "f4")}
    assert to_rgb("s1", bands)[0, 0].tolist() == [-10.0, -17.0, 7.0]


def test_optical_shows_red_green_blue() -> None:
    bands = {name: np.full((2, 2), value, "u2") for name, value in (("B02", 1), ("B03", 2), ("B04", 3))}
    assert to_rgb("s2", bands)[0, 0].tolist() == [3.0, 2.0, 1.0]


def test_what_is_not_finite_becomes_black_and_spoils_no_other_pixel() -> None:
    picture = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    spoilt = picture.copy()
    spoilt[0, 0] = np.nan
    pixels = stretch(spoilt, stretch_limits([spoilt]))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert np.abs(pixels.astype(int) - stretch(picture, stretch_limits([picture])))[1:].mean() < 5


def test_jpeg_reads_back() -> None:
    pixels = np.full((120, 120, 3), 90, np.uint8)
    assert np.abs(decode_jpeg(encode_jpeg(pixels)).astype(int) - 90).max() <= 2


def test_ranks_hold_the_first_ten_and_the_last() -> None:
    ranks = shown_ranks(1000)
    assert ranks[:10] == list(range(1, 11))
    assert ranks[-1] == 1000
    assert ranks == sorted(set(ranks))
    assert shown_ranks(3) == [1, 2, 3]


@pytest.mark.parametrize(("highest", "top"), [(0.5, 0.6), (0.8, 0.8), (1.0, 1.0), (7.2, 8.0), (0.0, 1.0)])
def test_axes_end_at_a_round_number(highest: float, top: float) -> None:
    assert ceiling(highest) == pytest.approx(top)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ([0, 0.15, 0.3], ["0.00", "0.15", "0.30"]),
        ([0, 2, 4], ["0.0", "2.0", "4.0"]),
        ([0, 0.00025, 0.001], ["0", "2.5e-4", "1.0e-3"]),
    ],
)
def test_ticks_have_the_digits_they_need(marks: list[float], words: list[str]) -> None:
    assert tick_labels(marks) == words


def test_shrinking_averages_blocks() -> None:
    picture = np.arange(4 * 4 * 3, dtype=np.float32).reshape(4, 4, 3)
    assert downsample(picture, 2)[0, 1].tolist() == picture[:2, 2:].mean(axis=(0, 1)).tolist()


def test_a_cloud_does_not_blacken_the_other_pictures() -> None:
    rng = np.random.default_rng(0)
    fields = [rng.uniform(300, 900, (16, 16, 3)).astype(np.float32) for _ in range(9)]
    cloud = rng.uniform(7000, 9000, (16, 16, 3)).astype(np.float32)
    bounds = stretch_limits([*fields, cloud])
    assert stretch(fields[0], bounds).mean() > 100
    assert stretch(cloud, bounds).min() == 255


def test_pictures_without_a_finite_pixel_have_limits() -> None:
    assert stretch(np.full((2, 2, 3), np.nan, np.float32), stretch_limits([])).max() == 0
