"""The codes section of a report: which run has one, what its chart shows, what it says of reranked lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.pipelines.test_evaluate import scored
from tests.report.samples import small_study
from tests.search.oracles import slow_search

from bigearthnet_cbir.evaluation.metrics import retrieval_curves
from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.pipelines import code_comparison
from bigearthnet_cbir.report.charts import SIZE, size_chart
from bigearthnet_cbir.report.codes_section import codes_view
from bigearthnet_cbir.report.console import describe_search
from bigearthnet_cbir.report.render import render_page
from bigearthnet_cbir.report.view_model import Line, Source, Study
from bigearthnet_cbir.results import CodeQuality, CurveVariant
from bigearthnet_cbir.storage.results import read_results

CODES = (
    CodeQuality("s1_s2", "cosine, floats", 4096, 512, 0.5, 0.6),
    CodeQuality("s1_s2", "itq", 64, 8, 0.4, 0.5),
    CodeQuality("s1_s2", "itq", 16, 2, 0.3, 0.4),
    CodeQuality("fused", "cosine, floats", 8192, 1024, 0.55, 0.65),
)


def study_with_codes(folder: Path) -> Study:
    study = small_study(folder)
    run = study.runs[0]
    attributes = {**run.data.attributes, "distance": "hamming", "code": "itq", "code_bits": 64, "rerank": 100}
    recall = CurveVariant({"recall_of_cosine": np.array([1.0, 0.9, 0.75])}, {"candidates": 100})
    directions = {**run.data.directions, "s1_s2": replace(run.data.directions["s1_s2"], rerank=recall)}
    data = replace(run.data, attributes=attributes, codes=CODES, directions=directions)
    return replace(study, sources=(Source(run.name, data), *study.sources[1:]))


def test_a_run_that_searched_by_codes_has_the_section_and_others_have_not(tmp_path: Path) -> None:
    study = study_with_codes(tmp_path)
    view = codes_view(study)
    assert view.searched == "itq codes of 64 bits, the nearest 100 of them ordered by cosine"
    assert [panel.direction for panel in view.panels] == ["fused", "s1_s2"]
    panel = view.panels[1]
    assert [(entry.name, entry.value) for entry in panel.legend] == [
        ("cosine, floats (512 bytes)", "0.500"),
        ("itq", "0.400"),
    ]
    assert "0.75" in panel.recall
    assert "1.000 at 1" in panel.recall
    page = render_page(study)
    assert 'id="codes"' in page
    assert panel.recall in page
    assert codes_view(small_study(tmp_path / "other")) is None
    assert 'id="codes"' not in render_page(small_study(tmp_path / "third"))


def test_sizes_stand_on_a_logarithmic_axis_in_ascending_order(tmp_path: Path) -> None:
    chart = codes_view(study_with_codes(tmp_path)).panels[1].chart
    itq = next(curve for curve in chart.curves if curve.style == "run-0")
    across = [float(point.split(",")[0]) for point in itq.points.split()]
    assert across == pytest.approx([0, SIZE * np.log(8 / 2) / np.log(512 / 2)], abs=0.1)
    assert [tick.text for tick in chart.x_ticks] == ["2", "8", "512"]
    level = next(curve for curve in chart.curves if curve.style == "chance")
    assert len({point.split(",")[1] for point in level.points.split()}) == 1


def test_a_chart_of_one_size_has_no_width_and_does_not_fail() -> None:
    chart = size_chart([(Line("a", "run-0", np.array([0.5])), [8.0])], [8], "one")
    assert chart.curves[0].points.startswith("0.0,")


def test_a_real_search_fills_the_section_and_the_printed_lines(tmp_path: Path) -> None:
    run = scored(tmp_path, distance="hamming", code="itq", code_bits=16, rerank=20)
    results = read_results(run.retrieval)
    assert {row.method for row in results.codes} == {"cosine, floats", "median", "mean", "rotation", "itq"}
    assert len(results.codes) == 7 * (3 + 2 * 6)
    assert all(0 <= row.f1 <= 1 and row.bytes == -(-row.bits // 8) for row in results.codes)
    study = Study("t", (Source("this run", results),), results.class_names(()))
    assert codes_view(study).searched.startswith("itq codes of 16 bits, the nearest 20")
    assert "hamming on itq codes of 16 bits, 20 candidates ordered by cosine, on projection" in describe_search(results)


@pytest.mark.slow
def test_the_figures_of_the_section_are_those_of_the_search_itself(tmp_path: Path) -> None:
    run = scored(tmp_path / "codes", distance="hamming", code="itq", code_bits=64)
    found = read_results(run.retrieval)
    exact = read_results(scored(tmp_path / "floats").retrieval)
    for direction in ("s1_s2", "fused", "s2_fused"):
        rows = {(row.method, row.bits): row for row in found.codes if row.direction == direction}
        own = rows["itq", 64]
        assert own.mean_ap == pytest.approx(found.directions[direction].curves["average_precision"][9])
        assert own.f1 == pytest.approx(found.directions[direction].curves["f1score_harmonic"][9])
        floats = next(row for (method, _), row in rows.items() if method == "cosine, floats")
        assert floats.f1 == pytest.approx(exact.directions[direction].curves["f1score_harmonic"][9])


def test_large_splits_are_compared_by_evenly_spaced_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 25 queries and 70 archive patches every third and every fourth; five queries stand in the archive."""
    monkeypatch.setattr(code_comparison, "COMPARED_QUERIES", 9)
    monkeypatch.setattr(code_comparison, "COMPARED_PATCHES", 18)
    monkeypatch.setattr(code_comparison, "_READ_ROWS", 7)
    run = scored(tmp_path, distance="hamming", code="itq", code_bits=16)
    rows = {row.direction: row for row in read_results(run.retrieval).codes if row.method == "cosine, floats"}
    with h5py.File(run.query) as one, h5py.File(run.archive) as other:
        queries, archive = one["feature_s1"][::3], other["feature_s2"][::4]
        labels = one["label"][::3], other["label"][::4]
    itself = np.array([[(query - 20) // 4 if query >= 20 and query % 4 == 0 else -1] for query in range(0, 25, 3)])
    found = slow_search(queries, archive, 10, "cosine", itself)
    expected = headline(retrieval_curves(*labels, found.indices, itself))
    assert rows["s1_s2"].f1 == pytest.approx(expected["F1@10"])
    assert rows["s1_s2"].mean_ap == pytest.approx(expected["mAP@10"])
