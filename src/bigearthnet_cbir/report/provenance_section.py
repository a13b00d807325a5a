"""The provenance section of a report: the attributes of the results files and the configuration of the runs."""

from __future__ import annotations

import json
from typing import Any

from bigearthnet_cbir.report.html import Html, element
from bigearthnet_cbir.report.number_format import NO_VALUE
from bigearthnet_cbir.report.sections import section
from bigearthnet_cbir.report.table_export import scrolling
from bigearthnet_cbir.report.view_model import Study


def provenance_section(study: Study) -> Html:
    """Return every attribute of the results files and the runs' configurations."""
    parts: list[Html | None] = [_differences(study)] if study.is_comparison else []
    for position, run in enumerate(study.runs):
        suffix = f" of {run.name}" if study.is_comparison else ""
        place = {"folder": study.folders[position]} if position < len(study.folders) else {}
        told = {**place, **{name: value for name, value in run.data.attributes.items() if name != "class_names"}}
        parts.append(_facts(f"Provenance{suffix}", told))
        if run.data.configuration:
            parts.append(_facts(f"Configuration{suffix}", flat(run.data.configuration)))
    return section("provenance", "Where the numbers come from", "", *parts)


def _facts(title: str, values: dict[str, Any]) -> Html:
    rows = [element("tr", element("th", name, scope="row"),
                    element("td", spelled(value))) for name, value in values.items()]  # fmt: skip
    return element("details", element("summary", title), element("table", element("tbody", *rows), class_="facts"))


def _differences(study: Study) -> Html | None:
    flats = [flat(run.data.configuration) for run in study.runs]
    keys = [key for key in dict.fromkeys(key for found in flats for key in found if key != "source")
            if len({spelled(found.get(key)) for found in flats}) > 1]  # fmt: skip
    if not keys:
        return None
    head = element("tr", element("th", "key", scope="col", class_="name"),
                   *(element("th", run.name, scope="col") for run in study.runs))  # fmt: skip
    rows = [element("tr", element("th", key, scope="row", class_="name"),
                    *(element("td", spelled(found.get(key))) for found in flats)) for key in keys]  # fmt: skip
    caption = "Keys of the configuration in which the runs differ"
    return scrolling(caption, element("table", element("thead", head), element("tbody", *rows), class_="wraps"))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def spelled(value: Any) -> str:
    """Return a configured or stored value as a YAML file would show it."""
    if isinstance(value, str):
        return value
    return NO_VALUE if value is None else json.dumps(value, default=str)
