"""What dies in the middle of a search costs time and nothing else: a worker, a node of a cluster, the caller's wish."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import psutil
import pytest
from tests.search.oracles import assert_same

from bigearthnet_cbir.search import ray_backend as parallel
from bigearthnet_cbir.search.knn import concat_neighbours, search
from bigearthnet_cbir.search.ray_backend import iter_search_on_ray, ray_session, search_on_ray

pytestmark = pytest.mark.slow

CODES = np.random.default_rng(0).integers(0, 256, (60_000, 32), dtype=np.uint8)
K = 200


@pytest.fixture
def many_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PAIRS_PER_TASK", 1)
    monkeypatch.setattr(parallel, "SHARD_BYTES", CODES.nbytes // 3)


def kill_one_busy_worker(killed: list[int], title: str = "ray::_work") -> None:
    """Kill a Ray worker of this very process in the middle of a task."""
    for _ in range(2000):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if any(title in part for part in child.cmdline()):
                    child.kill()
                    killed.append(child.pid)
                    return
        time.sleep(0.005)


def test_a_killed_worker_changes_nothing(many_tasks: None) -> None:
    queries = CODES[:6000]
    expected = search(queries, CODES, K, "hamming")
    killed: list[int] = []
    with ray_session(2, CODES.nbytes):
        blocks = iter_search_on_ray(queries, CODES, K, "hamming", 2)
        found = [next(blocks)[1]]
        killer = threading.Thread(target=kill_one_busy_worker, args=(killed,))
        killer.start()
        found += [part for _, part in blocks]
        killer.join()
    assert len(killed) == 1
    assert len(found) == -(-6000 // 256)
    assert_same(concat_neighbours(found, K), expected)


@pytest.fixture
def cluster() -> Iterator[object]:
    from ray.cluster_utils import Cluster

    three = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    nodes = [three.add_node(num_cpus=1, object_store_memory=100 << 20) for _ in range(2)]
    three.wait_for_nodes()
    three.removable = nodes
    try:
        yield three
    finally:
        three.shutdown()


def test_a_dead_node_changes_nothing(cluster: object, many_tasks: None) -> None:
    """Three nodes; the package reaches them by the session alone; one node is taken away with its tasks."""
    import ray

    queries = CODES[:8000]
    expected = search(queries, CODES, K, "hamming")
    with ray_session(3, CODES.nbytes, cluster.address):  # type: ignore[attr-defined]
        assert len([node for node in ray.nodes() if node["Alive"]]) == 3
        blocks = iter_search_on_ray(queries, CODES, K, "hamming", 3)
        found = [next(blocks)[1] for _ in range(4)]
        cluster.remove_node(cluster.removable[0], allow_graceful=False)  # type: ignore[attr-defined]
        found += [part for _, part in blocks]
        deadline = time.monotonic() + 60  # the head notices a dead node some seconds after it is gone
        while len([node for node in ray.nodes() if node["Alive"]]) > 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    assert_same(concat_neighbours(found, K), expected)


def test_few_queries_are_spread_over_shards(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    found = search_on_ray(CODES[:3], CODES, K, "hamming", 2, exclude=np.arange(3, dtype=np.int32)[:, None])
    assert_same(found, search(CODES[:3], CODES, K, "hamming", np.arange(3, dtype=np.int32)[:, None]))
    assert [record for record in caplog.records if record.name.startswith("ray")] == []  # nor does Ray print anything
    assert capfd.readouterr() == ("", "")


INTERRUPTED = """
import numpy as np
from bigearthnet_cbir.search.ray_backend import iter_search_on_ray, ray_session
rows = np.random.default_rng(0).random((20000, 64), dtype=np.float32)
with ray_session(2, rows.nbytes):
    while True:  # a single search may have ended before the signal comes
        for first, _ in iter_search_on_ray(rows, rows, 100, "cosine", 2):
            print(first, flush=True)
"""


def test_an_interrupt_stops_ray_too() -> None:
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not process.stdout.readline().strip().isdigit():
        assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive
