"""The fault suite: python -m tests.faults [--runs N] [--seed S] [--write] [words for pytest].

Disturbs every stage of the work in every way and prints what was tried, what ended well and what was lost; with
--write the same goes into results.json beside this file and from there into docs/reliability.md. With --add the cases
are added to those that are there, so that the suite can be run in parts, one fault or seed at a time. The exit code is
0 only where every case ended well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.tally import Row, Tally, count, table, total

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results: written by python -m tests.faults --write -->", "<!-- end of results -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Disturb every stage in every way.")
    parser.add_argument("--runs", type=int, default=1, help="times the usual number of cases (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument("--processes", type=int, default=2, help="that test side by side (default 2)")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and the table of {PAGE.name}")
    parser.add_argument("--add", action="store_true", help="like --write, added to the cases of earlier commands")
    given, words = parser.parse_known_args()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        code = run_tests(folder, given.runs, given.seed, given.processes, words)
        rows = count(Tally(folder / "tally.jsonl").read())
        where = file_system(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{table(rows)}")
    if (given.write or given.add) and code != 0:
        print("not written: only results of a run in which every case ended well are kept")
    elif given.write or given.add:
        command = shlex.join(
            ["python", "-m", "tests.faults", "--runs", str(given.runs), "--seed", str(given.seed), *words]
        )
        before = json.loads(RESULTS.read_text()) if given.add else {"commands": [], "rows": []}
        content = {
            "commands": [*before["commands"], command],
            "hardware": f"{hardware()}, {where}",
            "rows": [asdict(row) for row in total([*(Row(**row) for row in before["rows"]), *rows])],
        }
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")
        write_page()
    return code


def run_tests(folder: Path, runs: int, seed: int, processes: int, words: list[str]) -> int:
    """Run the tests with a folder that their processes share; return pytest's exit code."""
    options = {"FAULTS_FOLDER": str(folder), "FAULTS_RUNS": str(runs), "FAULTS_SEED": str(seed)}
    tests = [] if any(word.startswith("tests/") for word in words) else ["tests/faults"]
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "-n", str(processes), "--dist", "load", "--durations", "5",
        f"--basetemp={folder / 'cases'}", *tests, *words,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **options}, check=False).returncode


def hardware() -> str:
    """Return processor, cores, memory and kernel in words."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    model = cpu.partition(":")[2].strip() or platform.processor() or platform.machine()
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Linux {platform.release()}"


def file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is on."""
    place, kind = "", "unknown file system"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, name, *_ = line.split()
        if folder.is_relative_to(mounted) and len(mounted) >= len(place):
            place, kind = mounted, name
    return kind


def render(content: Mapping[str, Any]) -> str:
    """Return the part of the page that the results decide."""
    rows = [Row(**row) for row in content["rows"]]
    commands = "\n".join(f"- `{command}`" for command in content["commands"])
    return f"All cases of these commands, on {content['hardware']}:\n\n{commands}\n\n{table(rows)}"


def write_page() -> None:
    """Put the results into their place in the page."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{render(json.loads(RESULTS.read_text()))}\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
