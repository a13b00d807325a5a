"""From the neighbours of a direction to everything that retrieval.h5 says about them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.bootstrap import headline_intervals
from bigearthnet_cbir.evaluation.breakdown import by_class, by_label_count, confusion
from bigearthnet_cbir.evaluation.figures import query_columns
from bigearthnet_cbir.evaluation.metrics import CurveAccumulator
from bigearthnet_cbir.evaluation.neighbourhood import Neighbourhood
from bigearthnet_cbir.evaluation.summary import HEADLINE_RANK
from bigearthnet_cbir.evaluation.ties import TieAccumulator
from bigearthnet_cbir.search.plan import Sliceable
from bigearthnet_cbir.storage.features import read_names
from bigearthnet_cbir.storage.results import CHANCE, ORIGINAL, Curves, write_curves
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.storage.statistics import (
    EXCLUDE_WITHIN,
    PER_CLASS,
    PER_LABEL_COUNT,
    TIE_AWARE,
    Groups,
    OtherCurves,
    write_groups,
    write_intervals,
    write_other_curves,
)
from bigearthnet_cbir.types import ByteArray, IntArray, Neighbours

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)

Search = Callable[[Sliceable, int], Iterator[tuple[int, Neighbours]]]
"""Searches a direction again: positions that queries must not get, and k, to blocks of neighbours."""

_BLOCK = 8192


@dataclass(frozen=True)
class Truth:
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
    near: Neighbourhood | None = None
    radius: int = 0

    def exclude_of(self, rows: slice) -> IntArray | None:
        """Return the rows of `exclude`, if there is one."""
        return None if self.exclude is None else self.exclude[rows]


def find_near(folder: RunFolder, radius: int | None, k: int) -> Neighbourhood | None:
    """Return what exclude_within leaves out, or None where it is not given.

    A query must keep as many patches as the headline figures look at; others are left out of these figures.

    Raises:
        ResultsError: the names tell no positions, or no query keeps enough of the archive.
    """
    if radius is None:
        return None
    archive = read_names(folder.archive)
    least = min(k, HEADLINE_RANK)
    near = Neighbourhood(read_names(folder.query), archive, radius, least)
    if near.left_out.all():
        raise ResultsError(
            f"exclude_within is {radius}: no query keeps {least} of the archive's {len(archive):,} patches, the others "
            "are next to it or of its acquisition; leave exclude_within out or search a larger archive"
        )
    return near


def score_direction(group: h5py.Group, truth: Truth, *, hamming: bool, search_again: Search) -> None:
    """Write all curves and statistics of a direction whose neighbours are stored.

    Args:
        group: the direction's group with retrieval_result and distance.
        truth: labels and what is left out.
        hamming: whether distances are small whole numbers, which tie.
        search_again: used where `truth.near` leaves patches out.
    """
    _write_curves(group, truth)
    _write_statistics(group, truth)
    if hamming:
        _write_tie_aware(group, truth)
    if truth.near is not None:
        _write_exclude_within(group, truth, truth.near, search_again)


def _blocks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _BLOCK):
        yield slice(start, min(start + _BLOCK, rows))


def _write_curves(group: h5py.Group, truth: Truth) -> None:
    stored = group["retrieval_result"]
    scores = CurveAccumulator(truth.archive_labels, stored.shape[1])
    for part in _blocks(len(stored)):
        scores.update(truth.query_labels[part], stored[part], truth.exclude_of(part))
    write_curves(group, scores.standard())
    write_curves(group.require_group(ORIGINAL), scores.original())
    write_curves(group.require_group(CHANCE), truth.chance)


def _write_statistics(group: h5py.Group, truth: Truth) -> None:
    top = group["retrieval_result"][:, :HEADLINE_RANK]
    labels = truth.query_labels
    columns = query_columns(labels, truth.archive_labels, top, truth.exclude)
    write_intervals(group, headline_intervals(columns))
    classes = by_class(columns, labels)
    met = confusion(labels, truth.archive_labels, top)
    write_groups(group, PER_CLASS, Groups(classes.queries, classes.figures, confusion=met))
    present, counts = by_label_count(columns, labels)
    write_groups(group, PER_LABEL_COUNT, Groups(counts.queries, counts.figures, labels=present))


def _write_tie_aware(group: h5py.Group, truth: Truth) -> None:
    stored, distances = group["retrieval_result"], group["distance"]
    ties = TieAccumulator(truth.archive_labels, stored.shape[1])
    for part in _blocks(len(stored)):
        ties.update(truth.query_labels[part], stored[part], distances[part], truth.exclude_of(part))
    numbers = {"mean_group": ties.mean_group, "largest_group": ties.largest_group, "cut_queries": ties.cut}
    write_other_curves(group, TIE_AWARE, OtherCurves(ties.curves(), numbers))


def _write_exclude_within(group: h5py.Group, truth: Truth, near: Neighbourhood, search_again: Search) -> None:
    queries, archive = len(truth.query_labels), len(truth.archive_labels)
    depth = min(group["retrieval_result"].shape[1], int((archive - near.counts[~near.left_out]).min()))
    scores = CurveAccumulator(truth.archive_labels, depth)
    name = group.name.lstrip("/")
    with tqdm(total=queries, desc=f"search {name} without neighbours", unit="query", disable=None) as bar:
        for start, found in search_again(near, depth):
            rows = slice(start, start + len(found.indices))
            kept = ~near.left_out[rows]
            scores.update(truth.query_labels[rows][kept], found.indices[kept], near[rows][kept])
            bar.update(len(found.indices))
    own = np.zeros(queries, np.int64) if truth.exclude is None else (truth.exclude >= 0).sum(axis=1)
    dropped = near.counts - own
    numbers = {
        "radius": truth.radius,
        "dropped_mean": float(dropped.mean()),
        "dropped_queries": int((dropped > 0).sum()),
        "queries_left_out": int(near.left_out.sum()),
    }
    write_other_curves(group, EXCLUDE_WITHIN, OtherCurves(scores.standard(), numbers))
    logger.info("scored %s without neighbours: %.1f patches dropped a query", name, numbers["dropped_mean"])
