"""Names that a report shows for directions, metrics, baselines and classes."""

from __future__ import annotations

from typing import Final, NamedTuple

from bigearthnet_cbir.directions import DIRECTIONS, FUSED, S1, S2
from bigearthnet_cbir.evaluation.summary import HEADLINES

SENSOR_NAMES: Final = {"s1": "Sentinel-1", "s2": "Sentinel-2"}
_FEATURES: Final = {S1: "radar", S2: "optical", FUSED: "fused"}


def direction_title(name: str) -> str:
    """Return a direction as tables show it (S1 -> S2), or its name where this version does not know it."""
    known = DIRECTIONS.get(name)
    return name if known is None else known.title


def direction_heading(name: str) -> str:
    """Return a direction as the page shows it: S1 → S2."""
    if name not in DIRECTIONS:
        return name
    title = direction_title(name).replace("->", "→")
    return title[0].upper() + title[1:]


def direction_sentence(name: str) -> str:
    """Return which features the queries have, and which are searched."""
    known = DIRECTIONS.get(name)
    if known is None:
        return f"Direction {name}."
    return f"{_FEATURES[known.query].capitalize()} queries, {_FEATURES[known.archive]} archive."


def query_sensors(name: str) -> tuple[str, ...]:
    """Return the sensors whose images stand for a query: both where it is fused."""
    known = DIRECTIONS.get(name)
    if known is None:
        return (S2,)
    return (S1, S2) if known.query == FUSED else (known.query,)


def result_sensor(name: str) -> str:
    """Return the sensor whose image stands for a result: Sentinel-2 where it is fused."""
    known = DIRECTIONS.get(name)
    return S1 if known is not None and known.archive == S1 else S2


class CurveName(NamedTuple):
    """A curve's short title, and what its value at k means."""

    title: str
    sentence: str


CURVE_NAMES: Final[dict[str, CurveName]] = {
    "f1score_harmonic": CurveName("F1", "Harmonic mean of precision and recall, each averaged over queries (CSMAE)."),
    "f1score": CurveName("F1 of pairs", "F1 of the query's and an item's labels, averaged over the first k (CR-JEPA)."),
    "precision": CurveName("Precision", "Share of an item's labels that the query has, averaged over the first k."),
    "recall": CurveName("Recall", "Share of the query's labels that an item has, averaged over the first k."),
    "average_precision": CurveName(
        "mAP", "Mean average precision where one shared label is a hit. Easy: chance is high."
    ),
    "normalized_discounted_cumulative_gains": CurveName(
        "NDCG", "Gain of shared labels, early ranks count more, as a share of the best possible order."
    ),
    "average_cumulative_gains": CurveName("ACG", "Labels shared with the query, averaged over the first k."),
    "weighted_avg_precision": CurveName("WAP", "ACG at each hit, averaged over the hits among the first k."),
}
"""Curves by their name in the file, in the order of showing."""

HEADLINE_NAMES: Final = tuple(name for name, _, _ in HEADLINES)

METRIC_DEFINITIONS: Final = {
    "P@10": "of an item's labels, the share that the query has",
    "R@10": "of the query's labels, the share that an item has",
    "F1@10": "harmonic mean of the two",
    "F1@5": "mean of the pairs' F1, first five",
    "mAP@10": "one shared label is a hit",
    "NDCG@10": "more shared labels first is better",
}

BASELINE_NAMES: Final = {
    "untrained": "random weights",
    "band_statistics": "band mean and std",
}


def source_name(name: str) -> str:
    """Return how a source is named on the page: a baseline by what it is, a run by its own name."""
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
