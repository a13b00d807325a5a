"""Ray workers against one process: the same indices and distances, to the last bit."""

from collections.abc import Iterator

import numpy as np
import pytest
from tests.arrangements import arranged
from tests.search.oracles import distance_matrix

from bigearthnet_cbir.errors import SearchError
from bigearthnet_cbir.search import ray_backend
from bigearthnet_cbir.search.knn import concat_neighbours, search
from bigearthnet_cbir.search.partition import shards_of
from bigearthnet_cbir.search.ray_backend import RayArchive, iter_search_on_ray, ray_session
from bigearthnet_cbir.search.shards import PreparedArchive

pytestmark = pytest.mark.slow

QUERIES, ARCHIVE, WIDTH, K = 700, 900, 24, 50


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with ray_session(2, ARCHIVE * WIDTH * 4):
        yield


def arrays(distance: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    if distance == "hamming":
        codes = generator.integers(0, 4, (QUERIES + ARCHIVE, WIDTH), dtype=np.uint8)
        return codes[:QUERIES], codes[QUERIES:]
    features = generator.random((QUERIES + ARCHIVE, WIDTH), dtype=np.float32)
    features[::7] = features[0]
    return features[:QUERIES], features[QUERIES:]


@pytest.mark.parametrize("distance", ["cosine", "hamming", "euclidean", "chi2"])
def test_ray_search_equals_serial_search(session: None, distance: str) -> None:
    queries, archive = arrays(distance)
    exclude = np.arange(QUERIES, dtype=np.int32)[:, None]
    serial = search(queries, archive, K, distance, exclude)
    found = concat_neighbours([part for _, part in iter_search_on_ray(queries, archive, K, distance, 2, exclude)], K)
    assert np.array_equal(found.indices, serial.indices)
    assert np.array_equal(found.distances, serial.distances)
    assert not (found.indices == exclude).any()
    expected = np.sort(distance_matrix(queries[:1], archive, distance)[0][np.arange(ARCHIVE) != 0])[:K]
    assert found.distances[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("layout", ["Fortran", "data frame", "unaligned", "other byte order"])
@pytest.mark.parametrize("distance", ["cosine", "chi2"])
def test_layouts_change_nothing(session: None, distance: str, layout: str) -> None:
    queries, archive = arrays(distance)
    serial = search(queries, archive, K, distance)
    blocks = iter_search_on_ray(arranged(queries, layout), arranged(archive, layout), K, distance, 2)
    found = concat_neighbours([part for _, part in blocks], K)
    assert np.array_equal(found.indices, serial.indices)
    assert np.array_equal(found.distances, serial.distances)


@pytest.mark.parametrize("prepared", [False, True])
def test_a_broken_row_is_named_in_one_line(session: None, prepared: bool) -> None:
    queries, archive = arrays("cosine")
    broken = queries.copy()
    broken[650, 3] = np.nan
    whole = PreparedArchive(archive, "cosine") if prepared else archive
    with pytest.raises(
        SearchError, match=r"^queries: 1 feature vectors have NaN or infinite values, the first in row 650;"
    ):
        list(iter_search_on_ray(broken, whole, K, "cosine", 2))
    with pytest.raises(
        SearchError, match=r"^archive: 1 feature vectors have NaN or infinite values, the first in row 650;"
    ):
        list(iter_search_on_ray(queries, broken, K, "cosine", 2))


def test_ray_search_goes_on_from_a_query(session: None) -> None:
    queries, archive = arrays("cosine")
    whole = search(queries, archive, K, "cosine")
    parts = list(iter_search_on_ray(queries, archive, K, "cosine", 2, start=600))
    assert parts[0][0] == 600
    assert np.array_equal(concat_neighbours([part for _, part in parts], K).indices, whole.indices[600:])


@pytest.mark.parametrize("distance", ["cosine", "hamming"])
def test_an_archive_for_several_searches_is_put_into_the_store_once(
    session: None, monkeypatch: pytest.MonkeyPatch, distance: str
) -> None:
    queries, archive = arrays(distance)
    put, shared = [], RayArchive(archive)
    monkeypatch.setattr(ray_backend, "shards_of", lambda *given: put.append(given) or shards_of(*given))
    for asked in (queries, queries[::-1].copy()):
        expected = search(asked, archive, K, distance)
        found = concat_neighbours([part for _, part in iter_search_on_ray(asked, shared, K, distance, 2)], K)
        assert np.array_equal(found.indices, expected.indices)
        assert np.array_equal(found.distances, expected.distances)
    assert len(put) == 1


def test_an_archive_is_cut_anew_where_another_search_needs_other_shards(session: None) -> None:
    queries, archive = arrays("cosine")
    shared = RayArchive(archive)
    for distance in ("cosine", "euclidean"):
        for asked in (np.tile(queries, (8, 1)), queries[:3]):  # few queries: the archive is divided among the workers
            expected = search(asked, archive, K, distance)
            found = concat_neighbours([part for _, part in iter_search_on_ray(asked, shared, K, distance, 2)], K)
            assert np.array_equal(found.indices, expected.indices)


def test_an_archive_whose_preparation_failed_is_prepared_again(session: None) -> None:
    queries, archive = arrays("cosine")
    archive = archive.copy()
    archive[500] = -1.0  # refused by chi2 only
    shared = RayArchive(archive)
    expected = search(queries, archive, K, "cosine")
    for _ in range(2):
        found = concat_neighbours([part for _, part in iter_search_on_ray(queries, shared, K, "cosine", 2)], K)
        assert np.array_equal(found.indices, expected.indices)
        with pytest.raises(SearchError, match="chi2"):
            list(iter_search_on_ray(np.abs(queries), shared, K, "chi2", 2))


def test_an_archive_prepared_for_another_distance_is_refused(session: None) -> None:
    queries, archive = arrays("cosine")
    with pytest.raises(SearchError, match="prepared for cosine"):
        list(iter_search_on_ray(queries, RayArchive(PreparedArchive(archive, "cosine")), K, "euclidean", 2))
