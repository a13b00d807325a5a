"""The small world that is disturbed: a few pairs, a small network, and the states between the stages."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml
from tests.faults import compare, kept
from tests.faults.client import Server, Watch
from tests.faults.compare import Results
from tests.faults.kept import Work

PAIRS = {"train": 16, "val": 20, "test": 24}
EPOCHS = 2
TOP_K = 10
RUN = Path("group/run")
"""Run folder inside a case; the report shows both names, so they are the same in every case."""

SETTINGS = {
    "backbone": "resnet10", "projection_dim": 8, "out_channels": 4, "batch_size": 8, "epochs": EPOCHS,
    "optimizer": "sgd", "window": 32, "num_workers": 0, "device": "cpu", "precision": "fp32",
    "extract_backend": "torch", "distance": "hamming",
    "exclude_within": 0, "top_k": TOP_K, "num_cpu": 0,
}  # fmt: skip

WHOLE = Work(
    EPOCHS, features=2, embedded=PAIRS["val"] + PAIRS["test"], rows=7 * PAIRS["val"], pairs=sum(PAIRS.values())
)
"""All the work there is."""


@dataclass(frozen=True)
class Stage:
    """One stage of the work, and how it is run again.

    Attributes:
        name: in the tables.
        command: module of bigearthnet_cbir.cli.
        start: state of the run folder that it begins with; None: no run folder.
        phase: of a command that does several stages: which writes are this one's; None: all.
        again: further words of the command after a fault.
    """

    name: str
    command: str
    start: str | None = None
    phase: str | None = None
    again: tuple[str, ...] = ()


STAGES = {
    stage.name: stage
    for stage in (
        Stage("encode", "encode"),
        Stage("train", "train", again=("--resume",)),
        Stage("extract", "retrieve", "trained", phase="extract"),
        Stage("search", "retrieve", "extracted", phase="search"),
        Stage("score", "retrieve", "extracted", phase="score"),
        Stage("report", "report", "retrieved"),
        Stage("index", "index", "trained"),
    )
}


class Change(NamedTuple):
    """One call that changed a file: its number within the command, from 1."""

    number: int
    phase: str
    call: str
    path: str


class Undisturbed(NamedTuple):
    """What a stage gives when nothing happens."""

    results: Results
    changes: list[Change]
    seconds: float


class World:
    """Inputs and states, made once and never changed; cases work on copies.

    Args:
        folder: where it is, or is made.
        server: runs the commands.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.first = folder / "first"  # the case in which the states were made; their files repeat its name
        self._known: dict[str, Undisturbed] = {}
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder):
            if not (folder / "made").exists():
                self._make()
                (folder / "made").touch()
        for learned in sorted(folder.glob("learned.*")):
            server.ask("load", path=str(learned))

    def place(self, stage: Stage, case: Path, seen: Path | None = None) -> Path:
        """Fill a case's folder with what the stage begins with; `seen` is where this process sees it, if elsewhere."""
        seen = seen or case
        seen.mkdir(parents=True, exist_ok=True)
        if stage.command == "train":
            (seen / "run.yaml").write_text(yaml.safe_dump(self.settings(case)))
        if stage.start is not None:
            shutil.copytree(self.folder / "states" / stage.start, seen / RUN)
            parameters = seen / RUN / "parameters.yaml"
            parameters.write_text(parameters.read_text().replace(str(self.first), str(case)))
        return case

    def results(self, case: Path, seen: Path | None = None) -> Results:
        """Return what lies in a case's folder."""
        return compare.everything(seen or case, (case, self.first))

    def settings(self, case: Path, **others: object) -> dict[str, object]:
        """Return the configuration of a run in a case's folder."""
        lists = {f"{split}_csv": str(self.folder / f"{split}.csv") for split in PAIRS}
        stores = {f"bigEarthPthLMDB_{sensor}": str(self.folder / "patches.lmdb") for sensor in ("S1", "S2")}
        logging = {"save_dir": str(case), "name": RUN.name}
        return {**SETTINGS, **lists, **stores, "name": RUN.parent.name, "logging_params": logging, **others}

    def arguments(self, stage: Stage, case: Path) -> list[object]:
        """Return the words of a stage's command in a case's folder."""
        demo = self.folder / "demo"
        return {
            "encode": [
                "--s1-root", demo / "BigEarthNet-S1-v1.0", "--s2-root", demo / "BigEarthNet-v1.0", "--split-from", demo,
                "--output", case / "patches.lmdb", "--splits", case, "--workers", 0, "--quiet",
            ],
            "train": ["--filepath", case / "run.yaml"],
            "retrieve": ["--filepath", case / RUN / "parameters.yaml", "--no-report"],
            "report": ["--filepath", case / RUN],
            "index": ["--filepath", case / RUN],
        }[stage.command]  # fmt: skip

    def undisturbed(self, stage: Stage) -> Undisturbed:
        """Return what a stage gives when nothing happens; found once, whichever process asks first."""
        if stage.name not in self._known:
            note = self.folder / f"undisturbed.{stage.name}.json"
            with only_one(self.folder):
                if not note.exists():
                    note.write_text(json.dumps(self._observe(stage)))
            results, changes, seconds = json.loads(note.read_text())
            self._known[stage.name] = Undisturbed(results, [Change(*change) for change in changes], seconds)
        return self._known[stage.name]

    def finished(self, case: Path) -> Work:
        """Return how much work lies finished in a case's folder."""
        return kept.finished(case, case / RUN, TOP_K, WHOLE)

    def _observe(self, stage: Stage) -> Undisturbed:
        case, log = self.place(stage, self.folder / f"undisturbed.{stage.name}"), self.folder / f"changes.{stage.name}"
        watch = Watch(case, log=log) if self.server.watching else None
        done = self.server.run(stage.command, self.arguments(stage, case), watch=watch)
        if done.code != 0:
            raise RuntimeError(f"the undisturbed {stage.name} ended with {done.said}\n{done.err}")
        found = self.results(case)
        shutil.rmtree(case)
        changes = []
        for line in log.read_text().splitlines() if log.exists() else []:
            number, phase, call, _, path = line.split("\t")
            changes.append(Change(int(number), phase, call, path.removeprefix(f"{case}/")))
        return Undisturbed(found, changes, done.seconds)

    def _make(self) -> None:
        states, case = self.folder / "states", self.first
        counts = [word for split, number in PAIRS.items() for word in (f"--{split}", number)]
        self._learn("make_demo", "--output", self.folder / "demo", *counts, "--workers", 0)
        self._learn("encode", *self.arguments(STAGES["encode"], self.folder))
        self.place(STAGES["train"], case)
        self._learn("train", *self.arguments(STAGES["train"], case))
        (case / RUN / "checkpoints_model_last.pth.tar").unlink()  # nothing later reads it: less to copy
        shutil.copytree(case / RUN, states / "trained")
        self._learn("retrieve", *self.arguments(STAGES["search"], case))
        shutil.copytree(case / RUN, states / "retrieved")
        shutil.copytree(states / "trained", states / "extracted")
        for name in ("query.h5", "archive.h5"):
            shutil.copy(states / "retrieved" / name, states / "extracted")
        self._learn("report", *self.arguments(STAGES["report"], case))
        self._learn("index", *self.arguments(STAGES["index"], case))
        shutil.rmtree(case)

    def _learn(self, command: str, *arguments: object) -> None:
        done = self.server.run(command, arguments, learn=str(self.folder / f"learned.{command}"))
        if done.code != 0:
            raise RuntimeError(f"the undisturbed {command} ended with {done.said}\n{done.err}")


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one of several test processes in."""
    with (folder / "lock").open("w") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX)
        yield
