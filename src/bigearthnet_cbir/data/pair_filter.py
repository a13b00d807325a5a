"""Filter of pairs by country, season, acquisition, snow and clouds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from bigearthnet_cbir.errors import DataError, summarize_names

SEASONS: Final = ("Winter", "Spring", "Summer", "Fall")

NO_LABEL: Final = "no label of the 19 classes"
_TELLING: Final = "use --split-from official or a metadata.parquet, which have this information"
_OTHER: Final = {"countries": "another country", "seasons": "another season", "acquisitions": "another acquisition"}

BEN14K_ACQUISITIONS: Final = (
    "20170719T094029",
    "20170802T092029",
    "20170803T094031",
    "20170825T093029",
    "20170827T092031",
)
"""The five Sentinel-2 acquisitions over Serbia that make up BEN-14K, the small benchmark of cross-modal papers.

In the official v1 splits they leave 7,761 train, 3,508 val and 3,563 test pairs. Every one of its test patches
is adjacent to a train patch, so metrics on it are optimistic.
"""


class PairInfo(NamedTuple):
    """Information about a pair from lists and names; None if the source does not have it.

    Attributes:
        s2: Sentinel-2 patch name.
        s1: Sentinel-1 patch name.
        split: train, val or test.
        country: English name.
        season: one of SEASONS, at the time of the Sentinel-2 acquisition.
        snow: whether seasonal snow covers the patch.
        cloud: whether clouds or their shadows cover it.
        labels: 19-class names in column order.
    """

    s2: str
    s1: str
    split: str | None = None
    country: str | None = None
    season: str | None = None
    snow: bool | None = None
    cloud: bool | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Selection:
    """Conditions for including a pair; empty tuples include everything.

    Attributes:
        countries: English names, in any case.
        seasons: Winter, Spring, Summer, Fall, in any case.
        acquisitions: Sentinel-2 acquisition times as in the patch names, e.g. 20170719T094029.
        exclude_snow: exclude patches with seasonal snow; None: if the source has this information.
        exclude_clouds: the same for clouds and their shadows.
    """

    countries: tuple[str, ...] = ()
    seasons: tuple[str, ...] = ()
    acquisitions: tuple[str, ...] = ()
    exclude_snow: bool | None = None
    exclude_clouds: bool | None = None

    def needs_lists(self) -> bool:
        """Return whether the filter needs information that patch names do not have."""
        return bool(self.countries or self.exclude_snow or self.exclude_clouds)

    def check(self, pairs: Sequence[PairInfo], source: str) -> None:
        """Raise DataError if a given value occurs in no pair, or the source does not have the information."""
        for option, wanted, of_pair in self._named():
            known = {_plain(value): value for value in map(of_pair, pairs) if value is not None}
            unknown = [value for value in wanted if _plain(value) not in known]
            if not known:
                raise DataError(f"--{option}: {source} does not have this information; {_TELLING}")
            if unknown:
                there = summarize_names(sorted(known.values()), 12)
                raise DataError(f"--{option}: {unknown[0]!r} does not occur in {source}; it has {there}")
        if self.exclude_snow and any(pair.snow is None for pair in pairs):
            raise DataError(f"--exclude-snow: {source} does not have this information; {_TELLING}")
        if self.exclude_clouds and any(pair.cloud is None for pair in pairs):
            raise DataError(f"--exclude-clouds: {source} does not have this information; {_TELLING}")

    def choose(self, pairs: Iterable[PairInfo]) -> tuple[list[PairInfo], dict[str, int]]:
        """Return the included pairs, and the number of excluded pairs per reason."""
        named = [(_OTHER[option], {_plain(value) for value in wanted}, of) for option, wanted, of in self._named()]
        taken: list[PairInfo] = []
        left_out: dict[str, int] = {}
        for pair in pairs:
            reason = next((why for why, wanted, of in named if _plain(of(pair) or "") not in wanted), None)
            reason = reason or self._flagged(pair)
            if reason is None:
                taken.append(pair)
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
        return taken, left_out

    def _named(self) -> list[tuple[str, tuple[str, ...], Callable[[PairInfo], str | None]]]:
        every = (
            ("countries", self.countries, lambda pair: pair.country),
            ("seasons", self.seasons, season_of),
            ("acquisitions", self.acquisitions, acquisition),
        )
        return [(option, wanted, of_pair) for option, wanted, of_pair in every if wanted]

    def _flagged(self, pair: PairInfo) -> str | None:
        if pair.snow and self.exclude_snow is not False:
            return "seasonal snow"
        if pair.cloud and self.exclude_clouds is not False:
            return "clouds or their shadow"
        return NO_LABEL if pair.labels == () else None


def acquisition(pair: PairInfo) -> str | None:
    """Return the Sentinel-2 acquisition time from the patch name."""
    parts = pair.s2.split("_")
    return parts[2] if len(parts) > 3 else None


def season_of(pair: PairInfo) -> str | None:
    """Return the season from the source, else from the month in the name (December to February is winter).

    Only the date in the name is used, because the time in v1 names can be wrong.
    """
    if pair.season is not None:
        return pair.season
    found = re.match(r"S2[A-D]_\w+?_\d{4}(\d\d)\d\dT", pair.s2)
    return SEASONS[int(found[1]) % 12 // 3] if found else None


def _plain(value: str) -> str:
    # v1 folder names may lose the leading zero of the hour that other lists have.
    plain = value.casefold()
    return plain[:9] + plain[10:] if plain[8:10] == "t0" else plain
