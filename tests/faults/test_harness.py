"""The harness itself: it disturbs what it says, and it sees what it should see."""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path

import h5py
import pytest
from tests.faults import compare, kept
from tests.faults.__main__ import BEGIN, END, PAGE, RESULTS, render
from tests.faults.client import FAIL, KILL, KILL_HALFWAY, Ended, Watch
from tests.faults.drill import Drill, one_line
from tests.faults.kept import Work
from tests.faults.tally import Tally, Tried, count, table, total
from tests.faults.world import RUN, STAGES

REPORT = STAGES["report"]


def test_every_stage_writes_something_in_its_phase(drill: Drill) -> None:
    """A function that was renamed would leave a stage without writes to kill it before."""
    if not drill.server.watching:
        pytest.skip("no C compiler is at hand for the library that counts writes")
    for stage in STAGES.values():
        changes = drill.world.undisturbed(stage).changes
        assert [change for change in changes if stage.phase in (None, change.phase)], stage.name
        assert [change.number for change in changes] == list(range(1, len(changes) + 1))


@pytest.mark.parametrize("mode", [KILL, KILL_HALFWAY])
def test_the_preloaded_library_kills_at_the_call_it_is_told(drill: Drill, mode: int) -> None:
    if not drill.server.watching:
        pytest.skip("no C compiler is at hand for the library that counts writes")
    changes = drill.world.undisturbed(REPORT).changes
    write = next(change for change in changes if change.call == "write" and change.path.endswith(".tmp"))
    with drill.case(REPORT) as case:
        watch = Watch(case, write.number, mode)
        ended = drill.server.run(REPORT.command, drill.world.arguments(REPORT, case), watch=watch)
        assert ended.code == -signal.SIGKILL
        (left,) = (case / RUN).glob(".report.html.*.tmp")
        assert not (case / RUN / "report.html").exists()
        assert (left.stat().st_size > 0) == (mode == KILL_HALFWAY)
        assert compare.differences(drill.world.undisturbed(REPORT).results, drill.world.results(case))


def test_the_preloaded_library_refuses_as_a_disk_does(drill: Drill) -> None:
    if not drill.server.watching:
        pytest.skip("no C compiler is at hand for the library that counts writes")
    with drill.case(REPORT) as case:
        watch = Watch(case, 1, FAIL, errno.EROFS)
        ended = drill.server.run(REPORT.command, drill.world.arguments(REPORT, case), watch=watch)
        assert ended.code == 2
        assert "Read-only file system" in ended.err


def test_one_changed_value_is_a_difference(drill: Drill) -> None:
    stage = STAGES["search"]
    with drill.case(stage) as case:
        drill.server.run(stage.command, drill.world.arguments(stage, case))
        expected = drill.world.undisturbed(stage).results
        assert not compare.differences(expected, drill.world.results(case))
        with h5py.File(case / RUN / "retrieval.h5", "r+") as file:
            file["s1_s2/distance"][3, 2] += 1
        assert compare.differences(expected, drill.world.results(case)) == ["retrieval.h5/s1_s2/distance"]
        (case / RUN / ".retrieval.h5.rows").mkdir()
        (case / RUN / ".retrieval.h5.rows" / "fused.indices").touch()
        assert len(compare.differences(expected, drill.world.results(case))) == 2


def test_work_done_again_is_seen(drill: Drill) -> None:
    stage = STAGES["extract"]
    with drill.case(stage) as case:
        assert drill.world.finished(case) == Work(epochs=0, features=0, embedded=0, rows=0, pairs=0)
        ended = drill.server.run(stage.command, drill.world.arguments(stage, case))
        done, all_of_it = kept.done(ended, 24), drill.world.finished(case)
        assert done == all_of_it == Work(epochs=0, features=2, embedded=44, rows=140, pairs=0)
        whole = Work(2, 2, 44, 140, 60)
        assert kept.again(Work(0, 0, 0, 0, 0), done, whole) == ""
        assert "1 finished features" in kept.again(Work(0, 1, 0, 0, 0), done, whole)
        assert "8 finished embedded" in kept.again(Work(0, 0, 8, 0, 0), done, whole)
        assert "140 finished rows" in kept.again(Work(0, 0, 0, 140, 0), done, whole)


@pytest.mark.parametrize(
    ("code", "lines", "wrong"),
    [
        (2, ["12:00:00 I a log line", "error: no space; free some"], ""),
        (1, ["error: no space; free some"], "instead of exit code 2"),
        (2, ["Traceback (most recent call last):", "OSError", "error: no space"], "of 3 lines"),
        (2, ["error: one", "error: two"], "2 error lines"),
        (-11, [], "exit code -11"),
    ],
)
def test_one_line_is_one_line(code: int, lines: list[str], wrong: str) -> None:
    said = one_line(Ended(code, "", "\n".join(lines), 0.0))
    assert wrong in said
    assert bool(said) == bool(wrong)


def test_the_table_counts_what_was_tried(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "tally")
    for case in (Tried("train", "killed"), Tried("train", "killed", "traceback"), Tried("search", "full", "x", True)):
        tally.add(case)
    lines = table(count(tally.read())).splitlines()
    assert lines[2:] == ["| full |  | 1 | 1 | 0 | 1 |", "| killed | 2 |  | 2 | 1 | 0 |", "| all | 2 | 1 | 3 | 1 | 1 |"]


def test_cases_of_several_commands_add_up() -> None:
    cases = [Tried("train", "killed"), Tried("train", "killed", "x", True), Tried("search", "full")]
    assert sorted(total([*count(cases[:1]), *count(cases[1:])]), key=str) == sorted(count(cases), key=str)


def test_the_page_holds_the_results_that_are_committed() -> None:
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == render(json.loads(RESULTS.read_text()))
