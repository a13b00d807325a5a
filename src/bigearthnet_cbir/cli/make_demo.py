"""The command cbir-make-demo, also project/make_demo.py."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bigearthnet_cbir.cli import run
from bigearthnet_cbir.pipelines.demo import DemoWorld, build_demo


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write a synthetic archive in the layout of BigEarthNet v1: GeoTIFF patch folders and split lists.",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder: new, empty, or with unfinished demo data")
    for split, default in (("train", DemoWorld.train), ("val", DemoWorld.val), ("test", DemoWorld.test)):
        parser.add_argument(f"--{split}", type=int, default=default, help=f"{split} pairs (default %(default)s)")
    parser.add_argument("--seed", type=int, default=DemoWorld.seed, help="seed of the data (default %(default)s)")
    workers = min(8, os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=workers, help="processes; 0 = this one (default %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write, complete or reuse a demo archive; return the exit code."""
    arguments = _parser().parse_args(argv)

    def command() -> None:
        world = DemoWorld(arguments.train, arguments.val, arguments.test, arguments.seed)
        written = build_demo(arguments.output, world, arguments.workers)
        sizes = ", ".join(f"{len(indices):,} {name}" for name, indices in reversed(world.splits().items()))
        state = f"{written:,} pairs written" if written else "complete, reused"
        print(f"demo world: {arguments.output} ({sizes} pairs; {state})")

    return run(command)
