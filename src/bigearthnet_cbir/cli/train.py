"""The command cbir-train, also project/train.py."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.cli.assignments import assignments
from bigearthnet_cbir.config.loader import parse_config, read_mapping
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.pipelines.inputs import check_training_inputs
from bigearthnet_cbir.storage.run_folder import RunFolder, parameters_file

HASH_KEYS: Final = frozenset({"code_bits", "hash_loss"})
"""Keys of hash heads that a command may give in place of the run's own."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a dual-branch encoder from LMDB archives.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--filepath", help="YAML file, relative to the current folder or to project/")
    what.add_argument("--hash", metavar="RUN", help="run folder: train hash heads on its encoder, for code: learned")
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="continue from the last checkpoint of the run, if there is one"
    )
    again.add_argument("--overwrite", action="store_true", help="replace an earlier run of the same name")
    parser.add_argument(
        "--change", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="with --resume: continue with another learning_rate, temperature, precision, clip_norm or epochs; "
        "with --hash: code_bits or hash_loss, where they are not those of the run's parameters.yaml",
    )  # fmt: skip
    return parser


def _train_hash_heads(arguments: argparse.Namespace) -> Path:
    path = parameters_file(find_file(arguments.hash, repository_root(), "--hash"))
    changed = assignments(arguments.change, "--change")
    fixed = sorted(changed.keys() - HASH_KEYS)
    if fixed:
        raise ConfigError(f"--change {' '.join(fixed)}: with --hash only {', '.join(sorted(HASH_KEYS))} may change")
    source = f"{path.name} with --change" if changed else path.name
    config = parse_config({**read_mapping(path), **changed}, source=source, root=repository_root(path))
    from bigearthnet_cbir.pipelines.hashing import train_hash_heads  # torch: only once the YAML is known to be right

    folder = RunFolder.of(path, config.run_folder)
    return train_hash_heads(config, folder, resume=arguments.resume, overwrite=arguments.overwrite)


def main(argv: list[str] | None = None) -> int:
    """Train the run that a YAML file describes; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        if arguments.hash is not None:
            print(f"trained: {_train_hash_heads(arguments)}")
            return
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
