"""The command cbir-index, also project/index.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.data.splits import SPLITS
from bigearthnet_cbir.pipelines.inputs import check_index_inputs
from bigearthnet_cbir.storage.outside import is_outside
from bigearthnet_cbir.storage.run_folder import RunFolder, parameters_file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Build the index of a run, which project/query.py and project/serve.py search. "
        "After an interruption, run the same command again; it continues after the last saved block.",
    )
    parser.add_argument("--filepath", required=True, metavar="RUN", help="run folder, or its parameters.yaml")
    parser.add_argument(
        "--splits", nargs="+", action="extend", metavar="SPLIT",
        help="train, val, test (default: these three), or all: these and all other pairs of the archive",
    )  # fmt: skip
    parser.add_argument(
        "--json-root", type=Path, metavar="FOLDER",
        help="folder of version 1 patch folders of one sensor; locations are read from their JSON files "
        "(default: from the patch names)",
    )  # fmt: skip
    parser.add_argument("--recompute", action="store_true", help="build again even if the existing index matches")
    parser.add_argument(
        "--allow-different", action="store_true",
        help="continue if the settings of the checkpoint differ from the YAML file; both are recorded",
    )  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Build the index of a run; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        path = find_file(arguments.filepath, repository_root())
        splits = arguments.splits or SPLITS
        config = load_config(parameters_file(path))
        if not is_outside(RunFolder.of(path, config.run_folder)):  # external vectors are all that such a run has
            check_index_inputs(config, splits)
        from bigearthnet_cbir.pipelines.index import build_index  # imports torch: only after the inputs are checked

        written = build_index(
            path, splits=splits, json_root=arguments.json_root,
            recompute=arguments.recompute, allow_different=arguments.allow_different,
        )  # fmt: skip
        print(f"index: {written}")

    return run(command)
