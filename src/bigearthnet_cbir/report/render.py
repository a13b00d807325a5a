"""Rendering of a report as one self-contained HTML file with Jinja2 templates."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from bigearthnet_cbir.report.breakdown_section import breakdown_view
from bigearthnet_cbir.report.codes_section import codes_view
from bigearthnet_cbir.report.curves_section import curve_values, curves_view
from bigearthnet_cbir.report.display_names import direction_heading
from bigearthnet_cbir.report.gallery_section import gallery_view, image_data
from bigearthnet_cbir.report.metrics_section import metrics_view
from bigearthnet_cbir.report.provenance_section import provenance_view
from bigearthnet_cbir.report.summary_section import summary_view
from bigearthnet_cbir.report.training_section import training_view
from bigearthnet_cbir.report.view_model import Study

_JSON: Final = {"ensure_ascii": True, "separators": (",", ":"), "allow_nan": False}


class Section(NamedTuple):
    """A section of the page.

    Attributes:
        anchor: id of the section.
        link: name in the navigation.
        title: heading.
        template: file name of the template.
        view: data of the template, or None to omit the section.
    """

    anchor: str
    link: str
    title: str
    template: str
    view: object


def render_page(study: Study) -> str:
    """Return the page; all text is escaped, and its policy forbids requests and foreign scripts."""
    script = asset("report.js")
    return environment().get_template("page.html.j2").render(
        summary=summary_view(study),
        directions=[(name, direction_heading(name)) for name in study.directions],
        sections=[section for section in _sections(study) if section.view is not None],
        images=image_data(study.gallery),
        curve_values=curve_values(study),
        style=asset("report.css"),
        script=script,
        policy=_policy(script),
    )  # fmt: skip


def environment() -> Environment:
    """Return the template environment: it escapes every value and raises errors for undefined names."""
    found = Environment(
        loader=PackageLoader("bigearthnet_cbir.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    found.policies["json.dumps_kwargs"] = _JSON
    return found


def _sections(study: Study) -> tuple[Section, ...]:
    return (
        Section("metrics", "Metrics", "Headline metrics", "metrics.html.j2", metrics_view(study)),
        Section("curves", "Curves", "Curves", "curves.html.j2", curves_view(study)),
        Section("gallery", "Gallery", "Queries and their results", "gallery.html.j2", gallery_view(study)),
        Section("codes", "Codes", "Quality against bytes a patch", "codes.html.j2", codes_view(study)),
        Section("classes", "Classes", "By class and number of labels", "breakdown.html.j2", breakdown_view(study)),
        Section("training", "Training", "Training", "training.html.j2", training_view(study)),
        Section("provenance", "Provenance", "Provenance", "provenance.html.j2", provenance_view(study)),
    )


def asset(name: str) -> str:
    """Return the content of a file of the package."""
    return resources.files("bigearthnet_cbir.report").joinpath("assets").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
