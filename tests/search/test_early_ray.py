"""Ray that starts while other work is done: the session uses it, the block stops it, and no error waits for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import ray

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.config.schema import LoggingParams
from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.pipelines import early_search
from bigearthnet_cbir.search import early_ray, parallel_session
from bigearthnet_cbir.search.early_ray import load_kernels
from bigearthnet_cbir.search.knn import concat_neighbours, search
from bigearthnet_cbir.search.ray_backend import iter_search_on_ray, ray_session
from bigearthnet_cbir.storage.run_folder import RunFolder


def test_the_session_uses_what_was_started_early_and_the_block_ends_it() -> None:
    generator = np.random.default_rng(0)
    queries, archive = generator.random((40, 8), np.float32), generator.random((300, 8), np.float32)
    before = signal.getsignal(signal.SIGTERM)
    with early_ray.early_ray(2, archive.nbytes):
        assert threading.active_count() > 1
        assert signal.getsignal(signal.SIGTERM) != before
        with ray_session(2, archive.nbytes):
            address = ray.get_runtime_context().gcs_address
            found = concat_neighbours([part for _, part in iter_search_on_ray(queries, archive, 5, "cosine", 2)], 5)
    assert not ray.is_initialized()
    assert not parallel_session.STARTING
    assert signal.getsignal(signal.SIGTERM) == before
    assert address
    expected = search(queries, archive, 5, "cosine")
    assert np.array_equal(found.indices, expected.indices)
    assert np.array_equal(found.distances, expected.distances)


def test_an_error_in_the_block_does_not_wait_for_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that starts Ray stops it afterwards; the next session waits for that, and starts its own."""
    may_start, stopped = threading.Event(), []
    monkeypatch.setattr(early_ray, "start_ray", lambda *_: may_start.wait())
    monkeypatch.setattr(ray, "shutdown", lambda: stopped.append(True))
    monkeypatch.setattr(ray, "remote", lambda **_: lambda function: pytest.fail(f"{function} is called"))
    with pytest.raises(ZeroDivisionError), early_ray.early_ray(1, 1 << 20, "some:1"):
        raise ZeroDivisionError
    (start,) = parallel_session.STARTING
    assert not stopped
    may_start.set()
    assert not start.wait()
    assert stopped
    with early_ray.early_ray(1, 1 << 20, "some:1"):
        assert [start] != parallel_session.STARTING
    assert not parallel_session.STARTING


def test_a_start_that_fails_is_tried_again_by_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def fails(*arguments: object, **more: object) -> None:
        started.append(arguments)
        raise RuntimeError("the node timed out\nduring startup")

    monkeypatch.setattr(ray, "init", fails)
    with (
        pytest.raises(SearchError, match=r"^Ray cannot be started \(the node timed out during .*, or give num_cpu: 0$"),
        early_ray.early_ray(1, 1 << 20),
        ray_session(1, 1 << 20),
    ):
        pytest.fail("it has not started")
    assert len(started) == 2


def test_nothing_is_started_where_ray_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(early_ray, "start_ray", lambda *_: pytest.fail("a second start"))
    with early_ray.early_ray(1, 1 << 20):
        assert not parallel_session.STARTING


@pytest.mark.parametrize("distance", ["cosine", "hamming"])
def test_workers_load_the_kernels_of_a_search(distance: str) -> None:
    load_kernels(distance)


@pytest.mark.parametrize(
    ("keys", "starts"),
    [
        ({}, {"archive_bytes": 10 * 256 * 4}),
        ({"fusion": "avg"}, {"archive_bytes": 10 * 128 * 4}),
        ({"feature": "backbone"}, {"archive_bytes": 10 * 4096 * 4}),
        ({"feature": "backbone", "backbone": "timm:test_vit"}, None),
        ({"encoder": "package:function"}, None),
        ({"num_cpu": 0}, None),
        ({"extract_workers": 2}, None),
        ({"num_workers": 0, "pairs": 1000}, {"archive_bytes": 1000 * 256 * 4}),
        ({"num_workers": 2, "pairs": 1000}, None),
        ({"baseline": "band_statistics", "no checkpoint": True}, {"archive_bytes": 10 * 24 * 4}),
        ({"no checkpoint": True}, None),
        ({"results": True}, None),
        ({"results": True, "recompute": True}, {"archive_bytes": 10 * 256 * 4}),
    ],
)
def test_ray_starts_early_only_where_a_search_will_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, object], starts: dict[str, int] | None
) -> None:
    told = {name: keys.pop(name, None) for name in ("pairs", "baseline", "no checkpoint", "results", "recompute")}
    lists = dict.fromkeys(("train_csv", "val_csv", "test_csv", "bigEarthPthLMDB_S1", "bigEarthPthLMDB_S2"), "x")
    config = Config(**{**lists, "name": "x", "logging_params": LoggingParams("x", "x"), "num_cpu": 2, **keys})
    folder = RunFolder(tmp_path)
    if not told["no checkpoint"]:
        folder.best.touch()
    if told["results"]:
        folder.retrieval.touch()
    calls = []
    monkeypatch.setattr(early_search, "count_pairs", lambda *_: told["pairs"] or 10)
    monkeypatch.setattr(early_search, "early_ray", lambda *arguments: calls.append(arguments) or nullcontext())
    with early_search.early_search(config, folder, told["baseline"], bool(told["recompute"])):
        expected = [] if starts is None else [(2, starts["archive_bytes"], None, "cosine")]
        assert calls == expected


def test_the_decision_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; import bigearthnet_cbir.pipelines.early_search; "
        "assert not {'torch', 'ray', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
