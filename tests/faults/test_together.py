"""Two and three commands at once on one folder: at most one goes on, the others name it, and nothing is mixed up."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.faults import compare
from tests.faults.client import Ended, Running, Server
from tests.faults.drill import Drill, one_line
from tests.faults.world import RUN, STAGES, Stage, World

HOLDER = re.compile(r"in use by \w[\w ]* \(process \d+ on \S+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\)")
NOTHING_YET = re.compile(r"no results here; run project/retrieval\.py first")
"""What a report says that begins before the retrieval has written anything."""

TIMES = 2
"""Draws of each case where --runs is 1."""

Command = tuple[str, list[object]]


@pytest.fixture(scope="module")
def without_hdf5_locks(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose HDF5 library takes no locks, as is usual on clusters."""
    server = Server(tmp_path_factory.mktemp("server"), {"HDF5_USE_FILE_LOCKING": "FALSE"})
    try:
        for learned in sorted(world.folder.glob("learned.*")):
            server.ask("load", path=str(learned))
        yield server
    finally:
        server.close()


@pytest.fixture(params=["with HDF5 locks", "without HDF5 locks"])
def locking(request: pytest.FixtureRequest, server: Server) -> Server:
    return server if request.param == "with HDF5 locks" else request.getfixturevalue("without_hdf5_locks")


def at_once(drill: Drill, server: Server, commands: list[Command]) -> list[Ended]:
    """Start the commands within a drawn fraction of a second, and wait for all of them."""
    running: list[Running] = []
    for command, arguments in commands:
        running.append(server.start(command, arguments))
        time.sleep(drill.random.choice((0, 0, 0.01, 0.1, 0.4)))
    return [one.end() for one in running]


def judged(commands: list[Command], ended: list[Ended]) -> str:
    """Return what is wrong: a command must end well, or name the one that holds the folder."""
    for (command, _), one in zip(commands, ended, strict=True):
        if one.code == 0:
            continue
        wrong = one_line(one)
        if wrong:
            return wrong
        if not HOLDER.search(one.err) and not (command == "report" and NOTHING_YET.search(one.err)):
            return f"names no holder: {one.said}"
    return "" if any(one.code == 0 for one in ended) else "none went on"


def retrieval(drill: Drill, case: Path, **keys: object) -> Command:
    """A retrieval of a case's run, with other settings where keys are given."""
    arguments = drill.world.arguments(STAGES["search"], case)
    if keys:
        values = yaml.safe_load((case / RUN / "parameters.yaml").read_text())
        other = case / f"other{len(list(case.glob('other*')))}.yaml"
        values["logging_params"] = {"save_dir": str(case), "name": RUN.name}
        other.write_text(yaml.safe_dump({**values, **keys}))
        arguments = ["--filepath", other, "--no-report"]
    return "retrieve", arguments


def overwriting(drill: Drill, case: Path) -> Command:
    (case / "run.yaml").write_text(yaml.safe_dump(drill.world.settings(case)))
    return "train", [*drill.world.arguments(STAGES["train"], case), "--overwrite"]


def report(drill: Drill, case: Path) -> Command:
    return "report", drill.world.arguments(STAGES["report"], case)


def encoding(drill: Drill, case: Path) -> Command:
    return "encode", drill.world.arguments(STAGES["encode"], case)


def alone(drill: Drill, stage: Stage, case: Path) -> str:
    """Run the stage's command once more, alone; return how its results differ from those of a lone run."""
    others = ("other*.yaml", "run.yaml", "report.html", "checkpoints_model_last.pth.tar")
    for path in [path for name in others for path in case.rglob(name)]:
        path.unlink()  # what the other commands added rightly
    ended = drill.server.run(stage.command, drill.world.arguments(stage, case))
    if ended.code != 0:
        return f"run again: {ended.said}"
    wrong = compare.differences(drill.world.undisturbed(stage).results, drill.world.results(case))
    return f"run again: {len(wrong)} results differ: {', '.join(wrong[:4])}" if wrong else ""


KINDS = {
    "two retrievals": lambda drill, case: [retrieval(drill, case)] * 2,
    "three retrievals": lambda drill, case: [retrieval(drill, case)] * 3,
    "two retrievals, other top_k": lambda drill, case: [retrieval(drill, case), retrieval(drill, case, top_k=7)],
    "three retrievals, other top_k": lambda drill, case: [
        retrieval(drill, case), retrieval(drill, case, top_k=7), retrieval(drill, case, top_k=5)
    ],
    "retrieval and report": lambda drill, case: [retrieval(drill, case), report(drill, case)],
    "retrieval and training anew": lambda drill, case: [retrieval(drill, case), overwriting(drill, case)],
    "training anew and retrieval": lambda drill, case: [overwriting(drill, case), retrieval(drill, case)],
    "two encoders": lambda drill, case: [encoding(drill, case)] * 2,
    "three encoders": lambda drill, case: [encoding(drill, case)] * 3,
}  # fmt: skip
"""What is started -> the commands."""


@pytest.mark.parametrize("kind", KINDS)
def test_at_once(drill: Drill, locking: Server, kind: str) -> None:
    if locking is not drill.server and "encoders" in kind:
        pytest.skip("an encoder writes no HDF5 file")
    stage = STAGES["encode" if "encoders" in kind else "search"]
    for _ in range(TIMES * drill.runs):
        with drill.case(stage) as case:
            commands = KINDS[kind](drill, case)
            ended = at_once(drill, locking, commands)
            how = "" if locking is drill.server else ", HDF5 locks off"
            drill.count(stage, f"{kind} at once{how}", judged(commands, ended), alone(drill, stage, case), "")
    drill.check()
