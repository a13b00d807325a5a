"""The command cbir-evaluate, also project/evaluate.py: evaluates embeddings from files."""

from __future__ import annotations

import argparse
from typing import Any

from bigearthnet_cbir.checkout import repository_root
from bigearthnet_cbir.cli import find_file, run
from bigearthnet_cbir.cli.assignments import assignments
from bigearthnet_cbir.cli.report import print_report
from bigearthnet_cbir.config.schema import KEYS
from bigearthnet_cbir.config.validators import Choice


def _choices(key: str) -> tuple[str, ...]:
    rule = KEYS[key].metadata["rule"]
    assert isinstance(rule, Choice)
    return rule.options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Evaluate embeddings of any model with the metrics of this project (docs/embeddings.md)."
    )
    files: dict[str, Any] = {"required": True, "nargs": "+", "action": "extend", "metavar": "FILE"}
    parser.add_argument("--queries", **files, help=".h5, .npz, .npy or .parquet; one file, or one file per sensor")
    parser.add_argument("--archive", **files, help="the same for the archive; with --protocol both may be one file")
    parser.add_argument("--name", metavar="MODEL", help="name of the model (default: name of the query file)")
    parser.add_argument("--output", metavar="RUN", help="run folder to write (default: logs/embeddings/MODEL)")
    parser.add_argument(
        "--sensor", choices=("s1", "s2", "fused"),
        help="sensor of a matrix whose name does not give it (default: the sensor of the patch names, fused for both)",
    )  # fmt: skip
    parser.add_argument("--labels", metavar="SOURCE", help="metadata.parquet or LMDB folder with the labels")
    parser.add_argument(
        "--protocol", choices=("csmae", "original", "ben14k"),
        help="restrict the rows to the lists of this protocol, in their order (default: all rows)",
    )  # fmt: skip
    parser.add_argument(
        "--splits", metavar="SOURCE",
        help="lists of the protocol: official (BigEarthNet v1), metadata.parquet, or a folder of train/val/test.csv",
    )  # fmt: skip
    parser.add_argument(
        "--fusion", choices=_choices("fusion"), help="how to fuse s1 and s2 if the files have no fused vectors"
    )
    parser.add_argument("--distance", choices=_choices("distance"), default="cosine", help="(default cosine)")
    parser.add_argument("--top-k", type=int, default=1000, metavar="K", help="results per query (default 1000)")
    parser.add_argument(
        "--exclude-within", type=int, metavar="R",
        help="evaluate also without archive patches within R patches or of the same acquisition",
    )  # fmt: skip
    parser.add_argument(
        "--num-cpu", type=int, default=0, metavar="N", help="Ray workers (default 0: search in this process)"
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="further keys of the evaluation, as in a YAML file",
    )  # fmt: skip
    parser.add_argument("--no-report", action="store_true", help="do not write report.html")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Evaluate embeddings from files; return the exit code."""
    arguments = _parser().parse_args(argv)
    return run(lambda: _evaluate_and_report(arguments))


def _evaluate_and_report(arguments: argparse.Namespace) -> None:
    options = {key: getattr(arguments, key) for key in ("distance", "top_k", "exclude_within", "num_cpu", "fusion")}
    settings = {key: value for key, value in options.items() if value is not None}
    settings |= assignments(arguments.set, "--set")
    root = repository_root()
    given = {
        option: [find_file(file, root, f"--{option}") for file in getattr(arguments, option)]
        for option in ("queries", "archive")
    }
    labels = arguments.labels and find_file(arguments.labels, root, "--labels")
    splits = arguments.splits
    if splits not in (None, "official"):
        splits = find_file(splits, root, "--splits")
    from bigearthnet_cbir.pipelines.evaluate_files import evaluate_files  # imports torch, so after the checks
    from bigearthnet_cbir.pipelines.outside_runs import check_measured
    from bigearthnet_cbir.report.console import describe_search, metrics_table
    from bigearthnet_cbir.storage.results import read_results

    check_measured(settings)
    written = evaluate_files(
        given["queries"], given["archive"], name=arguments.name, output=arguments.output, sensor=arguments.sensor,
        labels=labels, protocol=arguments.protocol, splits=splits, **settings,
    )  # fmt: skip
    results = read_results(written)
    print(f"model {results.attributes['model']}, vectors from files")
    print(describe_search(results))
    print(metrics_table(results.directions, {}))
    print(f"evaluated: {written}")
    if not arguments.no_report:
        print_report([written.parent])
