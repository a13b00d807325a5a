"""Ground truth of a retrieval, prepared once: label bitmasks, and counts of shared labels per query.

All metrics use this object, so that labels are packed and counted only once for all metrics and directions.
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
from bigearthnet_cbir.files import release_pages
from bigearthnet_cbir.types import DoubleArray, IntArray

_BLOCK: Final = 8192
"""Queries per block; neighbours may be memory maps, which are read in blocks."""


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of Q queries in an archive of N items; created by `GroundTruth.of`.

    Attributes:
        query_labels: (Q, L) multi-hot labels.
        archive_labels: (N, L) multi-hot labels.
        queries: (Q,) uint32 label words; 0 for a query that is excluded from the means.
        archive: (N,) uint32 label words.
        tallies: (Q, 33) int64 number of retrievable items that share s labels with the query.
        pair_sums: (Q, 2) float64 sums of precision and F1 over these items.
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
            query_labels: (Q, L) multi-hot labels, L <= 32; queries without labels are excluded from the means.
            archive_labels: (N, L) multi-hot labels; an item without labels has precision 0 with every query.
            exclude: (Q, E) excluded archive positions per query (for example itself), padded with -1; or None. The
                ideal ranking of NDCG and the chance level exclude them too.

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
        """Return the ground truth with spatial exclusion.

        Queries that keep too few items are excluded from the means.
        """
        tallies, sums = shared_labels(self.queries, self.archive)
        for rows in self.blocks():
            listed = excluded_positions(near[rows], rows.stop - rows.start, len(self.archive))
            leave_out(self.queries[rows], self.archive, listed, tallies[rows], sums[rows])
        kept = kernel_array(np.where(near.left_out, np.uint32(0), self.queries))
        return replace(self, queries=kept, tallies=tallies, pair_sums=sums)

    @property
    def sizes(self) -> Counts:
        """(Q,) int64 number of retrievable items per query."""
        sizes: Counts = self.tallies.sum(axis=1)
        return sizes

    def blocks(self) -> Iterator[slice]:
        """Yield blocks of consecutive queries."""
        for start in range(0, len(self.queries), _BLOCK):
            yield slice(start, min(start + _BLOCK, len(self.queries)))

    def ranked_blocks(self, indices: Positions) -> Iterator[tuple[slice, IntArray]]:
        """Yield blocks of queries with their retrieved positions for the kernels, (rows, K) int32.

        Args:
            indices: (Q, K) archive positions, nearest first; of a memory map, one block at a time is in memory.

        Raises:
            ResultsError: the number of rows differs from the number of queries, or a position is outside the archive.
        """
        check_rows(indices, len(self.queries))
        for rows in self.blocks():
            yield rows, retrieved_positions(indices[rows], rows.stop - rows.start, len(self.archive), rows.start)
            release_pages(indices)
