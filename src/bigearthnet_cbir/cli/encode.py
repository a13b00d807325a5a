"""The command cbir-encode, also project/encode_patches.py."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from bigearthnet_cbir.cli import run
from bigearthnet_cbir.data.pair_filter import BEN14K_ACQUISITIONS, Selection
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.pipelines.encode import encode
from bigearthnet_cbir.pipelines.encode_types import EncodeOptions, EncodeReport, describe, describe_list


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Encode BigEarthNet v1 or v2 patch folders into LMDB patch stores, values unchanged. "
        "After an interruption run the same command again; encoded pairs are kept.",
    )
    paths = parser.add_argument_group("folders")
    paths.add_argument("--s1-root", type=Path, help="folder of the Sentinel-1 patch folders (v1) or scenes (v2)")
    paths.add_argument("--s2-root", type=Path, help="folder of the Sentinel-2 patch folders (v1) or products (v2)")
    paths.add_argument("--output", type=Path, help="LMDB folder for both sensors")
    paths.add_argument("--output-s1", type=Path, help="LMDB folder for Sentinel-1 only")
    paths.add_argument("--output-s2", type=Path, help="LMDB folder for Sentinel-2 only")
    paths.add_argument("--splits", type=Path, help="folder for train.csv, val.csv, test.csv")
    pairs = parser.add_argument_group("pairs")
    pairs.add_argument(
        "--split-from",
        help='source of pairs and splits: "official" (bigearthnet-common\'s lists), a metadata.parquet, or a '
        "folder with train.csv, val.csv, test.csv (default: metadata.parquet next to v2 folders, JSON files of v1)",
    )
    pairs.add_argument("--preset", choices=["ben14k"], help="the BEN-14K benchmark: 14,832 official pairs in Serbia")
    add_up = partial(pairs.add_argument, nargs="+", action="extend", default=[])
    add_up("--countries", help="include only these, e.g. Serbia Portugal")
    add_up("--seasons", help="include only these: Winter Spring Summer Fall")
    add_up("--acquisitions", help="include only these, e.g. 20170719T094029")
    for what in ("snow", "clouds"):
        pairs.add_argument(
            f"--exclude-{what}",
            action=argparse.BooleanOptionalAction,
            help=f"exclude patches with {what} (default: if the source of pairs has this information)",
        )
    pairs.add_argument("--fractions", nargs=3, type=float, default=list(EncodeOptions.fractions), metavar="SHARE")
    pairs.add_argument("--seed", type=int, default=EncodeOptions.seed, help="seed of the splits of --fractions")
    how = parser.add_argument_group("processing")
    workers = min(16, os.cpu_count() or 1)
    how.add_argument("--workers", type=int, default=workers, help="processes; 0 = this one (default %(default)s)")
    how.add_argument("--dry-run", action="store_true", help="print the table from the lists only; write nothing")
    how.add_argument("--lists-only", action="store_true", help="write only the split lists to --splits, no pixels")
    how.add_argument("--quiet", action="store_true", help="no progress bar")
    how.add_argument("--verbose", action="store_true", help="more messages")
    return parser


def _options(given: argparse.Namespace) -> EncodeOptions:
    if given.output is not None and (given.output_s1 is not None or given.output_s2 is not None):
        raise ConfigError("--output is one store for both sensors; give --output, or --output-s1 and --output-s2")
    if given.workers < 0:
        raise ConfigError(f"--workers {given.workers}: must be 0 (no further processes) or more")
    acquisitions, split_from = tuple(given.acquisitions), given.split_from
    if given.preset == "ben14k":
        if acquisitions:
            raise ConfigError("--preset ben14k selects the acquisitions; remove --acquisitions")
        acquisitions, split_from = BEN14K_ACQUISITIONS, split_from or "official"
    selection = Selection(
        countries=tuple(given.countries),
        seasons=tuple(given.seasons),
        acquisitions=acquisitions,
        exclude_snow=given.exclude_snow,
        exclude_clouds=given.exclude_clouds,
    )
    return EncodeOptions(
        s1_root=given.s1_root,
        s2_root=given.s2_root,
        output_s1=given.output or given.output_s1,
        output_s2=given.output or given.output_s2,
        splits=given.splits,
        split_from=split_from,
        selection=selection,
        fractions=tuple(given.fractions),
        seed=given.seed,
        workers=given.workers,
        dry_run=given.dry_run,
        lists_only=given.lists_only,
        progress=not given.quiet,
    )


def _closing_line(options: EncodeOptions, report: EncodeReport) -> str:
    if options.dry_run:
        return "dry run: nothing was written"
    lists = "".join(f"\n{describe_list(state)}" for state in report.lists)
    if options.lists_only:
        return lists.strip()
    rate = report.encoded / max(report.seconds, 1e-9)
    stores = " and ".join(dict.fromkeys(str(path) for path in (options.output_s2, options.output_s1)))
    kept = f" ({report.present:,} were there)" if report.present else ""
    return f"encoded {report.encoded:,} pairs{kept} into {stores}, {report.seconds:.0f} s, {rate:,.0f} pairs/s{lists}"


def main(argv: list[str] | None = None) -> int:
    """Encode patch folders; return 0, 1 if a patch was skipped or a list differs, or 2 for an invalid input."""
    arguments = _parser().parse_args(argv)

    def command() -> int:
        options = _options(arguments)
        report = encode(options)
        print(f"{describe(report)}\n\n{_closing_line(options, report)}")
        return report.exit_code

    return run(command, verbose=arguments.verbose)
