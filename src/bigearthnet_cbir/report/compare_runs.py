"""Paired differences of two runs on the same queries and archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.bootstrap import RESAMPLES, Difference, paired_differences
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.headline_metrics import query_columns
from bigearthnet_cbir.evaluation.spatial_exclusion import self_match_positions
from bigearthnet_cbir.evaluation.summary import HEADLINE_RANK
from bigearthnet_cbir.report.console import table_line
from bigearthnet_cbir.report.display_names import HEADLINE_NAMES, direction_title
from bigearthnet_cbir.storage.feature_stamps import check_measured_with
from bigearthnet_cbir.storage.features import read_labels, read_names
from bigearthnet_cbir.storage.results import read_neighbours, read_results
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import DoubleArray, IntArray, PatchPair


class _Run(NamedTuple):
    """Data of a run for the comparison.

    Attributes:
        path: path of its retrieval.h5.
        queries: names of the query pairs.
        archive: names of the archive pairs.
        truth: ground truth in which no query may retrieve itself.
        attributes: attributes of the results file.
        top: direction -> (Q, 10) archive indices of the nearest neighbours.
    """

    path: Path
    queries: list[PatchPair]
    archive: list[PatchPair]
    truth: GroundTruth
    attributes: Mapping[str, Any]
    top: Mapping[str, IntArray]

    def columns(self, direction: str) -> DoubleArray:
        """Return the per-query values of a direction, (Q, columns of evaluation)."""
        return query_columns(self.truth, self.top[direction])


def compare(first: Path, second: Path) -> dict[str, dict[str, Difference]]:
    """Return first minus second: direction -> headline metric -> difference, for the directions of both.

    Args:
        first: a retrieval.h5 with its query.h5 and archive.h5 beside it.
        second: another one.

    Raises:
        ResultsError: a file is missing or of another run of retrieval, or the runs differ in queries, archive or
            labels.
    """
    one, other = _read(first), _read(second)
    _check_comparable(one, other)
    return {
        direction: paired_differences(one.columns(direction), other.columns(direction))
        for direction in one.top
        if direction in other.top
    }


def comparison_text(first: Path, second: Path) -> str:
    """Return the comparison as text; arguments and errors as in `compare`."""
    found = compare(first, second)
    lines = [
        f"A {first}",
        f"B {second}",
        f"A minus B, with the 95 % interval of {RESAMPLES:,} paired bootstrap resamples of queries",
        "",
        table_line("", {name: name for name in HEADLINE_NAMES}),
    ]
    for direction, differences in found.items():
        lines += _rows(direction_title(direction), differences)
    return "\n".join(lines)


def _rows(title: str, differences: Mapping[str, Difference]) -> list[str]:
    items = differences.items()
    return [
        table_line(title, {name: f"{item.value:+.3f}" for name, item in items}),
        table_line("  from", {name: f"{item.lower:+.3f}" for name, item in items}),
        table_line("  to", {name: f"{item.upper:+.3f}" for name, item in items}),
        table_line("  excludes zero", {name: "yes" if item.excludes_zero else "no" for name, item in items}),
    ]


def _read(path: Path) -> _Run:
    folder = RunFolder(path.parent)
    results = read_results(path)
    if results.original_only:
        raise ResultsError(f"{path}: the original scripts wrote it, without neighbours; run project/retrieval.py")
    top = {name: read_neighbours(path, name, HEADLINE_RANK).indices for name in results.directions}
    for side, features in (("query", folder.query), ("archive", folder.archive)):
        check_measured_with(features, side, results.attributes, path)
    queries, archive = read_names(folder.query), read_names(folder.archive)
    rows = {len(indices) for indices in top.values()}
    if rows != {len(queries)} or int(results.attributes["archive_size"]) != len(archive):
        raise ResultsError(f"{path}: was not computed from the features in its folder; run project/retrieval.py again")
    labels = read_labels(folder.query), read_labels(folder.archive)
    truth = GroundTruth.of(*labels, self_match_positions(queries, archive))
    return _Run(path, queries, archive, truth, results.attributes, top)


def _check_comparable(one: _Run, other: _Run) -> None:
    """Raise ResultsError unless both runs have the same queries, archive, labels and depth."""
    cure = "compare runs of the same split lists"
    for what, left, right in (("queries", one.queries, other.queries), ("archive", one.archive, other.archive)):
        if left != right:
            common = len(set(left) & set(right))
            raise ResultsError(
                f"{one.path} and {other.path}: their {what} differ, or have another order "
                f"({len(left):,} and {len(right):,} patches, {common:,} in both); {cure}"
            )
    labels = [(run.truth.query_labels, run.truth.archive_labels) for run in (one, other)]
    if not all(np.array_equal(left, right) for left, right in zip(*labels, strict=True)):
        raise ResultsError(f"{one.path} and {other.path}: the same patches have different labels; {cure}")
    depths = [next(iter(run.top.values())).shape[1] for run in (one, other)]
    if depths[0] != depths[1]:
        raise ResultsError(
            f"{one.path} and {other.path}: metrics at rank 10 would be those at ranks {depths[0]} and {depths[1]}; "
            "retrieve both with the same top_k"
        )
