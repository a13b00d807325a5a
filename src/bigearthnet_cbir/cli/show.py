"""The command cbir-show, also utils/utils.py: print the metrics of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.storage.hdf5_verdicts import early_verdicts
from bigearthnet_cbir.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from bigearthnet_cbir.results import RunResults


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Print the retrieval metrics of a run.")
    parser.add_argument("--filepath", required=True, help="parameters.yaml, retrieval.h5 or the run folder")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="ranks to print (default 10)")
    parser.add_argument(
        "--keys", nargs="+", action="extend", metavar="KEY", help="curves to print by rank (default precision recall)"
    )
    parser.add_argument(
        "--direction", nargs="+", action="extend", default=[], choices=tuple(DIRECTIONS),
        help="(default all; by rank: fused)",
    )  # fmt: skip
    parser.add_argument("--against", metavar="RUN", help="another run on the same queries, to print the difference")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print precision, recall and mAP of a run, or its difference to another; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        if arguments.top < 1:
            raise ConfigError(f"--top is {arguments.top}; give a whole number >= 1")
        path = results_file(find_file(arguments.filepath, repository_root()))
        if arguments.against is None:
            _print_run(path, arguments.direction, arguments.keys, arguments.top)
        else:
            _print_comparison(path, results_file(find_file(arguments.against, repository_root(), "--against")))

    return run(command)


def _print_run(path: Path, directions: list[str], keys: list[str] | None, top: int) -> None:
    """Print the metrics of a retrieval.h5 with its baselines; arguments and errors as of the command."""
    folders = RunFolder(path.parent).baselines().values()
    with early_verdicts([path, *(folder.retrieval for folder in folders)]):
        # Imported lazily: NumPy and h5py take as long as the other process, which validates the files meanwhile.
        from bigearthnet_cbir.pipelines.baselines import find_baselines
        from bigearthnet_cbir.report.console import DEFAULT_KEYS, run_text
        from bigearthnet_cbir.storage.results import read_results

        results = read_results(path)
        if keys is not None:
            check_keys(keys, results)
        print(path)
        baselines = {name: read_results(other) for name, other in find_baselines(path).items()}
        print(run_text(results, baselines, directions, keys or DEFAULT_KEYS, top))


def _print_comparison(one: Path, other: Path) -> None:
    """Print the difference of two runs, which is computed from their neighbours and labels."""
    folders = [RunFolder(path.parent) for path in (one, other)]
    with early_verdicts([one, other, *(file for folder in folders for file in (folder.query, folder.archive))]):
        from bigearthnet_cbir.report.compare_runs import comparison_text  # imported lazily: compiled metrics

        print(comparison_text(one, other))


def results_file(path: Path) -> Path:
    """Return the retrieval.h5 of a run folder, of its parameters.yaml, or the file itself."""
    if path.is_dir():
        return RunFolder(path).retrieval
    return RunFolder(path.parent).retrieval if path.suffix in {".yaml", ".yml"} else path


def check_keys(keys: list[str], results: RunResults) -> None:
    """Refuse curves that the file does not have.

    Raises:
        ConfigError: a key is unknown; the message has the known ones.
    """
    known = sorted({key for found in results.directions.values() for key in found.curves})
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise ConfigError(f"--keys {' '.join(unknown)}: not in this file; choose from {', '.join(known)}")
