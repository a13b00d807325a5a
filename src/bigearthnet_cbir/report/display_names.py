"""Display names of directions, metrics, baselines and classes."""

from __future__ import annotations

from typing import Final, NamedTuple

from bigearthnet_cbir.directions import DIRECTIONS, FUSED, S1, S2
from bigearthnet_cbir.evaluation.summary import HEADLINES

SENSOR_NAMES: Final = {"s1": "Sentinel-1", "s2": "Sentinel-2"}
_FEATURES: Final = {S1: "radar", S2: "optical", FUSED: "fused"}


def direction_title(name: str) -> str:
    """Return the title of a direction in tables (S1 -> S2), or its name if unknown."""
    known = DIRECTIONS.get(name)
    return name if known is None else known.title


def direction_heading(name: str) -> str:
    """Return the title of a direction on the page: S1 → S2."""
    if name not in DIRECTIONS:
        return name
    title = direction_title(name).replace("->", "→")
    return title[0].upper() + title[1:]


def direction_sentence(name: str) -> str:
    """Return a sentence with the features of the queries and of the archive."""
    known = DIRECTIONS.get(name)
    if known is None:
        return f"Direction {name}."
    return f"{_FEATURES[known.query].capitalize()} queries, {_FEATURES[known.archive]} archive."


def query_sensors(name: str) -> tuple[str, ...]:
    """Return the sensors whose images are shown for a query; both for fused queries."""
    known = DIRECTIONS.get(name)
    if known is None:
        return (S2,)
    return (S1, S2) if known.query == FUSED else (known.query,)


def result_sensor(name: str) -> str:
    """Return the sensor whose image is shown for a result; Sentinel-2 for fused vectors."""
    known = DIRECTIONS.get(name)
    return S1 if known is not None and known.archive == S1 else S2


class CurveName(NamedTuple):
    """Short title of a curve, and the definition of its value at k."""

    title: str
    sentence: str


CURVE_NAMES: Final[dict[str, CurveName]] = {
    "f1score_harmonic": CurveName("F1", "Harmonic mean of precision and recall, each averaged over queries (CSMAE)."),
    "f1score": CurveName("F1, pairwise", "F1 of the labels of query and item, averaged over the first k (CR-JEPA)."),
    "precision": CurveName("Precision", "Share of an item's labels that the query has, averaged over the first k."),
    "recall": CurveName("Recall", "Share of the query's labels that an item has, averaged over the first k."),
    "average_precision": CurveName(
        "mAP", "Mean average precision; an item is relevant if it shares a label. Chance is high."
    ),
    "normalized_discounted_cumulative_gains": CurveName(
        "NDCG", "Gain of shared labels, discounted by rank, relative to the ideal ranking."
    ),
    "average_cumulative_gains": CurveName("ACG", "Labels shared with the query, averaged over the first k."),
    "weighted_avg_precision": CurveName("WAP", "ACG at each relevant item, averaged over those among the first k."),
}
"""Curves by their name in the file, in display order."""

HEADLINE_NAMES: Final = tuple(name for name, _, _ in HEADLINES)

METRIC_DEFINITIONS: Final = {
    "P@10": "of an item's labels, the share that the query has",
    "R@10": "of the query's labels, the share that an item has",
    "F1@10": "harmonic mean of P@10 and R@10",
    "F1@5": "pairwise F1, mean of the first five",
    "mAP@10": "relevant: at least one shared label",
    "NDCG@10": "rewards more shared labels at early ranks",
}

BASELINE_NAMES: Final = {
    "untrained": "random weights",
    "band_statistics": "band mean and std",
}


def source_name(name: str) -> str:
    """Return the display name of a source: a description of a baseline, or the name of a run."""
    return BASELINE_NAMES.get(name, name)


_SHORT: Final = {
    "Industrial or commercial units": "Industrial, commercial",
    "Complex cultivation patterns": "Complex cultivation",
    "Land principally occupied by agriculture, with significant areas of natural vegetation": "Agriculture and nature",
    "Agro-forestry areas": "Agro-forestry",
    "Natural grassland and sparsely vegetated areas": "Grassland, sparse",
    "Moors, heathland and sclerophyllous vegetation": "Moors, heathland",
    "Transitional woodland, shrub": "Woodland, shrub",
    "Beaches, dunes, sands": "Beaches, dunes",
}


def short_class_name(name: str) -> str:
    """Return a class name that fits below an image."""
    return _SHORT.get(name, name)
