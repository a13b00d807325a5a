"""One disturbed case after another: prepare, disturb, run again, judge, count."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.faults import compare, kept
from tests.faults.client import Ended
from tests.faults.tally import Tally, Tried
from tests.faults.world import PAIRS, WHOLE, Stage, World

LOG_LINE = re.compile(r"\d\d:\d\d:\d\d [DIWEC] |\[\d{4}-\d\d-\d\d [\d:,]+ [IWE] |Token authentication is enabled")
"""A line of this package's log, or of Ray's own, which it writes past Python."""

USER_ERROR = 2


def one_line(ended: Ended) -> str:
    """Return what is wrong with how a refused command ended; empty where it is exit code 2 and one line."""
    rest = [line for line in ended.err.splitlines() if not LOG_LINE.match(line)]
    errors = [line for line in rest if line.startswith("error: ")]
    if ended.code != USER_ERROR:
        return f"{ended.said} instead of exit code 2"
    if len(errors) != 1 or len(rest) != 1:
        return f"{len(errors)} error lines of {len(rest)} lines that are no log: {' | '.join(rest[:3])}"
    return ""


class Drill:
    """What every case needs: the world, the server, draws, a place, a tally.

    Attributes:
        runs: how many times the usual number of cases is wanted.
        problems: of the cases so far, for the assertion at the end of a test.
    """

    def __init__(self, world: World, tally: Tally, place: Path, runs: int, seed: str) -> None:
        self.world, self.server = world, world.server
        self.tally = tally
        self.place = place
        self.runs = runs
        self.random = Random(seed)
        self.problems: list[str] = []
        self.cases = 0

    @contextmanager
    def case(self, stage: Stage) -> Iterator[Path]:
        """Give a folder with what a stage begins with, and remove it afterwards."""
        self.cases += 1
        case = self.world.place(stage, self.place / f"{stage.name}{self.cases}")
        try:
            yield case
        finally:
            shutil.rmtree(case, ignore_errors=True)

    def again(self, stage: Stage, case: Path, seen: Path | None = None) -> str:
        """Run a stage's command once more; return what is wrong with its end, empty where nothing is lost.

        Args:
            stage: what to run.
            case: its folder.
            seen: where this process sees that folder, if elsewhere.
        """
        seen = seen or case
        before = self.world.finished(seen)
        ended = self.server.run(stage.command, [*self.world.arguments(stage, case), *stage.again])
        if ended.code != 0:
            return f"run again: {ended.said}"
        wrong = compare.differences(self.world.undisturbed(stage).results, self.world.results(case, seen))
        if wrong:
            return f"run again: {len(wrong)} results differ: {', '.join(wrong[:4])}"
        twice = kept.again(before, kept.done(ended, PAIRS["test"]), WHOLE)
        return f"run again: {twice}" if twice else ""

    def count(self, stage: Stage, kind: str, rough: str, lost: str, what: str) -> None:
        """Count a case: `rough` is what was wrong with the disturbed command, `lost` with the one after it."""
        problem = "; ".join(part for part in (rough, lost) if part)
        self.tally.add(Tried(stage.name, kind, problem, bool(lost)))
        if problem:
            self.problems.append(", ".join(part for part in (stage.name, kind, what) if part) + f": {problem}")

    def check(self) -> None:
        """Fail where a case did not end well."""
        shown = "\n".join(self.problems[:20])
        assert not self.problems, f"{len(self.problems)} of {self.cases} cases did not end well:\n{shown}"
