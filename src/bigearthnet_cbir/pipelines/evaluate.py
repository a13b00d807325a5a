"""Evaluation: curves, headline metrics with intervals, breakdowns and chance from neighbours and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.bootstrap import headline_intervals
from bigearthnet_cbir.evaluation.breakdown import by_class, by_label_count, confusion
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.headline_metrics import query_columns
from bigearthnet_cbir.evaluation.metrics import mean_curves
from bigearthnet_cbir.evaluation.random_ranking import chance_curves
from bigearthnet_cbir.evaluation.spatial_exclusion import SpatialExclusion
from bigearthnet_cbir.evaluation.summary import HEADLINE_RANK
from bigearthnet_cbir.evaluation.tie_aware import tie_aware_curves
from bigearthnet_cbir.report.console import metrics_table
from bigearthnet_cbir.results import Curves, CurveVariant, DirectionResult, GroupMetrics
from bigearthnet_cbir.types import IntArray, Neighbours, PatchPair


class Evaluation(DirectionResult):
    """Result of `evaluate`; `print` shows a table of the headline metrics and chance."""

    def __str__(self) -> str:
        return metrics_table({"retrieved": self}, {})


def evaluate(
    neighbours: Neighbours,
    query_labels: npt.ArrayLike,
    archive_labels: npt.ArrayLike,
    *,
    exclude: IntArray | None = None,
    ties: bool = False,
) -> Evaluation:
    """Return the retrieval metrics of neighbours, with 95 % intervals and the chance level.

    docs/metrics.md defines every metric. Queries without labels are excluded from the means.

    Args:
        neighbours: result of `search`: indices (Q, k) and distances (Q, k), nearest first.
        query_labels: (Q, L) multi-hot labels, L <= 32.
        archive_labels: (N, L) multi-hot labels.
        exclude: (Q, E) archive positions that the search excluded per query, padded with -1; or None.
        ties: also compute tie-aware metrics (means over the orders of equal distances), for Hamming distances.

    Raises:
        ResultsError: shapes do not fit, labels are not 0 and 1, or a position is outside the archive.

    Example:
        >>> import numpy as np
        >>> import bigearthnet_cbir as cbir
        >>> features = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
        >>> labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
        >>> itself = np.arange(4, dtype=np.int32)[:, None]
        >>> hits = cbir.search(features, features, k=1, distance="cosine", exclude=itself)
        >>> result = cbir.evaluate(hits, labels, labels, exclude=itself)
        >>> float(result.curves["average_precision"][0])
        1.0
    """
    truth = GroundTruth.of(query_labels, archive_labels, exclude)
    chance = chance_curves(truth, neighbours.indices.shape[1])
    found = evaluate_direction(neighbours, truth, chance, ties=ties)
    return Evaluation(**vars(found))


@dataclass(frozen=True)
class SpatialTruth:
    """Ground truth of a search with spatial exclusion (exclude_within).

    Attributes:
        near: excluded archive positions of each query.
        truth: labels and counts without them.
        depth: number of neighbours that the search can return for each query.
        numbers: radius, mean number of excluded patches per query, number of affected and of omitted queries.
    """

    near: SpatialExclusion
    truth: GroundTruth
    depth: int
    numbers: dict[str, float]

    @classmethod
    def of(
        cls, truth: GroundTruth, queries: Sequence[PatchPair], archive: Sequence[PatchPair], radius: int, k: int
    ) -> SpatialTruth:
        """Find the excluded patches.

        Queries that keep fewer patches than the headline metrics need are excluded from the means.

        Args:
            truth: ground truth without spatial exclusion.
            queries: names of the query pairs.
            archive: names of the archive pairs.
            radius: patches of the same tile at most this many columns and rows away are excluded.
            k: neighbours per query in the search without spatial exclusion.

        Raises:
            ResultsError: the names have no locations, or no query keeps enough of the archive.
        """
        least = min(k, HEADLINE_RANK)
        near = SpatialExclusion(queries, archive, radius, least)
        if near.left_out.all():
            raise ResultsError(
                f"exclude_within is {radius}: no query keeps {least} of the archive's {len(archive):,} patches, the "
                "others are near it or of its acquisition; remove exclude_within or search a larger archive"
            )
        dropped = near.counts - (len(archive) - truth.sizes)
        numbers = {
            "radius": radius,
            "dropped_mean": float(dropped.mean()),
            "dropped_queries": int((dropped > 0).sum()),
            "queries_left_out": int(near.left_out.sum()),
        }
        depth = min(k, int((len(archive) - near.counts[~near.left_out]).min()))
        return cls(near, truth.without(near), depth, numbers)


def evaluate_direction(
    found: Neighbours,
    truth: GroundTruth,
    chance: Curves,
    *,
    ties: bool = False,
    apart: tuple[Neighbours, SpatialTruth] | None = None,
) -> DirectionResult:
    """Return all curves and statistics of a direction.

    Args:
        found: neighbours, (Q, k) each; read in blocks, so that memory maps stay on the disk.
        truth: ground truth.
        chance: expected curves for a random ranking, equal for all directions.
        ties: whether distances are small integers with ties.
        apart: neighbours and ground truth of the search with spatial exclusion.

    Raises:
        ResultsError: shapes do not fit, or a position is outside the archive.
    """
    curves = mean_curves(truth, found.indices)
    columns = query_columns(truth, found.indices)
    classes = by_class(columns, truth.query_labels)
    present, counts = by_label_count(columns, truth.query_labels)
    return DirectionResult(
        curves=curves.standard,
        chance=chance,
        original=curves.original,
        intervals={name: (float(ends[0]), float(ends[1])) for name, ends in headline_intervals(columns).items()},
        per_class=GroupMetrics(np.arange(len(classes.queries)), classes.queries, classes.figures),
        per_label_count=GroupMetrics(present, counts.queries, counts.figures),
        confusion=confusion(truth, found.indices),
        tie_aware=tie_aware_curves(truth, found.indices, found.distances) if ties else None,
        exclude_within=None if apart is None else _without_near(*apart),
        neighbours=found,
        depth=found.indices.shape[1],
    )


def _without_near(found: Neighbours, spatial: SpatialTruth) -> CurveVariant:
    return CurveVariant(mean_curves(spatial.truth, found.indices).standard, spatial.numbers)
