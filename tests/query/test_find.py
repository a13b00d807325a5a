"""Searches of an index: filters before the search, ties, directions and distances, against brute force."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.search.oracles import distance_matrix

from bigearthnet_cbir.data.catalogue import build_catalogue
from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.data.pair_filter import PairInfo
from bigearthnet_cbir.data.positions import positions_of
from bigearthnet_cbir.data.synthetic import acquisition_of
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.evaluation.spatial_exclusion import SpatialExclusion
from bigearthnet_cbir.query.filters import Filters
from bigearthnet_cbir.query.find import find, query_vector
from bigearthnet_cbir.query.index import Index, open_index
from bigearthnet_cbir.query.index_writing import IndexWriter
from bigearthnet_cbir.query.missing_modality import vectors_of
from bigearthnet_cbir.search.binarizers import fit_binarizers
from bigearthnet_cbir.search.binary_codes import binarize, pack

SIZE = 300
COUNTRIES = ("Austria", "Portugal", "Finland", "")
SPLITS = ("train", "val", "test", "")


def small_index(folder: Path, size: int = SIZE, fusion: str = "concat") -> Index:
    """An index of pairs of the demo world, whose vectors are few numbers, so that distances tie."""
    rng = np.random.default_rng(7)
    pairs = [acquisition_of(number).names for number in range(size)]
    one, two = (rng.integers(-2, 3, (size, 6)).astype(np.float32) for _ in range(2))
    fused = np.concatenate([one, two], axis=1) if fusion == "concat" else one + two
    labels = (rng.random((size, len(CLASSES))) < 0.2).astype(np.uint8)
    known = {pair.s2: PairInfo(*pair, country=COUNTRIES[number % 4] or None) for number, pair in enumerate(pairs)}
    writer = IndexWriter(folder / "index", "small", size)
    writer.append({"s1": one, "s2": two, "fused": fused}, labels)
    catalogue = build_catalogue(pairs, positions_of(pairs), known, [SPLITS[number % 3] for number in range(size)])
    details = {"distance": "cosine", "fusion": fusion, "feature": "projection", "checkpoint": "none"}
    rows = writer.vectors()
    kinds = {kind: vectors_of(kind, rows, fusion) for kind in ("s1", "s2", "fused", "s1_as_fused", "s2_as_fused")}
    codes = {kind: fit_binarizers("median", {kind: vectors})[kind] for kind, vectors in kinds.items()}
    writer.finish(catalogue, CLASSES, details, codes)
    return open_index(folder)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return small_index(tmp_path_factory.mktemp("small"))


some_labels = st.lists(st.sampled_from(CLASSES), max_size=2, unique=True).map(tuple)
days = st.integers(0, 60).map(lambda day: date(2017, 6, 1) + timedelta(days=day))
boxes = st.tuples(st.floats(-10, 10), st.floats(35, 55), st.floats(0, 30), st.floats(0, 20)).map(
    lambda box: (box[0], box[1], box[0] + box[2], min(90.0, box[1] + box[3]))
)
filters = st.builds(
    Filters,
    labels=some_labels,
    any_labels=some_labels,
    without_labels=some_labels,
    countries=st.lists(st.sampled_from(COUNTRIES[:3]), max_size=2).map(tuple),
    seasons=st.lists(st.sampled_from(("summer", "Summer")), max_size=1).map(tuple),
    splits=st.lists(st.sampled_from(SPLITS[:3]), max_size=2).map(tuple),
    since=st.none() | days,
    until=st.none() | days.map(lambda day: day + timedelta(days=60)),
    box=st.none() | boxes,
    exclude_within=st.none() | st.integers(0, 40),
)


def passes(index: Index, position: int, asked: int, wanted: Filters) -> bool:
    """One pair against the filters, word for word."""
    if position == asked:
        return False
    own, known = set(index.labels_of(position)), index.catalogue
    if not set(wanted.labels) <= own or (wanted.any_labels and not own & set(wanted.any_labels)):
        return False
    if own & set(wanted.without_labels):
        return False
    for words, value in (
        (wanted.countries, known.country),
        (wanted.seasons, known.season),
        (wanted.splits, known.split),
    ):
        if words and value[position].lower() not in [word.lower() for word in words]:
            return False
    day = known.date_s2[position].astype(date)
    if (wanted.since and day < wanted.since) or (wanted.until and day > wanted.until):
        return False
    if wanted.box is not None:
        west, south, east, north = wanted.box
        if not (west <= known.longitude[position] <= east and south <= known.latitude[position] <= north):
            return False
    if wanted.exclude_within is not None:
        pairs = [index.pair(asked), index.pair(position)]
        near = SpatialExclusion(pairs[:1], pairs[1:], wanted.exclude_within, least=0)
        return not near.counts[0]
    return True


@settings(max_examples=150, deadline=None)
@given(
    wanted=filters, asked=st.integers(0, SIZE - 1), k=st.integers(1, 60), is_prepared=st.booleans(),
    side=st.sampled_from(("s1", "s2", "fused")), distance=st.sampled_from(("cosine", "euclidean", "hamming")),
)  # fmt: skip
def test_filtered_search_equals_brute_force(
    index: Index, wanted: Filters, asked: int, k: int, is_prepared: bool, side: str, distance: str
) -> None:
    if is_prepared:
        index.prepare(side, distance)
    else:
        index.prepared.clear()
    found = find(
        index, query_vector(index, asked, side, side), archive=side, distance=distance, k=k, filters=wanted, asked=asked
    )
    kept = [position for position in range(SIZE) if passes(index, position, asked, wanted)]
    rows = np.asarray(index.codes(side) if distance == "hamming" else index.vectors(side))
    distances = distance_matrix(rows[[asked]], rows, distance)[0]
    expected = sorted(kept, key=lambda position: (distances[position], position))[:k]
    assert found.kept == len(kept)
    assert found.indices.tolist() == expected
    assert np.allclose(found.distances, distances[expected], atol=1e-6)


@pytest.mark.parametrize("fusion", ["concat", "sum", "avg", "max"])
@pytest.mark.parametrize("query", ["s1", "s2"])
def test_one_sensor_stands_in_for_both(tmp_path: Path, fusion: str, query: str) -> None:
    index = small_index(tmp_path, 40, fusion)
    vector = np.asarray(index.vectors(query)[3])
    expected = {"concat": np.concatenate([vector, vector]), "sum": 2 * vector}.get(fusion, vector)
    assert np.array_equal(query_vector(index, 3, query, "fused"), expected)
    cuts = np.asarray(index.thresholds(query))
    cuts = {"concat": np.concatenate([cuts, cuts]), "sum": 2 * cuts}.get(fusion, cuts)
    code = pack(binarize(expected[None].astype(np.float32), cuts.astype(np.float32)))[0]
    away = [sum((int(a) ^ int(b)).bit_count() for a, b in zip(code, row, strict=True)) for row in index.codes("fused")]
    found = find(index, expected, archive="fused", query=query, distance="hamming", k=40)
    assert found.indices.tolist() == sorted(range(40), key=lambda row: (away[row], row))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Filters(labels=("Arable",)), "label is 'Arable', which no pair of this index has; did you mean 'Arable land'"),
        (
            Filters(countries=("Atlantis",)),
            r"country is 'Atlantis', which no pair of this index has; choose from Austria, Finland",
        ),
        (Filters(seasons=("Winter",)), "season is 'Winter', which no pair"),
        (Filters(box=(10, 50, 11, 40)), "box is 10,50,11,40; give west,south,east,north"),
        (Filters(box=(float("nan"), 0, 1, 1)), "box is nan,0,1,1; give west,south,east,north"),
        (
            Filters(since=date(2018, 1, 1), until=date(2017, 1, 1)),
            "2018-01-01, is later than the last date, 2017-01-01; swap them",
        ),
        (Filters(exclude_within=1), "exclude-within is 1, .* remove exclude-within"),
    ],
)
def test_filters_that_cannot_be_meant_are_one_line(index: Index, wanted: Filters, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        wanted.mask(index)


def test_fewer_than_asked_for_and_none_at_all(index: Index) -> None:
    vector = query_vector(index, 0, "s2", "s2")
    only = Filters(labels=index.labels_of(5), since=date(2017, 6, 1))
    found = find(index, vector, archive="s2", k=SIZE, filters=only, asked=0)
    assert len(found.indices) == found.kept < SIZE
    assert not find(index, vector, archive="s2", filters=Filters(since=date(2030, 1, 1))).kept


def test_searches_that_have_no_answer_are_one_line(index: Index) -> None:
    vector = query_vector(index, 0, "fused", "fused")
    with pytest.raises(QueryError, match=r"fused -> s1 is not a retrieval direction"):
        query_vector(index, 0, "fused", "s1")
    with pytest.raises(
        QueryError, match=r"query vector has shape \(12,\); the s1 vectors of this index have shape \(6,\)"
    ):
        find(index, vector, archive="s1")
    with pytest.raises(QueryError, match="number of results is 0"):
        find(index, vector, k=0)
    with pytest.raises(ValueError, match="NaN or infinit"):
        find(index, np.full(12, np.nan, np.float32))
    with pytest.raises(ValueError, match="chi2 is defined for non-negative"):
        find(index, np.ones(12, np.float32), distance="chi2")
