"""The words of a report: directions, curves and classes as a newcomer reads them."""

from __future__ import annotations

from typing import Final, NamedTuple

from bigearthnet_cbir.evaluation.summary import HEADLINES


class DirectionText(NamedTuple):
    """How a direction is shown.

    Attributes:
        title: short.
        sentence: what was searched in what.
        query_sensors: sensors whose images stand for a query.
        result_sensors: sensors whose images stand for a result.
    """

    title: str
    sentence: str
    query_sensors: tuple[str, ...]
    result_sensors: tuple[str, ...]


_KNOWN: Final[dict[str, DirectionText]] = {
    "fused": DirectionText(
        "Fused → fused", "Both sensors ask, both answer.", ("s1", "s2"), ("s2",)
    ),
    "s1_s1": DirectionText("S1 → S1", "Radar asks, radar answers.", ("s1",), ("s1",)),
    "s2_s2": DirectionText("S2 → S2", "Optical asks, optical answers.", ("s2",), ("s2",)),
    "s1_s2": DirectionText("S1 → S2", "Radar asks, optical answers.", ("s1",), ("s2",)),
    "s2_s1": DirectionText("S2 → S1", "Optical asks, radar answers.", ("s2",), ("s1",)),
    "s1_fused": DirectionText("S1 → fused", "Radar alone asks, both answer.", ("s1",), ("s2",)),
    "s2_fused": DirectionText("S2 → fused", "Optical alone asks, both answer.", ("s2",), ("s2",)),
}

SENSOR_NAMES: Final = {"s1": "Sentinel-1", "s2": "Sentinel-2"}


def direction_words(name: str) -> DirectionText:
    """Return how a direction is shown, also one that this version does not know."""
    return _KNOWN.get(name) or DirectionText(name, f"Direction {name}.", ("s2",), ("s2",))


class Curve(NamedTuple):
    """How a curve is shown: a short title, and what its value at k means."""

    title: str
    sentence: str


CURVE_NAMES: Final[dict[str, Curve]] = {
    "f1score_harmonic": Curve("F1", "Harmonic mean of precision and recall, both averaged over the queries (CSMAE)."),
    "f1score": Curve("F1 of pairs", "F1 of the query's labels and each item's, averaged over the first k (CR-JEPA)."),
    "precision": Curve("Precision", "Share of an item's labels that the query has, averaged over the first k."),
    "recall": Curve("Recall", "Share of the query's labels that an item has, averaged over the first k."),
    "average_precision": Curve(
        "mAP", "Mean average precision where one shared label is a hit. Easy: chance is high."
    ),
    "normalized_discounted_cumulative_gains": Curve(
        "NDCG", "Gain of shared labels, early ranks count more, as a share of the best possible order."
    ),
    "average_cumulative_gains": Curve("ACG", "Labels shared with the query, averaged over the first k."),
    "weighted_avg_precision": Curve("WAP", "ACG at each hit, averaged over the hits among the first k."),
}
"""Curves in the order in which a report shows them."""

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
    """Return a baseline's name in plain words, any other name as it is."""
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
    """Return a class name that fits below a thumbnail."""
    return _SHORT.get(name, name)
