"""Files that vanish between the stages or while one runs: one line, exit code 2, and success when they are back."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from tests.faults import compare
from tests.faults.client import Ended
from tests.faults.drill import Drill, one_line
from tests.faults.world import RUN, STAGES, Stage

NEEDED = {
    "train": ["train.csv", "val.csv", "patches.lmdb", "patches.lmdb/data.mdb"],
    "extract": ["test.csv", "patches.lmdb/data.mdb", RUN / "checkpoints_model_best.pth.tar"],
    "search": ["val.csv", RUN / "query.h5", RUN / "archive.h5", RUN / "checkpoints_model_best.pth.tar"],
    "report": [RUN / "retrieval.h5", RUN / "archive.h5", RUN / "query.h5", "patches.lmdb"],
}
"""Stage -> what it reads, below a case's folder."""

WHILE_RUNNING = 1
"""Cases of each file where --runs is 1."""


class Own:
    """A case with inputs of its own, which may be taken away, and what it gives when they are not."""

    def __init__(self, drill: Drill, stage: Stage, case: Path) -> None:
        self.drill, self.stage, self.case = drill, stage, case
        self._before = case.with_name(f"{case.name}.before")
        self.expected = self._expected()

    def _expected(self) -> compare.Results:
        world = self.drill.world
        world.place(self.stage, self.case)
        for name in ("train.csv", "val.csv", "test.csv"):
            shutil.copy(world.folder / name, self.case)
        shutil.copytree(world.folder / "patches.lmdb", self.case / "patches.lmdb")
        for path in self.case.rglob("*.yaml"):
            path.write_text(path.read_text().replace(str(world.folder), str(self.case)))
        shutil.copytree(self.case, self._before)
        ended = self.run()
        assert ended.code == 0, ended.err
        self.seconds = ended.seconds
        return self.drill.world.results(self.case)

    def run(self, *more: str) -> Ended:
        return self.drill.server.run(self.stage.command, [*self.arguments(), *more])

    def arguments(self) -> list[object]:
        return self.drill.world.arguments(self.stage, self.case)

    def reset(self) -> None:
        shutil.rmtree(self.case)
        shutil.copytree(self._before, self.case)

    def back(self, name: Path) -> str:
        """Put a file back; return what is wrong with the same command then, empty where nothing is."""
        source, target = self._before / name, self.case / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif not target.exists():
            shutil.copy2(source, target)  # with its time: an archive is known by it
        ended = self.run(*self.stage.again)
        if ended.code != 0:
            return f"run again: {ended.said}"
        wrong = compare.differences(self.expected, self.drill.world.results(self.case))
        return f"run again: {len(wrong)} results differ: {', '.join(wrong[:4])}" if wrong else ""


@pytest.mark.parametrize("stage", [STAGES[name] for name in NEEDED], ids=NEEDED)
def test_file_that_vanishes(drill: Drill, stage: Stage) -> None:
    """Before the command, and at drawn moments of it."""
    own = Own(drill, stage, drill.place / stage.name)
    for name in NEEDED[stage.name]:
        for moment in range(1 + WHILE_RUNNING * drill.runs):
            own.reset()
            after = drill.random.uniform(0, own.seconds) if moment else 0.0
            if not moment:
                remove(own.case / name)
            running = drill.server.start(stage.command, own.arguments())
            if moment:
                time.sleep(after)
                remove(own.case / name)
            ended = running.end()
            drill.cases += 1
            kind = "file vanishes meanwhile" if moment else "file is gone"
            rough = "" if ended.code == 0 else one_line(ended)
            drill.count(stage, kind, rough, own.back(Path(name)), f"{name} after {after:.2f} s")
    drill.check()


def remove(path: Path) -> None:
    if path.is_dir():
        path.rename(path.with_name("elsewhere"))
        shutil.rmtree(path.with_name("elsewhere"))
    else:
        path.unlink(missing_ok=True)
