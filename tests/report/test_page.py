"""The page of a report as text: escaped, complete in itself, with an alternative for every picture."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tests.report.samples import DIRECTIONS, HOSTILE, small_study, write_run

from bigearthnet_cbir.evaluation.bootstrap import Difference
from bigearthnet_cbir.report.render import render_page
from bigearthnet_cbir.report.view_model import Gallery, Source, Study
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.training_log import Scalar


class Elements(HTMLParser):
    """All start tags of a page with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return small_study(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def content(study: Study) -> str:
    return render_page(study)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    study = small_study(tmp_path, title=HOSTILE, name=HOSTILE)
    text = render_page(study)
    assert HOSTILE not in text
    elements = Elements(text)
    assert elements.words.count(HOSTILE) > len(DIRECTIONS)  # title, legends, tables
    scripts = [attributes.get("type") for attributes in elements.of("script")]
    assert scripts == ["application/json", "application/json", None]


def test_data_for_the_script_cannot_end_its_block(tmp_path: Path) -> None:
    name = "</script><b>&"
    text = render_page(small_study(tmp_path, name=name))
    inner = re.search(r'<script type="application/json" id="curve-values">(.*?)</script>', text)
    assert inner is not None
    assert "<" not in inner[1]
    assert name in json.loads(inner[1])["values"]["fused"]["recall"]


def test_attributes_are_escaped(study: Study) -> None:
    name = '" onerror="alert(1)'
    assert study.gallery is not None
    example = study.gallery.examples["fused"][0]
    hostile = replace(example, query=replace(example.query, name=name, labels=(name,)))
    gallery = Gallery({"fused": (hostile,)}, study.gallery.images, study.gallery.metric)
    elements = Elements(render_page(replace(study, gallery=gallery)))
    shown = elements.of("img")[0]
    assert (shown["title"], shown["alt"]) == (name, f"Sentinel-2 image of query: {name}")
    assert not [attributes for _, attributes in elements.found if "onerror" in attributes]


def test_page_names_no_address_and_forbids_requests(content: str) -> None:
    elements = Elements(content)
    for tag, attributes in elements.found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    assert not re.search(r"https?://|url\(|@import", content)
    policy = [found["content"] for found in elements.of("meta") if found.get("http-equiv")]
    assert policy
    assert policy[0].startswith("default-src 'none'")


def test_every_picture_has_an_alternative(content: str) -> None:
    elements = Elements(content)
    pictures = elements.of("img")
    assert len(pictures) == len(DIRECTIONS) * 4 * 11
    assert all(found["alt"] for found in pictures)
    for found in elements.of("svg"):
        assert found.get("aria-label") or found.get("aria-hidden") == "true"


def test_a_picture_shown_often_is_stored_once(study: Study, content: str) -> None:
    assert study.gallery is not None
    assert content.count("data:image/jpeg") == len(study.gallery.images) == 11


def test_shared_labels_are_marked_by_more_than_colour(content: str) -> None:
    assert content.count("shared: </span>Arable land") == len(DIRECTIONS) * 4 * 10
    assert "shared: </span>Pastures" not in content


def test_every_direction_has_its_table_and_curves(study: Study, content: str) -> None:
    for direction in DIRECTIONS:
        assert content.count(f'data-direction="{direction}"') >= 3
        value = study.runs[0].data.directions[direction].curves["precision"][9]
        assert f"{value:.3f}<small>{value - 0.03:.3f} \u2013 {value + 0.04:.3f}</small>" in content
    curves = json.loads(re.search(r'id="curve-values">(.*?)</script>', content)[1])
    assert curves["ranks"][:10] == list(range(1, 11))
    stored = study.runs[0].data.directions["fused"].curves["recall"][9]
    assert curves["values"]["fused"]["recall"]["this run"][9] == pytest.approx(stored, abs=5e-4)


def test_every_training_curve_is_shown_however_many_there_are(study: Study) -> None:
    names = [f"score {number}" for number in range(8)]
    training = {f"validation/{name}": Scalar((1, 2), (0.1, 0.2)) for name in names}
    text = render_page(replace(study, sources=(replace(study.runs[0], training=training),)))
    assert all(f"<span>{name}</span>" in text for name in names)


def test_files_without_statistics_have_no_empty_columns(tmp_path: Path) -> None:
    data = read_results(write_run(tmp_path, statistics=False) / "retrieval.h5")
    text = render_page(Study("plain", (Source("this run", data),), (), no_gallery="No gallery: the store moved."))
    assert "95 % interval" not in text
    assert 'id="classes"' not in text
    assert "No gallery: the store moved." in text


def test_a_comparison_shows_each_run_and_marks_the_higher_figure(tmp_path: Path) -> None:
    runs = tuple(
        Source(name, read_results(write_run(tmp_path / name, seed=seed) / "retrieval.h5"))
        for seed, name in enumerate(("first", "second"))
    )
    text = render_page(Study("Comparison of 2 runs", runs, (), folders=("first", "second")))
    marked = re.findall(r"<strong>([\d.]+) ▲</strong>", text)
    best = max(run.data.directions["fused"].curves["precision"][9] for run in runs)
    assert marked[0] == f"{best:.3f}"
    assert re.search(r'<table class="wraps">.*?class="name">seed</th>\n<td>0</td>\n<td>1</td>', text, re.DOTALL)
    assert text.count("<polyline") == len(DIRECTIONS) * 8 * 3


def test_a_comparison_shows_paired_differences_and_which_exclude_zero(tmp_path: Path) -> None:
    runs = tuple(Source(name, read_results(write_run(tmp_path / name) / "retrieval.h5")) for name in ("a", "b"))
    found = {"b": {"fused": {"F1@10": Difference(0.041, 0.012, 0.07), "P@10": Difference(-0.01, -0.03, 0.01)}}}
    text = render_page(Study("2 runs", runs, (), differences=found))
    assert "b minus a" in text
    assert '<td class="own">+0.041<small>+0.012 to +0.070</small></td>' in text
    assert "<td>\u22120.010<small>\u22120.030 to +0.010</small></td>" in text
    unknown = render_page(Study("2 runs", runs, (), no_differences="No paired differences. a/query.h5: missing"))
    assert "No paired differences. a/query.h5: missing" in unknown


def test_runs_of_different_archives_are_not_compared_silently(tmp_path: Path) -> None:
    first = read_results(write_run(tmp_path / "a") / "retrieval.h5")
    other = replace(first, attributes={**first.attributes, "archive_size": 7})
    text = render_page(Study("2 runs", (Source("a", first), Source("b", other)), ()))
    warning = re.search(r'<p class="warning">(.*?)</p>', text)
    assert warning is not None
    assert "archive size" in warning[1]
    assert "queries" not in warning[1]


def test_a_thousand_ranks_stay_small(study: Study) -> None:
    long = {name: np.linspace(1, 0.1, 1000) for name in ("precision", "recall", "f1score")}
    fused = study.runs[0].data.directions["fused"]
    data = replace(study.runs[0].data, directions={"fused": replace(fused, curves=long)})
    assert len(render_page(replace(study, sources=(Source("this run", data),)))) < 500_000
