"""One small world for all test processes, a warm server for each, and draws that a seed decides."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.client import Server
from tests.faults.drill import Drill
from tests.faults.tally import Tally
from tests.faults.world import World

RUNS, SEED, FOLDER = "FAULTS_RUNS", "FAULTS_SEED", "FAULTS_FOLDER"
"""How `python -m tests.faults` tells its options to the test processes."""


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this session share."""
    given = os.environ.get(FOLDER)
    base = tmp_path_factory.getbasetemp()  # with xdist each process has its own inside the session's
    folder = Path(given) if given else (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "faults"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    warm = Server(tmp_path_factory.mktemp("server"))
    try:
        yield warm
    finally:
        warm.close()


@pytest.fixture(scope="session")
def world(shared: Path, server: Server) -> World:
    return World(shared / "world", server)


@pytest.fixture(scope="session")
def tally(shared: Path) -> Tally:
    return Tally(shared / "tally.jsonl")


@pytest.fixture
def drill(
    world: World, tally: Tally, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Drill]:
    place = tmp_path_factory.mktemp("cases")
    seed = f"{os.environ.get(SEED, '0')} {request.node.name}"
    try:
        yield Drill(world, tally, place, int(os.environ.get(RUNS, "1")), seed)
    finally:
        shutil.rmtree(place, ignore_errors=True)
