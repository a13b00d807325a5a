"""The provenance section of a report: the attributes of the results files and the configuration of the runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from bigearthnet_cbir.report.number_format import NO_VALUE
from bigearthnet_cbir.report.table_view import TableView, text_table
from bigearthnet_cbir.report.view_model import Study


class Facts(NamedTuple):
    """A titled list of (name, value)."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ProvenanceView:
    """The section.

    Attributes:
        differences: configuration keys that differ between compared runs, or None.
        facts: attributes and configuration of every run.
    """

    differences: TableView | None
    facts: tuple[Facts, ...]


def provenance_view(study: Study) -> ProvenanceView:
    """Return all attributes of the results files and the configurations of the runs."""
    facts: list[Facts] = []
    for index, run in enumerate(study.runs):
        suffix = f" of {run.name}" if study.is_comparison else ""
        folder = {"folder": study.folders[index]} if index < len(study.folders) else {}
        attributes = {name: value for name, value in run.data.attributes.items() if name != "class_names"}
        facts.append(_facts(f"Attributes of retrieval.h5{suffix}", {**folder, **attributes}))
        if run.data.configuration:
            facts.append(_facts(f"Configuration{suffix}", flatten(run.data.configuration)))
    return ProvenanceView(_differences(study) if study.is_comparison else None, tuple(facts))


def _facts(title: str, values: dict[str, Any]) -> Facts:
    return Facts(title, tuple((name, as_yaml(value)) for name, value in values.items()))


def _differences(study: Study) -> TableView | None:
    configurations = [flatten(run.data.configuration) for run in study.runs]
    keys = [key for key in dict.fromkeys(key for found in configurations for key in found) if key != "source"]
    rows = [[key, *(as_yaml(found.get(key)) for found in configurations)] for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    if not differing:
        return None
    header = ["key", *(run.name for run in study.runs)]
    return text_table("Configuration keys that differ between the runs", header, differing)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def as_yaml(value: Any) -> str:
    """Return a value in YAML notation."""
    if isinstance(value, str):
        return value
    return NO_VALUE if value is None else json.dumps(value, default=str)
