"""From neighbours and labels to curves, headline metrics with intervals, breakdowns and chance."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.bootstrap import headline_intervals
from bigearthnet_cbir.evaluation.breakdown import by_class, by_label_count, confusion
from bigearthnet_cbir.evaluation.headline_metrics import query_columns
from bigearthnet_cbir.evaluation.metrics import CurveAccumulator
from bigearthnet_cbir.evaluation.random_ranking import chance_curves
from bigearthnet_cbir.evaluation.spatial_exclusion import SpatialExclusion
from bigearthnet_cbir.evaluation.summary import HEADLINE_RANK
from bigearthnet_cbir.evaluation.tie_aware import TieAccumulator
from bigearthnet_cbir.report.console_tables import metrics_table
from bigearthnet_cbir.results import Curves, CurveVariant, DirectionResult, GroupMetrics
from bigearthnet_cbir.search.rows import Sliceable
from bigearthnet_cbir.storage.features import read_names
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import ByteArray, IntArray, Neighbours

logger = logging.getLogger(__name__)

Search = Callable[[Sliceable, int], Iterator[tuple[int, Neighbours]]]
"""Searches a direction again: positions that queries must not get, and k, to blocks of neighbours."""

_BLOCK = 8192


class Evaluation(DirectionResult):
    """What `evaluate` returns; printed, it is a table of the headline metrics beside chance."""

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
    """Return the retrieval metrics of neighbours, with 95 % intervals and the level of a random ranking.

    docs/metrics.md defines every metric. Queries without labels are left out of the means.

    Args:
        neighbours: from `search`: indices (Q, k) and distances (Q, k), nearest first.
        query_labels: (Q, L) of 0 and 1, L <= 32.
        archive_labels: (N, L) of 0 and 1.
        exclude: (Q, E) archive positions that the search left out for each query, -1 as filling; or None.
        ties: also average the metrics over the orders of equal distances, as Hamming distances have them.

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
    asked, searched = np.asarray(query_labels), np.asarray(archive_labels)
    chance = chance_curves(asked, searched, neighbours.indices.shape[1], exclude)
    truth = GroundTruth(asked, searched, exclude, chance)
    found = evaluate_direction(neighbours, truth, hamming=ties)
    return Evaluation(**vars(found))


@dataclass(frozen=True)
class GroundTruth:
    """What rankings are held against.

    Attributes:
        query_labels: (Q, L) of 0 and 1.
        archive_labels: (N, L) of 0 and 1.
        exclude: (Q, 1) archive positions of the queries themselves, -1 for none; or None.
        chance: expected curves under a random ranking.
        near: what exclude_within leaves out, or None where it was not asked for.
        radius: exclude_within.
    """

    query_labels: ByteArray
    archive_labels: ByteArray
    exclude: IntArray | None
    chance: Curves
    near: SpatialExclusion | None = None
    radius: int = 0

    def exclude_of(self, rows: slice) -> IntArray | None:
        """Return the rows of `exclude`, if there is one."""
        return None if self.exclude is None else self.exclude[rows]


def build_spatial_exclusion(folder: RunFolder, radius: int | None, k: int) -> SpatialExclusion | None:
    """Return what exclude_within leaves out, or None where it is not given.

    A query must keep as many patches as the headline figures look at; others are left out of these figures.

    Raises:
        ResultsError: the names tell no positions, or no query keeps enough of the archive.
    """
    if radius is None:
        return None
    archive = read_names(folder.archive)
    least = min(k, HEADLINE_RANK)
    near = SpatialExclusion(read_names(folder.query), archive, radius, least)
    if near.left_out.all():
        raise ResultsError(
            f"exclude_within is {radius}: no query keeps {least} of the archive's {len(archive):,} patches, the others "
            "are next to it or of its acquisition; leave exclude_within out or search a larger archive"
        )
    return near


def evaluate_direction(
    found: Neighbours, truth: GroundTruth, *, hamming: bool, search_again: Search | None = None
) -> DirectionResult:
    """Return all curves and statistics of a direction.

    Args:
        found: its neighbours, (Q, k) each; read in blocks, so memory maps stay on the disk.
        truth: labels and what is left out.
        hamming: whether distances are small whole numbers, which tie.
        search_again: used where `truth.near` leaves patches out.
    """
    scores = CurveAccumulator(truth.archive_labels, found.indices.shape[1])
    for part in _blocks(len(found.indices)):
        scores.update(truth.query_labels[part], found.indices[part], truth.exclude_of(part))
    top = np.asarray(found.indices[:, :HEADLINE_RANK])
    columns = query_columns(truth.query_labels, truth.archive_labels, top, truth.exclude)
    classes = by_class(columns, truth.query_labels)
    present, counts = by_label_count(columns, truth.query_labels)
    return DirectionResult(
        curves=scores.standard(),
        chance=truth.chance,
        original=scores.original(),
        intervals={name: (float(ends[0]), float(ends[1])) for name, ends in headline_intervals(columns).items()},
        per_class=GroupMetrics(np.arange(len(classes.queries)), classes.queries, classes.figures),
        per_label_count=GroupMetrics(present, counts.queries, counts.figures),
        confusion=confusion(truth.query_labels, truth.archive_labels, top),
        tie_aware=_tie_aware(found, truth) if hamming else None,
        exclude_within=(
            None
            if truth.near is None or search_again is None
            else _exclude_within(found, truth, truth.near, search_again)
        ),
        neighbours=found,
        depth=found.indices.shape[1],
    )


def _blocks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _BLOCK):
        yield slice(start, min(start + _BLOCK, rows))


def _tie_aware(found: Neighbours, truth: GroundTruth) -> CurveVariant:
    ties = TieAccumulator(truth.archive_labels, found.indices.shape[1])
    for part in _blocks(len(found.indices)):
        ties.update(truth.query_labels[part], found.indices[part], found.distances[part], truth.exclude_of(part))
    numbers = {"mean_group": ties.mean_group, "largest_group": ties.largest_group, "cut_queries": ties.cut}
    return CurveVariant(ties.curves(), numbers)


def _exclude_within(
    found: Neighbours, truth: GroundTruth, near: SpatialExclusion, search_again: Search
) -> CurveVariant:
    queries, archive = len(truth.query_labels), len(truth.archive_labels)
    depth = min(found.indices.shape[1], int((archive - near.counts[~near.left_out]).min()))
    scores = CurveAccumulator(truth.archive_labels, depth)
    with tqdm(total=queries, desc="search without neighbours", unit="query", disable=None) as bar:
        for start, block in search_again(near, depth):
            rows = slice(start, start + len(block.indices))
            kept = ~near.left_out[rows]
            scores.update(truth.query_labels[rows][kept], block.indices[kept], near[rows][kept])
            bar.update(len(block.indices))
    own = np.zeros(queries, np.int64) if truth.exclude is None else (truth.exclude >= 0).sum(axis=1)
    dropped = near.counts - own
    numbers = {
        "radius": truth.radius,
        "dropped_mean": float(dropped.mean()),
        "dropped_queries": int((dropped > 0).sum()),
        "queries_left_out": int(near.left_out.sum()),
    }
    logger.info("scored without neighbours: %.1f patches dropped a query", numbers["dropped_mean"])
    return CurveVariant(scores.standard(), numbers)
