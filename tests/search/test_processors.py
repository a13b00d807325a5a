"""Kernels ask what they are compiled for, not what this machine's processor has; the answers are the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.search.oracles import assert_same

from bigearthnet_cbir.search import ray_backend as parallel
from bigearthnet_cbir.search import shards
from bigearthnet_cbir.search.kernels import int16_screen as panels_module
from bigearthnet_cbir.search.kernels.int16_dot import has_pair_products
from bigearthnet_cbir.search.kernels.int16_screen import NO_PANELS
from bigearthnet_cbir.search.knn import concat_neighbours, search
from bigearthnet_cbir.search.ray_backend import iter_search_on_ray
from bigearthnet_cbir.search.shards import make_shard, without_panels

pytestmark = pytest.mark.slow

needs_instruction = pytest.mark.skipif(not has_pair_products(), reason="kernels are compiled without AVX2 here")

ALL_DISTANCES = """
import numpy as np
from tests.search.oracles import assert_same, slow_search
from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.kernels.int16_dot import has_pair_products
assert not has_pair_products()
generator = np.random.default_rng(0)
for distance in ("cosine", "euclidean", "chi2", "hamming"):
    rows = generator.integers(0, 200, (400, 37), dtype=np.uint8)
    rows = rows if distance == "hamming" else (rows / 8).astype(np.float32)
    assert_same(search(rows[:4], rows, 30, distance), slow_search(rows[:4], rows, 30, distance))
    print(distance)
"""


def run(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    folders = [str(Path(__file__).parent), str(Path(shards.__file__).parents[2])]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU")}
    environment = {**kept, "PYTHONPATH": os.pathsep.join(folders), **settings}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_every_distance_compiled_for_a_generic_processor() -> None:
    done = run(ALL_DISTANCES, NUMBA_CPU_NAME="generic")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["cosine", "euclidean", "chi2", "hamming"]


@needs_instruction
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "True"),
        ({"NUMBA_CPU_NAME": "generic"}, "False"),
        ({"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": ""}, "False"),
        ({"NUMBA_CPU_FEATURES": "+sse2,+avx"}, "False"),
        ({"NUMBA_CPU_FEATURES": "+sse2,+avx,+avx2"}, "True"),
        ({"NUMBA_CPU_FEATURES": "+avx2,-avx2"}, "False"),
        ({"NUMBA_CPU_FEATURES": "-avx2"}, "False"),
    ],
)
def test_what_numba_is_told_decides(settings: dict[str, str], expected: str) -> None:
    code = "from bigearthnet_cbir.search.kernels.int16_dot import has_pair_products; print(has_pair_products())"
    assert run(code, **settings).stdout.strip() == expected


ROWS = np.random.default_rng(1).standard_normal((3000, 40), dtype=np.float32)


@needs_instruction
def test_panels_from_another_kind_of_machine_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = search(ROWS[:300], ROWS, 50, "cosine")
    shard = make_shard(ROWS, 0, len(ROWS), "cosine")
    nothing = np.empty((300, 0), np.int32)
    monkeypatch.setattr("bigearthnet_cbir.search.float_search.has_pair_products", lambda: False)
    monkeypatch.setattr("bigearthnet_cbir.search.float_search.round_queries", None)
    assert_same(parallel.search_slice(ROWS[:300], shard, "cosine", 50, nothing), expected)


@needs_instruction
def test_a_worker_prepares_once_what_another_kind_of_machine_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    prepare = parallel._prepare

    def counted(shard: shards.FeatureShard) -> panels_module.Panels:
        made.append(shard.offset)
        return prepare(shard)

    monkeypatch.setattr(parallel, "_prepare", counted)
    bare = [without_panels(make_shard(ROWS, a, a + 1024, "cosine")) for a in (0, 1024)]
    given = prepare(bare[0])
    assert parallel._fitting(given, bare[0], "first") is given
    for archive_id in ("first", "first", "second"):
        for shard in bare:
            own = parallel._fitting(NO_PANELS, shard, archive_id)
            np.testing.assert_array_equal(own.values, prepare(shard).values)
        assert {key[0] for key in parallel._own_panels} == {archive_id}
    assert made == [0, 1024, 0, 1024]
    monkeypatch.setattr(parallel, "has_pair_products", lambda: False)
    assert parallel._fitting(NO_PANELS, bare[0], "third") is NO_PANELS
    parallel._own_panels.clear()


@needs_instruction
def test_ray_workers_of_another_processor_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's kernels have the instruction, the workers' have not; and no panels are made in the driver."""
    import ray

    expected = search(ROWS[:600], ROWS, 50, "cosine")
    monkeypatch.setattr(shards, "make_panels", None)
    source = str(Path(shards.__file__).parents[2])
    variables = {"NUMBA_CPU_NAME": "generic", "PYTHONPATH": source}
    ray.init(address="local", num_cpus=2, include_dashboard=False, runtime_env={"env_vars": variables},
             object_store_memory=128 << 20, logging_level="ERROR", log_to_driver=False)  # fmt: skip
    try:
        assert not ray.get(ray.remote(lambda: has_pair_products()).remote())
        found = concat_neighbours([part for _, part in iter_search_on_ray(ROWS[:600], ROWS, 50, "cosine", 2)], 50)
    finally:
        ray.shutdown()
    assert_same(found, expected)
