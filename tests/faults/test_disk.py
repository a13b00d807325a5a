"""A disk that is full, read-only or failing: one line, exit code 2, and success with the same results afterwards."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.client import FAIL, Ended, Watch
from tests.faults.drill import Drill, one_line
from tests.faults.test_kills import stages, writes_of
from tests.faults.world import STAGES, Stage

PLENTY = 1 << 30
PAGE = 4096
SIZES = {"encode": 6, "train": 4, "extract": 4, "search": 4, "score": 4, "report": 3, "index": 4}
REFUSALS = {"encode": 5, "train": 4, "extract": 4, "search": 5, "score": 5, "report": 3, "index": 4}
"""Cases of each stage where --runs is 1."""

LEAST_LIMIT = 1 << 15
"""Bytes below which RLIMIT_FSIZE would cut off the log of the command itself."""

ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EROFS", "ESTALE")

searching = [stage for stage in STAGES.values() if stage.name != "score"]
"""Search and score are one command; what is not told apart by a write is counted once."""


def judged(ended: Ended) -> str:
    """Return what is wrong with how a command ended that lacked space; enough space after all is well, too."""
    return "" if ended.code == 0 else one_line(ended)


@contextmanager
def small_disk(drill: Drill, stage: Stage) -> Iterator[tuple[Path, Path, int]]:
    """Give a case on a file system of its own: its folder, where this process sees it, and the bytes it has used."""
    if not drill.server.mounts:
        pytest.skip("this system does not let a process mount a file system of its own")
    drill.cases += 1
    case = drill.place / f"{stage.name}{drill.cases}"
    case.mkdir()
    drill.server.mount(case, PLENTY)
    try:
        seen = drill.server.view(case)
        drill.world.place(stage, case, seen)
        yield case, seen, used(seen)
    finally:
        drill.server.unmount(case)


def used(folder: Path) -> int:
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def growth(drill: Drill, stage: Stage) -> int:
    """Return the bytes that a stage adds to a disk, between its begin and its end."""
    with small_disk(drill, stage) as (case, seen, before):
        ended = drill.server.run(stage.command, drill.world.arguments(stage, case))
        assert ended.code == 0, ended.err
        return used(seen) - before


def largest_file(drill: Drill, stage: Stage) -> int:
    """Return the size of the largest file that a stage writes."""
    with drill.case(stage) as case:
        before = set(case.rglob("*"))
        ended = drill.server.run(stage.command, drill.world.arguments(stage, case))
        assert ended.code == 0, ended.err
        return max(path.stat().st_size for path in {*case.rglob("*")} - before if path.is_file())


@pytest.mark.parametrize("stage", searching, ids=lambda stage: stage.name)
def test_disk_that_fills_up(drill: Drill, stage: Stage) -> None:
    """Every other disk has room for a few pages only, the others for a drawn part of what the stage adds."""
    needed = growth(drill, stage)
    for turn in range(SIZES[stage.name] * drill.runs):
        room = drill.random.randrange(PAGE, min(needed, 16 * PAGE) if turn % 2 else needed, PAGE)
        with small_disk(drill, stage) as (case, seen, before):
            drill.server.mount(case, before + room, again=True)
            ended = drill.server.run(stage.command, drill.world.arguments(stage, case), thorough_exit=True)
            drill.server.mount(case, PLENTY, again=True)
            if ended.code != 0:
                drill.count(stage, "disk full", judged(ended), drill.again(stage, case, seen), f"room for {room:,}")
    drill.check()


@pytest.mark.parametrize("stage", searching, ids=lambda stage: stage.name)
def test_file_size_limit(drill: Drill, stage: Stage) -> None:
    """RLIMIT_FSIZE: what a system offers that lets nobody mount."""
    largest = largest_file(drill, stage)
    if largest <= LEAST_LIMIT:
        pytest.skip(f"no file of this stage has more than {LEAST_LIMIT:,} bytes")
    for _ in range(max(1, SIZES[stage.name] // 2) * drill.runs):
        limit = drill.random.randrange(LEAST_LIMIT, largest)
        with drill.case(stage) as case:
            arguments = drill.world.arguments(stage, case)
            ended = drill.server.run(stage.command, arguments, largest_file=limit, thorough_exit=True)
            if ended.code != 0:
                drill.count(stage, "file size limit", judged(ended), drill.again(stage, case), f"{limit:,} bytes")
    drill.check()


@stages
def test_writes_that_are_refused(drill: Drill, stage: Stage) -> None:
    """From the n-th change of a file on, the file system answers with an error, for each of several reasons."""
    writes = writes_of(drill, stage)
    for turn in range(REFUSALS[stage.name] * drill.runs):
        name = ERRORS[turn % len(ERRORS)]
        write = drill.random.choice(writes)
        with drill.case(stage) as case:
            watch = Watch(case, write.number, FAIL, getattr(errno, name))
            arguments = drill.world.arguments(stage, case)
            ended = drill.server.run(stage.command, arguments, watch=watch, thorough_exit=turn % 4 == 0)
            what = f"{name} from change {write.number} on, {write.call} {write.path}"
            drill.count(stage, f"writes refused ({name})", judged(ended), drill.again(stage, case), what)
    drill.check()


@stages
def test_read_only_file_system(drill: Drill, stage: Stage) -> None:
    with small_disk(drill, stage) as (case, seen, _):
        drill.server.mount(case, PLENTY, again=True, read_only=True)
        ended = drill.server.run(stage.command, drill.world.arguments(stage, case))
        drill.server.mount(case, PLENTY, again=True)
        drill.count(stage, "read-only file system", one_line(ended), drill.again(stage, case, seen), "read-only")
    drill.check()


@stages
def test_folder_without_permission(drill: Drill, stage: Stage) -> None:
    with drill.case(stage) as case:
        folders = [case, *(path for path in case.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        ended = drill.server.run(stage.command, drill.world.arguments(stage, case), obey_permissions=True)
        for folder in folders:
            folder.chmod(0o755)
        drill.count(stage, "folder without permission", one_line(ended), drill.again(stage, case), "mode 555")
    drill.check()
