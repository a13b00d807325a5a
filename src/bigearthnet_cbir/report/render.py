"""The page of a report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from bigearthnet_cbir.report.display_names import direction_words
from bigearthnet_cbir.report.gallery_section import gallery_section, image_data
from bigearthnet_cbir.report.html import Html, element, joined, json_block, raw
from bigearthnet_cbir.report.provenance_section import provenance_section
from bigearthnet_cbir.report.sections import breakdown_section, curve_values, curves_section, figures_section, radios
from bigearthnet_cbir.report.summary_section import opening
from bigearthnet_cbir.report.training_section import training_section
from bigearthnet_cbir.report.view_model import Study

_LINKS = {
    "figures": "Figures",
    "curves": "Curves",
    "gallery": "Gallery",
    "classes": "Classes",
    "training": "Training",
    "provenance": "Provenance",
}


def render_page(study: Study) -> str:
    """Return the whole page; all text in it is escaped, and its policy forbids any request and any foreign script."""
    style, script = asset("report.css"), asset("report.js")
    body = _body(study)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{study.title} · retrieval report"),
        element("style", raw(style)),
    )
    data = joined(json_block("images", image_data(study.gallery)), json_block("curve-values", curve_values(study)))
    return f'<!doctype html>\n<html lang="en">{head}<body>{body}{data}{element("script", raw(script))}</body></html>\n'


def asset(name: str) -> str:
    """Return a file that travels with the package."""
    return resources.files("bigearthnet_cbir.report").joinpath("assets").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _body(study: Study) -> Html:
    sections = {
        "figures": figures_section(study),
        "curves": curves_section(study),
        "gallery": gallery_section(study),
        "classes": breakdown_section(study),
        "training": training_section(study),
        "provenance": provenance_section(study),
    }
    kept = {name: content for name, content in sections.items() if content}
    switch = radios("direction", [(name, direction_words(name).title) for name in study.directions], "Direction")
    links = [element("a", _LINKS[name], href=f"#{name}") for name in kept]
    return joined(
        element("a", "Skip to the figures", href="#figures", class_="skip"),
        element("button", "Dark", type="button", id="theme", aria_label="Switch to the dark colours"),
        opening(study),
        element("div", switch, element("nav", *links, aria_label="Sections"), class_="bar", id="bar"),
        element("noscript", "The images and the switches of this page need its script."),
        element("main", *kept.values()),
        element("footer", "Made by bigearthnet-cbir. This file is complete in itself: it loads nothing."),
    )
