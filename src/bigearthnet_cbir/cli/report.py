"""The command cbir-report, also project/report.py."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.errors import CbirError, ConfigError

logger = logging.getLogger(__name__)

MAX_QUERIES = 100
"""Largest number of queries per direction; more would make the page too large."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write the HTML report of a run, or a comparison of several.")
    parser.add_argument("--filepath", required=True, nargs="+", action="extend", metavar="RUN",
                        help="run folder, or its retrieval.h5 or parameters.yaml; several: a comparison")  # fmt: skip
    parser.add_argument("--queries", type=int, default=8, metavar="N", help="queries per direction (default 8)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the random queries (default 0)")
    parser.add_argument("--output", type=Path, help="path of the page (default: report.html in the run folder)")
    parser.add_argument("--figures", action="store_true", help="also write PNG, CSV and LaTeX into figures/")
    parser.add_argument("--tensorboard", action="store_true", help="also write metrics and a projector for TensorBoard")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write the report of a run, or the comparison of several; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        if not 0 <= arguments.queries <= MAX_QUERIES:
            raise ConfigError(f"--queries is {arguments.queries}; give a whole number from 0 to {MAX_QUERIES}")
        if arguments.seed < 0:
            raise ConfigError(f"--seed is {arguments.seed}; give a whole number >= 0")
        paths = [find_file(given, repository_root()) for given in arguments.filepath]
        from bigearthnet_cbir.pipelines.report import write_report

        written = write_report(
            paths,
            output=arguments.output,
            queries=arguments.queries,
            seed=arguments.seed,
            figures=arguments.figures,
            tensorboard=arguments.tensorboard,
        )
        print(f"report: {written}")

    return run(command)


def print_report(paths: Sequence[Path], output: Path | None = None) -> None:
    """Write the report of finished runs and print its path; failures are only logged."""
    from bigearthnet_cbir.pipelines.report import write_report

    try:
        print(f"report: {write_report(paths, output=output)}")
    except CbirError as error:
        logger.warning("no report was written: %s", error)
