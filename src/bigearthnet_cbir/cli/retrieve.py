"""The command cbir-retrieve, also project/retrieval.py."""

from __future__ import annotations

import argparse

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.cli.report import print_report
from bigearthnet_cbir.config import Config, load_config
from bigearthnet_cbir.files import folder_lock
from bigearthnet_cbir.pipelines.inputs import check_retrieval_inputs
from bigearthnet_cbir.storage.outside import refuse_outside
from bigearthnet_cbir.storage.run_folder import RunFolder, parameters_file

LEARNING_FREE = "band_statistics"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Search an archive and write the metrics.")
    parser.add_argument("--filepath", required=True, help="run folder, its parameters.yaml, or another YAML file")
    parser.add_argument(
        "--baseline", choices=("untrained", LEARNING_FREE), help="evaluate this baseline instead of the trained encoder"
    )
    parser.add_argument("--recompute", action="store_true", help="compute again even if existing files match")
    parser.add_argument(
        "--allow-different", action="store_true",
        help="continue if the settings of the checkpoint differ from the YAML file; both are recorded",
    )  # fmt: skip
    parser.add_argument("--no-report", action="store_true", help="do not write report.html")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Extract features, search and evaluate; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        path = parameters_file(find_file(arguments.filepath, repository_root()))
        config = load_config(path)
        folder = RunFolder.of(path, config.run_folder)
        if arguments.baseline is None:
            refuse_outside(folder)
        check_retrieval_inputs(config)
        with folder_lock(folder.root, "retrieval"):
            _retrieve_and_report(config, folder, arguments)

    return run(command)


def _retrieve_and_report(config: Config, folder: RunFolder, arguments: argparse.Namespace) -> None:
    from bigearthnet_cbir.pipelines.retrieve import retrieve  # imports torch: only after the YAML is validated
    from bigearthnet_cbir.report.console import describe_search, metrics_table
    from bigearthnet_cbir.storage.results import read_results

    written = retrieve(
        config, folder, baseline=arguments.baseline, recompute=arguments.recompute,
        allow_different=arguments.allow_different,
    )  # fmt: skip
    results = read_results(written)
    print(describe_search(results))
    print(metrics_table(results.directions, {}, arguments.baseline or ""))
    print(f"retrieved: {written}")
    if arguments.baseline is None and not folder.baseline(LEARNING_FREE).retrieval.exists():
        print(f"no learning-free baseline yet; add --baseline {LEARNING_FREE} to the same command to compute it")
    # The page shows the run with its baselines; a baseline that is computed first has no run yet.
    if folder.retrieval.exists() and not arguments.no_report:
        print_report([folder.root])
