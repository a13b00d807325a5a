"""The command cbir-train, also project/train.py."""

from __future__ import annotations

import argparse
import os

from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.cli.assignments import assignments
from bigearthnet_cbir.config.loader import parse_config, read_mapping, repository_root
from bigearthnet_cbir.pipelines.inputs import check_training_inputs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a dual-branch encoder from LMDB archives.")
    parser.add_argument("--filepath", required=True, help="YAML file, relative to the current folder or to project/")
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="continue from the last checkpoint of the run, if there is one"
    )
    again.add_argument("--overwrite", action="store_true", help="replace an earlier run of the same name")
    parser.add_argument(
        "--change", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="with --resume: continue with another learning_rate, temperature, precision, clip_norm or epochs",
    )  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Train the run that a YAML file describes; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        path = find_file(arguments.filepath, repository_root())
        changed = assignments(arguments.change, "--change")
        source = f"{path.name} with --change" if changed else path.name
        config = parse_config({**read_mapping(path), **changed}, source=source, root=repository_root(path))
        check_training_inputs(config)
        from bigearthnet_cbir.pipelines.train import train  # imports torch: only after all checks

        folder = train(config, resume=arguments.resume, overwrite=arguments.overwrite, change=changed)
        if os.environ.get("RANK", "0") == "0":  # only the first process of torchrun prints
            print(f"trained: {folder}")

    return run(command)
