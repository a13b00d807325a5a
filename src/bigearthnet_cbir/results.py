"""Results of an evaluation: the classes that computing, storing, printing and reporting share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.types import DoubleArray, Neighbours

Curves: TypeAlias = Mapping[str, DoubleArray]
"""Metric name -> (k,) float64, its mean over the queries at every rank."""


@dataclass(frozen=True)
class GroupMetrics:
    """Headline metrics of G groups of queries: classes, or numbers of labels.

    Attributes:
        keys: (G,) int64 column of the class, or number of labels.
        queries: (G,) int64 number of queries per group.
        values: metric -> (G, 3) value, lower and upper limit of the 95 % interval; NaN for empty groups.
    """

    keys: npt.NDArray[np.int64]
    queries: npt.NDArray[np.int64]
    values: dict[str, DoubleArray]


@dataclass(frozen=True)
class CurveVariant:
    """Curves of the same search under another rule.

    Attributes:
        curves: metric -> (k,) float64.
        numbers: values of the rule: mean_group, largest_group and cut_queries for ties; radius, dropped_mean,
            dropped_queries and queries_left_out for the spatial exclusion; candidates for rerank.
    """

    curves: Curves
    numbers: dict[str, float]


@dataclass(frozen=True)
class DirectionResult:
    """Results of one direction; parts that a file does not have are empty or None.

    Attributes:
        curves: curves of the standard definitions (docs/metrics.md).
        chance: expected curves for a random ranking.
        original: curves in the original scripts' convention.
        intervals: headline metric -> lower and upper limit of its 95 % interval.
        per_class, per_label_count: metrics of groups of queries.
        confusion: (C, C) row: class of the query, column: share of the top 10 with the class.
        tie_aware: expected curves over the orders of equal distances (Hamming).
        exclude_within: curves with spatial exclusion.
        rerank: recall of the exact cosine lists, where candidates by Hamming distance were ordered by cosine.
        neighbours: (Q, k) each; None if only their depth was read.
        depth: k of the neighbours in the file, 0 if it has none.
    """

    curves: Curves
    chance: Curves = field(default_factory=dict)
    original: Curves = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    per_class: GroupMetrics | None = None
    per_label_count: GroupMetrics | None = None
    confusion: DoubleArray | None = None
    tie_aware: CurveVariant | None = None
    exclude_within: CurveVariant | None = None
    rerank: CurveVariant | None = None
    neighbours: Neighbours | None = None
    depth: int = 0


class CodeQuality(NamedTuple):
    """How well one kind of search finds, and what it keeps in memory.

    Attributes:
        direction: its name.
        method: of the codes, or that floats are compared.
        bits: of a patch.
        bytes: of a patch.
        f1: F1@10.
        mean_ap: mAP@10.
    """

    direction: str
    method: str
    bits: int
    bytes: int
    f1: float
    mean_ap: float


@dataclass(frozen=True)
class RunResults:
    """Content of a retrieval.h5.

    Attributes:
        attributes: attributes of the file as plain Python values: splits, sizes, distance, checkpoint, versions.
        configuration: configuration of the run; empty if the file has none.
        directions: results by name, in the order of directions.DIRECTIONS.
        original_only: whether the original scripts wrote the file, in their convention.
        codes: comparison of codes of every kind and length, where the search was by codes.
    """

    attributes: dict[str, Any]
    configuration: dict[str, Any]
    directions: dict[str, DirectionResult]
    original_only: bool = False
    codes: tuple[CodeQuality, ...] = ()

    def class_names(self, fallback: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the label columns of the file."""
        names = self.attributes.get("class_names")
        return tuple(str(name) for name in names) if isinstance(names, list) and names else tuple(fallback)
