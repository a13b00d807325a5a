"""Neighbours of a query against a loop over all names."""

import numpy as np
import pytest

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.evaluation.spatial_exclusion import Place, SpatialExclusion, place_of, self_match_positions
from bigearthnet_cbir.types import PatchPair


def pair(tile: str, column: int, row: int, s1: int, s2: int) -> PatchPair:
    return PatchPair(
        f"S2A_MSIL2A_201706{s2:02}T101031_{column}_{row}",
        f"S1A_IW_GRDH_1SDV_201706{s1:02}T165043_{tile}_{column}_{row}",
    )


def some_pairs(rows: int, seed: int) -> list[PatchPair]:
    generator = np.random.default_rng(seed)
    return [
        pair(("33UUP", "29SND")[tile], column, row, s1 + 1, s2 + 1)
        for tile, column, row, s1, s2 in generator.integers(0, (2, 9, 9, 28, 28), (rows, 5))
    ]


QUERIES, ARCHIVE = some_pairs(30, 1), some_pairs(120, 2)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            PatchPair("S2A_MSIL2A_20170613T101031_87_48", "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48"),
            Place("33UUP", 87, 48, "S1A_IW_GRDH_1SDV_20170613T165043", "S2A_MSIL2A_20170613T101031"),
        ),
        (
            PatchPair(
                "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_06_07", "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_6_7"
            ),
            Place("33UUP", 6, 7, "S1B_IW_GRDH_1SDV_20170612T165809", "S2A_MSIL2A_20170613T101031_N9999_R022"),
        ),
        (
            PatchPair("S2B_MSIL2A_20170709T94032_0_90", "S1A_IW_GRDH_1SDV_20170708T044641_5QKB_0_90"),
            Place("5QKB", 0, 90, "S1A_IW_GRDH_1SDV_20170708T044641", "S2B_MSIL2A_20170709T094032"),
        ),
    ],
)
def test_names_tell_place_and_acquisitions(names: PatchPair, expected: Place) -> None:
    assert place_of(names) == expected


@pytest.mark.parametrize("names", [("S2A_x_1_2", "S1A_nothing"), ("S2A", "S1A_x_33UUP_87_48")])
def test_names_that_tell_no_place_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(ResultsError, match="remove exclude_within"):
        place_of(PatchPair(*names))


def near(query: PatchPair, item: PatchPair, radius: int) -> bool:
    one, other = query.s1.split("_"), item.s1.split("_")
    steps = max(abs(int(one[-2]) - int(other[-2])), abs(int(one[-1]) - int(other[-1])))
    same_pass = one[:-3] == other[:-3] or query.s2.split("_")[:3] == item.s2.split("_")[:3]
    return same_pass or (one[-3] == other[-3] and steps <= radius)


@pytest.mark.parametrize("radius", [0, 1, 3, 20])
def test_rows_equal_a_loop_over_all_names(radius: int) -> None:
    found = SpatialExclusion(QUERIES, ARCHIVE, radius)
    rows = [*found[:7], *found[7:]]
    for query, row, count in zip(QUERIES, rows, found.counts, strict=True):
        expected = [place for place, item in enumerate(ARCHIVE) if near(query, item, radius)]
        assert sorted(row[row >= 0].tolist()) == expected
        assert count == len(expected)
    assert found.shape == (30, found.counts.max())


def test_queries_that_keep_too_little_get_an_empty_row() -> None:
    archive = [pair("33UUP", 0, 0, 1, 1), pair("33UUP", 50, 50, 1, 2), pair("33UUP", 50, 0, 2, 2)]
    queries = [pair("33UUP", 0, 1, 1, 2), pair("29SND", 0, 1, 1, 9)]
    found = SpatialExclusion(queries, archive, 1, least=1)
    assert found.left_out.tolist() == [True, False]
    assert found.counts.tolist() == [3, 2]
    assert found[0:2].tolist() == [[-1, -1], [0, 1]]


def test_own_positions_are_known_by_the_s2_name() -> None:
    archive = [pair("33UUP", 0, 0, 1, 1), pair("33UUP", 5, 5, 1, 2)]
    assert self_match_positions([archive[1], pair("33UUP", 9, 9, 3, 3)], archive).tolist() == [[1], [-1]]
    assert self_match_positions([pair("33UUP", 9, 9, 3, 3)], archive) is None
