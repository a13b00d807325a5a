"""Ray: whatever dies, the results are the same or one line says what died, and no process is left behind."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import yaml
from tests.faults import compare
from tests.faults.client import Ended, Running
from tests.faults.drill import USER_ERROR, Drill, one_line
from tests.faults.kept import ROW_FILES
from tests.faults.world import RUN, STAGES, World

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.synthetic import acquisition_of
from bigearthnet_cbir.storage.features import FUSED_FEATURE, S1_FEATURE, S2_FEATURE, write_features

SEARCH = STAGES["search"]
QUERIES, ARCHIVE, WIDTH = 2000, 40_000, 32
MARK = "FAULTS_CASE"
INTERRUPTED = 130
ENDED_BY_RAY = 1
"""Ray ends its driver with this code, past all of Python, where the driver's own node died."""

PATIENCE = 60
"""Seconds for Ray's processes to notice that their driver died."""

MOST = 5
"""Cases of a kind, however large --runs is: starting Ray takes seconds."""


def write_vectors(path: Path, rows: int, first: int) -> None:
    """Replace a feature file by a larger one of the same fingerprint, so that a search takes seconds."""
    with h5py.File(path) as file:
        attributes = {name: file.attrs[name] for name in ("fingerprint", "split", "checkpoint", "configuration")}
    generator = np.random.default_rng(first)
    one, two = (generator.standard_normal((rows, WIDTH), np.float32) for _ in range(2))
    columns: dict[str, Any] = {FUSED_FEATURE: np.concatenate((one, two), axis=1), S1_FEATURE: one, S2_FEATURE: two}
    columns["label"] = (generator.random((rows, len(CLASSES))) < 0.2).astype(np.uint8)
    pairs = [acquisition_of(first + number).names for number in range(rows)]
    with write_features(path, pairs, CLASSES, attributes) as writer:
        writer.append(columns)


