"""The command cbir-sweep, also project/multi_train_retrieval.py."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bigearthnet_cbir.checkout import is_checkout, repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.cli.assignments import assignments
from bigearthnet_cbir.cli.report import print_report
from bigearthnet_cbir.config.loader import read_mapping
from bigearthnet_cbir.pipelines.inputs import check_retrieval_inputs, check_training_inputs

if TYPE_CHECKING:
    from bigearthnet_cbir.pipelines.sweep import SweepRun


def _parser(*, has_defaults: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train and evaluate both model types with all four fusions.")
    parser.add_argument("--folder_name", required=True, help="name of the group under save_dir")
    parser.add_argument("--loss_func", required=True, choices=("contrastive", "classification"))
    replaced = "replace those of class Config()" if has_defaults else "all runs share"
    parser.add_argument("--base", metavar="FILE", required=not has_defaults, help=f"YAML file whose keys {replaced}")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="keys for all runs; type and fusion select a part of the grid",
    )  # fmt: skip
    return parser


def main(defaults: type | None = None, argv: list[str] | None = None) -> int:
    """Train and retrieve the grid of both model types and four fusions; return the exit code.

    Args:
        defaults: class whose public attributes are the configuration keys of all runs; without it they come
            from --base.
        argv: command line without the program's name.
    """
    arguments = _parser(has_defaults=defaults is not None).parse_args(argv)

    def command() -> int:
        root = repository_root()
        shared = vars(defaults) if defaults is not None else {}
        values = {name: value for name, value in shared.items() if not name.startswith("_")}
        if arguments.base:
            base = find_file(arguments.base, root, "--base")
            values |= read_mapping(base)
            root = repository_root(base)
        chosen = assignments(arguments.set, "--set")
        from bigearthnet_cbir.pipelines.sweep import plan_sweep

        return _sweep(plan_sweep(values, arguments.folder_name, arguments.loss_func, root, chosen), root)

    return run(command)


def _sweep(runs: list[SweepRun], root: Path) -> int:
    check_training_inputs(runs[0].config)
    check_retrieval_inputs(runs[0].config)
    from bigearthnet_cbir.pipelines.retrieve import retrieve  # imports torch: only after all checks
    from bigearthnet_cbir.pipelines.sweep import MEASURED, run_sweep, table_name, write_table
    from bigearthnet_cbir.pipelines.train import train
    from bigearthnet_cbir.pipelines.training_checks import check_inputs

    check_inputs(runs[0].config)
    group = runs[0].config.run_folder.parent
    yaml_folder = root / "project" / "config" if is_checkout(root) else group
    yaml_folder.mkdir(parents=True, exist_ok=True)
    table, failed = run_sweep(runs, yaml_folder, lambda config: train(config, resume=True), retrieve)
    path = group / table_name(runs)
    if not table.empty:
        write_table(table, path)
        shown = table[[name for name in table if name not in MEASURED and not str(name).startswith("chance")]]
        print(", ".join(f"{name} {value}" for name, value in table[list(MEASURED)].iloc[0].items()))
        print(shown.to_string(index=False, float_format="%.3f"))
        print(f"{len(runs) - len(failed)} of {len(runs)} runs finished; table with chance levels: {path}")
        finished = [run.config for run in runs if run.config.logging_params.name not in failed]
        print_report([config.run_folder for config in finished], path.with_suffix(".html"))
    if failed:
        print(f"failed: {', '.join(failed)}; see the log above; run the same command again to retry them")
    return 1 if failed else 0
