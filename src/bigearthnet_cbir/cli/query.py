"""The command cbir-query, also project/query.py."""

from __future__ import annotations

import argparse
import math
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.query.filters import Filters
from bigearthnet_cbir.query.index import SIDES

if TYPE_CHECKING:
    from bigearthnet_cbir.pipelines.query import Question

SIGNED = ("--at", "--box")
"""Options whose value may start with a minus sign."""

_DISTANCES = ("cosine", "euclidean", "chi2", "hamming")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Search the index of a run for similar patches. Build the index with project/index.py.",
        epilog="Filters apply before the search, so --top patches are found if that many pass the filters.",
    )
    parser.add_argument("--filepath", required=True, metavar="RUN", help="run folder, or its parameters.yaml")
    _add_queries(parser.add_argument_group("query; give one of --patch, --s2 and --s1, --at, --like"))
    how = parser.add_argument_group("search")
    how.add_argument(
        "--sensor", choices=SIDES, help="vector of the query (default: the given sensor, or the same as --in)"
    )
    how.add_argument("--in", choices=SIDES, dest="archive", help="vectors of the archive (default: fused)")
    how.add_argument("--top", type=int, default=20, metavar="K", help="number of results (default 20)")
    how.add_argument("--distance", choices=_DISTANCES, help="(default: that of the run)")
    _add_filters(parser.add_argument_group("filters"))
    _add_outputs(parser.add_argument_group("output files, in addition to the printed table"))
    return parser


def _add_queries(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--patch", metavar="NAME", help="Sentinel-1 or Sentinel-2 name of a patch in the index")
    group.add_argument("--s2", type=Path, metavar="PATH", help="Sentinel-2 patch folder, or a GeoTIFF with named bands")
    group.add_argument("--s1", type=Path, metavar="PATH", help="the same for Sentinel-1; both may be given")
    group.add_argument("--at", metavar="LON,LAT", help="the patch at this point, in degrees, e.g. 13.72,48.22")
    group.add_argument(
        "--like", nargs="+", action="extend", default=[], metavar="NAME", help="relevant patches (relevance feedback)"
    )
    group.add_argument(
        "--unlike",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="with --like: patches that are not relevant",
    )
    group.add_argument(
        "--feedback", choices=("rocchio", "logistic"), default="rocchio",
        help="method of relevance feedback (default rocchio; logistic needs five patches of each kind)",
    )  # fmt: skip


def _add_filters(group: argparse._ArgumentGroup) -> None:
    add_up = partial(group.add_argument, nargs="+", action="extend", default=[])
    add_up("--label", metavar="CLASS", help="results have all of these classes")
    add_up("--any-label", metavar="CLASS", help="results have at least one of these classes")
    add_up("--without-label", metavar="CLASS", help="results have none of these classes")
    add_up("--country", metavar="NAME", help="results are in one of these countries")
    add_up("--season", metavar="NAME", help="Winter, Spring, Summer, Fall")
    add_up("--split", metavar="NAME", help="train, val, test")
    group.add_argument("--from", dest="since", metavar="DATE", help="first Sentinel-2 acquisition day, YYYY-MM-DD")
    group.add_argument("--to", dest="until", metavar="DATE", help="last Sentinel-2 acquisition day")
    group.add_argument("--box", metavar="W,S,E,N", help="the patch centre is in this box, in degrees")
    group.add_argument(
        "--exclude-within", type=int, metavar="R",
        help="exclude patches at most R patches from the query, or of the same acquisition",
    )  # fmt: skip


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--csv", type=Path, metavar="FILE", help="results as a table")
    group.add_argument("--geojson", type=Path, metavar="FILE", help="results as points, e.g. for QGIS")
    group.add_argument("--json", type=Path, metavar="FILE", help="query and results")
    group.add_argument("--html", type=Path, metavar="FILE", help="page with images, in one file")
    group.add_argument("--tiffs", type=Path, metavar="DIR", help="patches as georeferenced GeoTIFFs")


def main(argv: list[str] | None = None) -> int:
    """Search an index and print the results; return the exit code."""
    arguments = _parser().parse_args(_joined(sys.argv[1:] if argv is None else argv))

    def command() -> None:
        path = find_file(arguments.filepath, repository_root())
        folder = path if path.is_dir() else path.parent
        question = _question(arguments)
        from bigearthnet_cbir.pipelines.index_state import open_current_index
        from bigearthnet_cbir.pipelines.query import ask
        from bigearthnet_cbir.pipelines.query_output import write_answer
        from bigearthnet_cbir.query.table import answer_table

        index = open_current_index(folder)
        answer = ask(index, question, folder)
        print(answer_table(answer, shutil.get_terminal_size((80, 24)).columns))
        files = {name: getattr(arguments, name) for name in ("csv", "geojson", "json", "html", "tiffs")}
        for written in write_answer(answer, index, {name: path for name, path in files.items() if path is not None}):
            print(f"written: {written}")

    return run(command)


def _joined(words: Sequence[str]) -> list[str]:
    """Return the arguments with negative numbers joined to their option, as argparse requires."""
    found: list[str] = []
    for word in words:
        if found and found[-1] in SIGNED and re.match(r"-[\d.]", word):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _question(given: argparse.Namespace) -> Question:
    from bigearthnet_cbir.pipelines.query import Question

    if given.top < 1:
        raise ConfigError(f"--top is {given.top}; give a whole number >= 1")
    filters = Filters(
        labels=tuple(given.label),
        any_labels=tuple(given.any_label),
        without_labels=tuple(given.without_label),
        countries=tuple(given.country),
        seasons=tuple(given.season),
        splits=tuple(given.split),
        since=_day("--from", given.since),
        until=_day("--to", given.until),
        box=None if given.box is None else _box(given.box),
        exclude_within=given.exclude_within,
    )
    at = None if given.at is None else _numbers("--at", given.at, 2, "longitude,latitude, as in 13.72,48.22")
    return Question(
        patch=given.patch, s2=given.s2, s1=given.s1, at=None if at is None else (at[0], at[1]),
        like=tuple(given.like), unlike=tuple(given.unlike), method=given.feedback, sensor=given.sensor,
        archive=given.archive, distance=given.distance, top=given.top, filters=filters,
    )  # fmt: skip


def _box(text: str) -> tuple[float, float, float, float]:
    west, south, east, north = _numbers("--box", text, 4, "west,south,east,north, as in 5.5,47.2,15,55")
    return west, south, east, north


def _numbers(option: str, text: str, count: int, rule: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ConfigError(f"{option} is {text[:80]!r}; give {rule}")
    return found


def _day(option: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}; give a date as YYYY-MM-DD") from error