class RayCase:
    """A retrieval of many vectors on Ray workers, in a case's folder."""

    def __init__(self, drill: Drill, case: Path, vectors: Path) -> None:
        self.drill, self.case = drill, case
        for file in vectors.glob("*.h5"):
            (case / RUN / file.name).write_bytes(file.read_bytes())
        self.mark = uuid.uuid4().hex
        self.environment = {MARK: self.mark}
        self.constants: dict[str, int] = {"search.parallel.PAIRS_PER_TASK": 1}  # many small tasks

    def start(self, **keys: object) -> Running:
        """Start the retrieval; without keys in its own process, without Ray."""
        values = yaml.safe_load((self.case / RUN / "parameters.yaml").read_text())
        values |= {"distance": "cosine", "top_k": 20, "exclude_within": None, "num_cpu": 2 if keys else 0, **keys}
        path = self.case / RUN / "parameters.yaml"
        path.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}))
        return self.drill.server.start(
            "retrieve", ["--filepath", path, "--no-report"], environment=self.environment, constants=self.constants
        )

    def processes(self) -> list[psutil.Process]:
        """Everything that the retrieval started, also what has another parent by now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wait_for(self, word: str) -> psutil.Process:
        """Return the first process whose command line has a word in it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for process in self.processes():
                with suppress(psutil.Error):
                    if any(word in part for part in process.cmdline()):
                        return process
            time.sleep(0.02)
        raise AssertionError(f"no process {word} within {PATIENCE} s")

    def left(self) -> str:
        """Return what is still there of the retrieval's processes, and end it."""
        deadline = time.monotonic() + PATIENCE
        while (still := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in still:
            with suppress(psutil.Error):
                process.kill()
        return f"{len(still)} processes were left behind" if still else ""

    def results(self) -> compare.Results:
        """Everything that retrieval.h5 says but the number of workers."""
        found = compare.hdf5(self.case / RUN / "retrieval.h5", (self.case, self.drill.world.first))
        return {name: value for name, value in found.items() if "@configuration" not in name}


@pytest.fixture(scope="module")
def vectors(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    for name, rows, first in (("query.h5", QUERIES, 0), ("archive.h5", ARCHIVE, QUERIES)):
        (folder / name).write_bytes((world.folder / "states" / "extracted" / name).read_bytes())
        write_vectors(folder / name, rows, first)
    return folder


@pytest.fixture(scope="module")
def expected(world: World, vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> compare.Results:
    """What the same search gives without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    drill = Drill(world, None, folder, 1, "")  # type: ignore[arg-type]
    with drill.case(SEARCH) as case:
        alone = RayCase(drill, case, vectors)
        ended = alone.start().end()
        assert ended.code == 0, ended.err
        return alone.results()


@contextmanager
def ray_case(drill: Drill, vectors: Path) -> Iterator[RayCase]:
    with drill.case(SEARCH) as case:
        one = RayCase(drill, case, vectors)
        try:
            yield one
        finally:
            for process in one.processes():
                with suppress(psutil.Error):
                    process.kill()


def finish(one: RayCase, expected: compare.Results) -> str:
    """Run the same search once more, undisturbed and without Ray; return what is wrong."""
    ended = one.start().end()
    if ended.code != 0:
        return f"run again: {ended.said}"
    wrong = compare.differences(expected, one.results())
    return f"run again: {len(wrong)} results differ: {', '.join(wrong[:4])}" if wrong else ""


def at_work(one: RayCase) -> psutil.Process:
    """Return a worker at a drawn moment after the first was seen at work."""
    one.wait_for("ray::_work")
    time.sleep(one.drill.random.uniform(0, 1))
    return one.wait_for("ray::_work")


def kill_worker(one: RayCase, running: Running) -> None:
    at_work(one).kill()


def kill_raylet(one: RayCase, running: Running) -> None:
    at_work(one)
    one.wait_for("raylet/raylet").kill()


def kill_head(one: RayCase, running: Running) -> None:
    at_work(one)
    one.wait_for("gcs_server").kill()


def interrupt(one: RayCase, running: Running) -> None:
    at_work(one)
    running.kill(signal.SIGINT)


def kill_driver(one: RayCase, running: Running) -> None:
    at_work(one)
    running.kill(signal.SIGKILL)


Disturbance = Callable[[RayCase, Running], None]
ENDS: dict[str, tuple[Disturbance, tuple[int, ...]]] = {
    "Ray worker killed": (kill_worker, (0,)),
    "Ray's only node killed": (kill_raylet, (0, USER_ERROR, ENDED_BY_RAY)),
    "Ray's head killed": (kill_head, (0, USER_ERROR)),
    "driver interrupted": (interrupt, (INTERRUPTED,)),
    "driver killed": (kill_driver, (-signal.SIGKILL,)),
}
"""What happens -> how, and the exit codes that it may end with."""


@pytest.mark.parametrize("kind", ENDS)
def test_a_part_of_ray_dies(drill: Drill, vectors: Path, expected: compare.Results, kind: str) -> None:
    disturb, codes = ENDS[kind]
    for _ in range(min(drill.runs, MOST)):
        with ray_case(drill, vectors) as one:
            running = one.start(num_cpu=2)
            disturb(one, running)
            drill.count(SEARCH, kind, judged(one, running.end(), codes, expected), finish(one, expected), "")
    drill.check()


def judged(one: RayCase, ended: Ended, codes: tuple[int, ...], expected: compare.Results) -> str:
    """Return what is wrong with how a disturbed search ended, or what it left running."""
    rough = ""
    if ended.code not in codes:
        rough = f"{ended.said} instead of one of {codes}"
    elif ended.code in (USER_ERROR, ENDED_BY_RAY):
        rough = one_line(ended._replace(code=USER_ERROR))
    elif ended.code == 0 and compare.differences(expected, one.results()):
        rough = "the results differ from those of a search without Ray"
    return "; ".join(part for part in (rough, one.left()) if part)


def test_object_store_that_is_too_small(drill: Drill, world: World, tmp_path: Path) -> None:
    """The archive alone is larger than the store, and Ray may not spill it to the disk."""
    rows = 300_000
    for name, number in (("query.h5", 50), ("archive.h5", rows)):
        (tmp_path / name).write_bytes((world.folder / "states" / "extracted" / name).read_bytes())
        write_vectors(tmp_path / name, number, number)
    with ray_case(drill, tmp_path) as one:
        assert one.start().end().code == 0
        expected = one.results()
        (one.case / RUN / "retrieval.h5").unlink()
        store = 80 << 20
        one.constants["search.parallel_session.LEAST_STORE"] = store - rows * 2 * WIDTH * 4 * 7 // 4
        one.environment["RAY_automatic_object_spilling_enabled"] = "0"
        rough = judged(one, one.start(num_cpu=2).end(), (0, USER_ERROR), expected)
        drill.count(SEARCH, "Ray's object store too small", rough, finish(one, expected), "")
    drill.check()


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    two.other = two.add_node(num_cpus=1, object_store_memory=100 << 20)
    two.wait_for_nodes()
    try:
        yield two
    finally:
        two.shutdown()


@pytest.mark.parametrize("kind", ["one of two nodes killed", "head of a cluster killed"])
def test_a_cluster_loses_a_node(
    drill: Drill, vectors: Path, expected: compare.Results, cluster: Any, kind: str
) -> None:
    is_head = kind.startswith("head")
    with ray_case(drill, vectors) as one:
        running = one.start(num_cpu=2, ray_address=cluster.address)
        rows = one.case / RUN / ROW_FILES / "fused.indices"
        while not rows.exists():
            time.sleep(0.02)
        cluster.remove_node(cluster.head_node if is_head else cluster.other, allow_graceful=False)
        rough = judged(one, running.end(), (USER_ERROR, ENDED_BY_RAY) if is_head else (0,), expected)
        drill.count(SEARCH, kind, rough, finish(one, expected), "")
    drill.check()
