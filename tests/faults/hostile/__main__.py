"""Command: python -m tests.faults.hostile --runs 2000 --seed 1 [--reader NAME] [--only CASE ...]."""

from __future__ import annotations

import argparse
import sys

from tests.faults.hostile.suite import SUBJECTS, mutate_and_read


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.hostile", description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="damaged files of all readers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--only", type=int, nargs="+", help="these cases only, and say how each ended")
    arguments = parser.parse_args()
    for reader in arguments.reader:
        runs = arguments.runs // len(arguments.reader)
        counts = mutate_and_read(reader, arguments.seed, runs, arguments.only)
        numbers = (counts.tried, counts.refused, counts.same, counts.other, len(counts.failures))
        print(f"{counts.reader:24} " + " ".join(f"{number:6}" for number in numbers), flush=True)
        for failure in counts.failures:
            print(failure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
