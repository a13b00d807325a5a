"""An archive in Ray actors against one process: the same to the last index, also after an actor was lost."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search import ray_index
from bigearthnet_cbir.search.parallel_session import ray_session
from bigearthnet_cbir.search.ray_index import RayIndex
from bigearthnet_cbir.search.single_query import nearest_code, nearest_rows

pytestmark = pytest.mark.slow

SIZE, WIDTH, K = 2000, 24, 40


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session(3, SIZE * WIDTH * 4):
        yield


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    found = np.random.default_rng(0).random((SIZE, WIDTH), dtype=np.float32)
    found[::7] = found[0]  # ties, across all actors
    return found


@pytest.fixture(scope="module")
def archive(rows: np.ndarray) -> RayIndex:
    content = {"features": rows, "codes": (rows * 4).astype(np.uint8)}
    return RayIndex(SIZE, content.__getitem__, shards=3)


def allowed(share: float) -> np.ndarray:
    return np.random.default_rng(1).random(SIZE) < share


@pytest.mark.parametrize("share", [1.0, 0.5, 0.03])
@pytest.mark.parametrize("distance", ["cosine", "euclidean", "chi2"])
def test_actors_find_what_one_process_finds(archive: RayIndex, rows: np.ndarray, distance: str, share: float) -> None:
    mask = allowed(share)
    alone = nearest_rows(rows[0], rows, np.flatnonzero(mask).astype(np.int32), K, distance)
    found = archive.nearest("features", rows[0], distance, K, mask)
    assert len(archive.actors) == 3
    assert np.array_equal(found.indices, alone.indices)
    assert np.array_equal(found.distances, alone.distances)


@pytest.mark.parametrize("share", [1.0, 0.03])
def test_codes_too(archive: RayIndex, rows: np.ndarray, share: float) -> None:
    codes, mask = (rows * 4).astype(np.uint8), allowed(share)
    alone = nearest_code(codes[5], codes, K, mask)
    found = archive.nearest("codes", codes[5], "hamming", K, mask)
    assert np.array_equal(found.indices, alone.indices)
    assert np.array_equal(found.distances, alone.distances)


def test_an_actor_that_may_find_nothing(archive: RayIndex, rows: np.ndarray) -> None:
    mask = np.zeros(SIZE, bool)
    mask[-5:] = True
    found = archive.nearest("features", rows[3], "cosine", 5, mask)
    assert sorted(found.indices[0]) == list(range(SIZE - 5, SIZE))


@pytest.mark.parametrize("which", [0, 2])
def test_a_killed_actor_comes_back_with_its_rows(archive: RayIndex, rows: np.ndarray, which: int) -> None:
    import ray

    before = archive.nearest("features", rows[1], "cosine", K, allowed(1.0))
    process = ray.get(archive.actors[which].process.remote())
    os.kill(process, signal.SIGKILL)
    after = archive.nearest("features", rows[1], "cosine", K, allowed(1.0))
    assert np.array_equal(after.indices, before.indices)
    assert np.array_equal(after.distances, before.distances)
    assert ray.get(archive.actors[which].process.remote()) != process


def test_an_actor_that_is_gone_for_good_is_told_in_one_line(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray_index, "SECONDS_TO_RECOVER", 2.0)
    archive = RayIndex(SIZE, {"features": rows}.__getitem__, shards=1)
    ray.kill(archive.actors[0], no_restart=True)
    with pytest.raises(SearchError, match="did not restart within 2 s"):
        archive.nearest("features", rows[0], "cosine", 1, allowed(1.0))


def test_an_actor_that_finds_no_machine_is_told_in_one_line(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_index, "SECONDS_TO_RECOVER", 3.0)
    archive = RayIndex(SIZE, {"features": rows}.__getitem__, shards=4)  # more than the session has cores left
    with pytest.raises(SearchError, match="add a machine, or cores"):
        archive.nearest("features", rows[0], "cosine", 1, allowed(1.0))
