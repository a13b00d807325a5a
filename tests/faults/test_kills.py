"""SIGKILL at any moment: the same command then ends with what an undisturbed run gives, and does no work twice."""

from __future__ import annotations

import signal

import pytest
from tests.faults import compare
from tests.faults.client import KILL, KILL_HALFWAY, Watch
from tests.faults.drill import Drill
from tests.faults.world import STAGES, Change, Stage

KILLED = -signal.SIGKILL
MOMENTS = {"encode": 6, "train": 5, "extract": 15, "report": 4, "index": 8}
WRITES = {"encode": 10, "train": 6, "extract": 6, "search": 10, "score": 10, "report": 4, "index": 10}
"""Cases of each stage where --runs is 1; with more, as many times more, up to every write. What begins with the
extraction goes on with the search and the scores: a moment counts for the stage that it fell into."""

stages = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


def writes_of(drill: Drill, stage: Stage) -> list[Change]:
    """Return the changes of files that a stage makes, those of later stages left out."""
    if not drill.server.watching:
        pytest.skip("no C compiler is at hand for the library that counts writes, or the system has no LD_PRELOAD")
    changes = drill.world.undisturbed(stage).changes
    return [change for change in changes if stage.phase in (None, change.phase)]


@stages
def test_two_undisturbed_runs_are_equal(drill: Drill, stage: Stage) -> None:
    """Without this no comparison below would say anything."""
    expected = drill.world.undisturbed(stage).results
    with drill.case(stage) as case:
        ended = drill.server.run(stage.command, drill.world.arguments(stage, case), thorough_exit=True)
        assert ended.code == 0, ended.err
        assert len(expected) > 50
        assert not compare.differences(expected, drill.world.results(case))


@pytest.mark.parametrize("stage", [STAGES[name] for name in MOMENTS], ids=MOMENTS)
def test_killed_at_a_drawn_moment(drill: Drill, stage: Stage) -> None:
    seconds = drill.world.undisturbed(stage).seconds
    for _ in range(MOMENTS[stage.name] * drill.runs):
        after = drill.random.uniform(0, seconds)
        with drill.case(stage) as case:
            note = drill.place / "phase"
            running = drill.server.start(stage.command, drill.world.arguments(stage, case), phase=str(note))
            ended = running.end(after)
            if ended.code is None:
                phase = note.read_text().strip() if note.exists() else ""
                hit = STAGES.get(phase, stage)
                drill.count(hit, "killed at a drawn moment", "", drill.again(stage, case), f"after {after:.3f} s")
            note.unlink(missing_ok=True)
    drill.check()


@stages
def test_killed_before_a_write(drill: Drill, stage: Stage) -> None:
    """In turn just before the n-th change of a file, and with half of its bytes written."""
    writes = writes_of(drill, stage)
    chosen = drill.random.sample(writes, min(len(writes), WRITES[stage.name] * drill.runs))
    for turn, write in enumerate(chosen):
        halfway = turn % 2 == 1
        kind = "killed in the middle of a write" if halfway else "killed before a write"
        with drill.case(stage) as case:
            watch = Watch(case, write.number, KILL_HALFWAY if halfway else KILL)
            ended = drill.server.run(stage.command, drill.world.arguments(stage, case), watch=watch)
            if ended.code == KILLED:
                what = f"change {write.number}, {write.call} {write.path}"
                drill.count(stage, kind, "", drill.again(stage, case), what)
            else:
                assert ended.code == 0, f"neither killed nor well: {ended.said}"
    drill.check()
