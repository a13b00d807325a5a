"""The ground truth of a retrieval, prepared once: labels as bitmasks, and how many each query shares with the archive.

Every metric takes this object, so that labels are packed and tallied once however many metrics and directions follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.compiled import kernel_array
from bigearthnet_cbir.evaluation.label_bitmasks import Counts, Words, label_words, leave_out, shared_labels
from bigearthnet_cbir.evaluation.positions import Positions, check_rows, excluded_positions, retrieved_positions
from bigearthnet_cbir.evaluation.spatial_exclusion import SpatialExclusion
from bigearthnet_cbir.types import DoubleArray, IntArray

_BLOCK: Final = 8192
"""Queries at a time: neighbours may be memory maps, of which only so many rows are held."""


@dataclass(frozen=True)
class GroundTruth:
    """What the rankings of Q queries in an archive of N items are held against; made by `GroundTruth.of`.

    Attributes:
        query_labels: (Q, L) of 0 and 1.
        archive_labels: (N, L) of 0 and 1.
        queries: (Q,) uint32 label words; 0 for a query that enters no mean.
        archive: (N,) uint32 label words.
        tallies: (Q, 33) int64: of the items that a query may retrieve, how many share s labels with it.
        pair_sums: (Q, 2) float64: sums over these items of the pair's precision and of its F1.
    """

    query_labels: npt.NDArray[Any]
    archive_labels: npt.NDArray[Any]
    queries: Words
    archive: Words
    tallies: Counts
    pair_sums: DoubleArray

    @classmethod
    def of(
        cls, query_labels: npt.ArrayLike, archive_labels: npt.ArrayLike, exclude: Positions | None = None
    ) -> GroundTruth:
        """Prepare labels.

        Args:
            query_labels: (Q, L) of 0 and 1, L <= 32; queries without labels enter no mean.
            archive_labels: (N, L) of 0 and 1; an item without labels has precision 0 with every query.
            exclude: (Q, E) archive positions that a query may not retrieve (itself, say), -1 as filling; or None. The
                ideal ranking of NDCG and the chance level leave them out too.

        Raises:
            ResultsError: labels are malformed, shapes do not fit, or a position is outside the archive.
        """
        asked, searched = np.asarray(query_labels), np.asarray(archive_labels)
        queries, archive = label_words(asked), label_words(searched)
        tallies, sums = shared_labels(queries, archive)
        if exclude is not None:
            leave_out(queries, archive, excluded_positions(exclude, len(queries), len(archive)), tallies, sums)
        return cls(asked, searched, queries, archive, tallies, sums)

    def without(self, near: SpatialExclusion) -> GroundTruth:
        """Return the same labels where no query may retrieve its spatial neighbours.

        Queries that keep too few items enter no mean.
        """
        tallies, sums = shared_labels(self.queries, self.archive)
        for rows in self.blocks():
            listed = excluded_positions(near[rows], rows.stop - rows.start, len(self.archive))
            leave_out(self.queries[rows], self.archive, listed, tallies[rows], sums[rows])
        kept = kernel_array(np.where(near.left_out, np.uint32(0), self.queries))
        return replace(self, queries=kept, tallies=tallies, pair_sums=sums)

    @property
    def sizes(self) -> Counts:
        """(Q,) int64 items that each query may retrieve."""
        sizes: Counts = self.tallies.sum(axis=1)
        return sizes

    def blocks(self) -> Iterator[slice]:
        """Yield the queries in blocks of consecutive ones."""
        for start in range(0, len(self.queries), _BLOCK):
            yield slice(start, min(start + _BLOCK, len(self.queries)))

    def ranked_blocks(self, indices: Positions) -> Iterator[tuple[slice, IntArray]]:
        """Yield blocks of queries with their retrieved positions as kernels take them, (rows, K) int32.

        Args:
            indices: (Q, K) archive positions, nearest first.

        Raises:
            ResultsError: there is not a row for each query, or a position is outside the archive.
        """
        check_rows(indices, len(self.queries))
        for rows in self.blocks():
            yield rows, retrieved_positions(indices[rows], rows.stop - rows.start, len(self.archive), rows.start)
