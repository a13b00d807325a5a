"""Which pairs a selection takes."""

from __future__ import annotations

import pytest

from bigearthnet_cbir.data.pair_filter import PairInfo, Selection, season_of
from bigearthnet_cbir.errors import DataError


def info(token: str, **known) -> PairInfo:
    return PairInfo(f"S2A_MSIL2A_{token}_1_2", f"S1A_{token}", "train", **known)


PAIRS = [
    info("20170719T094029", country="Serbia", season="Summer", snow=False, cloud=False),
    info("20171201T94031", country="Finland", season="Winter", snow=True, cloud=False),
    info("20180410T101031", country="Austria", season="Spring", snow=False, cloud=True),
    info("20170930T101031", country="Serbia", season="Fall", snow=False, cloud=False, labels=()),
]


@pytest.mark.parametrize(
    ("selection", "taken", "left_out"),
    [
        (Selection(), [0], {"seasonal snow": 1, "clouds or their shadow": 1, "no label of the 19 classes": 1}),
        (Selection(exclude_snow=False, exclude_clouds=False), [0, 1, 2], {"no label of the 19 classes": 1}),
        (Selection(countries=("serbia",)), [0], {"another country": 2, "no label of the 19 classes": 1}),
        (
            Selection(seasons=("winter", "Spring"), exclude_snow=False),
            [1],
            {"another season": 2, "clouds or their shadow": 1},
        ),
        (Selection(acquisitions=("20171201T094031",), exclude_snow=False), [1], {"another acquisition": 3}),
    ],
)
def test_selection_takes_and_says_why_not(selection, taken, left_out):
    selection.check(PAIRS, "the list")
    assert selection.choose(PAIRS) == ([PAIRS[number] for number in taken], left_out)


def test_unknown_values_and_sources_that_cannot_tell_are_refused():
    with pytest.raises(DataError, match=r"--countries: 'Sweden' .* the list; it has Austria, Finland, Serbia"):
        Selection(countries=("Sweden",)).check(PAIRS, "the list")
    bare = [PairInfo(pair.s2, pair.s1) for pair in PAIRS]
    for selection, option in (
        (Selection(countries=("Serbia",)), "--countries"),
        (Selection(exclude_snow=True), "--exclude-snow"),
        (Selection(exclude_clouds=True), "--exclude-clouds"),
    ):
        with pytest.raises(DataError, match=f"{option}: a folder .*use --split-from official"):
            selection.check(bare, "a folder")
    Selection().check(bare, "a folder")


def test_flags_that_the_source_does_not_tell_leave_nothing_out_by_default():
    bare = [PairInfo(pair.s2, pair.s1) for pair in PAIRS]
    assert Selection().choose(bare) == (bare, {})


@pytest.mark.parametrize(
    ("month", "season"), [("12", "Winter"), ("02", "Winter"), ("03", "Spring"), ("08", "Summer"), ("11", "Fall")]
)
def test_season_of_a_bare_name_is_that_of_its_month(month, season):
    assert season_of(PairInfo(f"S2B_MSIL2A_2017{month}01T94031_5_6", "")) == season
    assert season_of(PairInfo(f"S2A_MSIL2A_2017{month}13T101031_N9999_R022_T33UUP_26_57", "")) == season
    assert season_of(PairInfo("other", "")) is None
