"""What a search refuses, and how it reads arrays that lie on disk."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.search.oracles import assert_same

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search import archive_shards
from bigearthnet_cbir.search.knn import iter_search, search
from bigearthnet_cbir.types import Neighbours

ARCHIVE = np.random.default_rng(0).random((50, 6), dtype=np.float32)
CODES = np.random.default_rng(1).integers(0, 256, (50, 2), dtype=np.uint8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    broken = ARCHIVE.copy()
    broken[7, 2] = bad
    with pytest.raises(
        SearchError, match=r"archive: 1 feature vectors have NaN or infinite values, the first in row 7"
    ):
        search(ARCHIVE[:1], broken, 3, "cosine")
    with pytest.raises(SearchError, match=r"queries: 1 feature vectors"):
        search(broken[:9], ARCHIVE, 3, "euclidean")


def test_chi_square_of_signed_features_is_refused() -> None:
    with pytest.raises(SearchError, match=r"smallest feature is -0\.5.*non-negative features only"):
        search(ARCHIVE[:1], np.where(ARCHIVE > 0.9, -0.5, ARCHIVE).astype(np.float32), 3, "chi2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ARCHIVE, ARCHIVE, 51, "cosine"), "k is 51, but the archive has 50"),
        ((ARCHIVE, ARCHIVE, 0, "cosine"), "k is 0"),
        ((ARCHIVE, ARCHIVE[:0], 1, "cosine"), "archive has 0"),
        ((ARCHIVE[:, :5], ARCHIVE, 1, "cosine"), "queries have 5 columns, the archive 6"),
        ((ARCHIVE[0], ARCHIVE, 1, "cosine"), "needs"),
        ((ARCHIVE, ARCHIVE, 1, "manhattan"), "'manhattan'; choose one of cosine, euclidean, chi2, hamming"),
        ((ARCHIVE, ARCHIVE, 1, "hamming"), "needs packed uint8 codes, not float32"),
        ((CODES, CODES, 1, "cosine"), "cosine needs float features, not uint8"),
        ((ARCHIVE, ARCHIVE * 1e18, 1, "euclidean"), "scale the features"),
        ((ARCHIVE * 1e-20, ARCHIVE, 1, "cosine"), "scale the features"),
    ],
)
def test_questions_without_an_answer_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search(*arguments)


def test_k_must_leave_room_for_the_excluded() -> None:
    exclude = np.array([[-1, -1, -1], [4, 4, 9]], np.int32)
    assert search(ARCHIVE[:2], ARCHIVE, 48, "cosine", exclude).indices.shape == (2, 48)
    with pytest.raises(SearchError, match=r"k is 49, but query 1 has only 48 of the archive's 50 items left"):
        search(ARCHIVE[:2], ARCHIVE, 49, "cosine", exclude)
    with pytest.raises(SearchError, match="needs one row for each of 3 queries"):
        search(ARCHIVE[:3], ARCHIVE, 5, "cosine", exclude)


def test_no_queries_give_an_empty_result() -> None:
    found = search(ARCHIVE[:0], ARCHIVE, 5, "cosine")
    assert found.indices.shape == found.distances.shape == (0, 5)


class Recorder:
    """An array that can only be sliced by rows, and remembers how."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.shape = rows.shape
        self.seen: list[tuple[int, int]] = []

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.seen.append((rows.start, rows.stop))
        return self.rows[rows]


@pytest.mark.parametrize("distance", ["cosine", "hamming"])
def test_a_large_archive_is_read_in_shards(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    rows = generator.integers(0, 256, (20_000, 8), dtype=np.uint8)
    rows = rows if distance == "hamming" else rows.astype(np.float32)
    expected = search(rows[:700], rows, 30, distance)
    monkeypatch.setattr(archive_shards, "ARCHIVE_BYTES", 0)
    monkeypatch.setattr(archive_shards, "SHARD_BYTES", 80_000)
    monkeypatch.setattr(archive_shards, "LEAST_SHARD", 1000)
    queries, archive = Recorder(rows[:700]), Recorder(rows)
    blocks = [found for _, found in iter_search(queries, archive, 30, distance, block=300, threads=2)]
    assert_same(Neighbours(*(np.concatenate(part) for part in zip(*blocks, strict=True))), expected)
    assert queries.seen == [(0, 300), (300, 600), (600, 700)]
    assert len(archive.seen) > 3
    assert max(stop - start for start, stop in archive.seen) < 12_000


def test_files_search_like_arrays(tmp_path: Path) -> None:
    expected = search(ARCHIVE[:9], ARCHIVE, 7, "cosine")
    ARCHIVE.tofile(tmp_path / "archive.f32")
    mapped = np.memmap(tmp_path / "archive.f32", np.float32, "r", shape=ARCHIVE.shape)
    assert_same(search(mapped[:9], mapped, 7, "cosine"), expected)
    with h5py.File(tmp_path / "archive.h5", "w") as file:
        file["feature"] = ARCHIVE
        file["feature_query"] = ARCHIVE[:9]
        assert_same(search(file["feature_query"], file["feature"], 7, "cosine"), expected)


def test_an_abandoned_search_leaves_nothing_running() -> None:
    import threading

    before = threading.active_count()
    blocks = iter_search(ARCHIVE, ARCHIVE, 3, "cosine", block=1, threads=2)
    next(blocks)
    blocks.close()
    assert threading.active_count() == before


SEARCH_TO_FILE = """
import sys, time
import numpy as np
from bigearthnet_cbir.search.knn import iter_search
rows = np.random.default_rng(4).random((3000, 8), dtype=np.float32)
out = np.memmap(sys.argv[1], np.int32, "r+", shape=(3000, 20))
for first, found in iter_search(rows, rows, 20, "cosine", start=int(sys.argv[2]), block=100, threads=1):
    out[first:first + len(found.indices)] = found.indices
    out.flush()
    print(first + len(found.indices), flush=True)
    time.sleep(0.02)
"""


def test_a_killed_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "indices"
    np.full((3000, 20), -1, np.int32).tofile(path)
    command = [sys.executable, "-c", SEARCH_TO_FILE, str(path)]
    process = subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    done = [int(process.stdout.readline()) for _ in range(4)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert done == 400
    assert (np.fromfile(path, np.int32).reshape(3000, 20)[2900:] == -1).all()
    subprocess.run([*command, str(done)], check=True, capture_output=True)
    rows = np.random.default_rng(4).random((3000, 8), dtype=np.float32)
    assert (np.fromfile(path, np.int32).reshape(3000, 20) == search(rows, rows, 20, "cosine").indices).all()
