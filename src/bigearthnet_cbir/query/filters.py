"""Filters of a query: conditions on the pairs of an index. They apply before the search, so the search stays exact."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.geoparquet import Categories
from bigearthnet_cbir.errors import QueryError, short, summarize_names
from bigearthnet_cbir.query.index import Index

Mask: TypeAlias = npt.NDArray[np.bool_]
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Filters:
    """Conditions that a result must meet. Empty tuples and None mean no condition.

    Attributes:
        labels: classes that the pair must all have.
        any_labels: classes of which the pair must have at least one.
        without_labels: classes that the pair must not have.
        countries: English names; the pair must lie in one of them.
        seasons: Winter, Spring, Summer, Fall, at the acquisition by Sentinel-2.
        splits: train, val, test.
        since: first acquisition day of Sentinel-2, inclusive.
        until: last acquisition day of Sentinel-2, inclusive.
        box: west, south, east, north in degrees; it must contain the centre; west > east crosses the antimeridian.
        exclude_within: radius in patches; excludes the pairs of the query's tile at most that many columns and rows
            away, and all pairs that share an acquisition of either sensor with it, like exclude_within in the
            configuration.
    """

    labels: tuple[str, ...] = ()
    any_labels: tuple[str, ...] = ()
    without_labels: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    seasons: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    box: Box | None = None
    exclude_within: int | None = None

    def mask(self, index: Index, asked: Sequence[int] = ()) -> Mask:
        """Return an (N,) boolean mask of the pairs that pass.

        Args:
            index: N pairs.
            asked: positions of the query pairs, which never pass; empty if the query is not in the index.

        Raises:
            QueryError: the index does not know a value, the box or the dates are invalid, or exclude_within is set for
                a query of unknown location.
        """
        kept: Mask = np.ones(index.size, np.bool_)
        for part in (*self._by_label(index), *self._by_word(index), *self._by_time(index), *self._by_place(index)):
            kept &= part
        if self.exclude_within is not None:
            if not asked:
                raise QueryError(
                    f"exclude-within is {self.exclude_within}, but the query patch is not in the index, so its "
                    "location is unknown; remove exclude-within"
                )
            for position in asked:
                kept &= ~_neighbourhood(index, position, self.exclude_within)
        kept[list(asked)] = False
        return kept

    def _by_label(self, index: Index) -> Iterable[Mask]:
        if self.labels or self.any_labels or self.without_labels:
            if not index.has_labels:
                raise QueryError("the filters name labels, but no pair of this index has labels; remove these filters")
            bits = index.label_bits
        if self.labels:
            wanted = _bits(self.labels, index.class_names)
            yield (bits & wanted) == wanted
        if self.any_labels:
            yield (bits & _bits(self.any_labels, index.class_names)) != 0
        if self.without_labels:
            yield (bits & _bits(self.without_labels, index.class_names)) == 0

    def _by_word(self, index: Index) -> Iterable[Mask]:
        for what, words in (("country", self.countries), ("season", self.seasons), ("split", self.splits)):
            if words:
                column: Categories = getattr(index.catalogue, what)
                yield column.is_in([_known(word, column.values, what) for word in words])

    def _by_time(self, index: Index) -> Iterable[Mask]:
        if self.since is not None and self.until is not None and self.since > self.until:
            raise QueryError(f"the first date, {self.since}, is later than the last date, {self.until}; swap them")
        # Comparisons with NaT are false, so a pair of unknown date does not pass.
        if self.since is not None:
            yield index.catalogue.date_s2 >= np.datetime64(self.since)
        if self.until is not None:
            yield index.catalogue.date_s2 <= np.datetime64(self.until)

    def _by_place(self, index: Index) -> Iterable[Mask]:
        if self.box is None:
            return
        west, south, east, north = self.box
        in_bounds = all(-180 <= value <= 180 for value in (west, east)) and -90 <= south <= north <= 90
        if not in_bounds:  # also true for NaN
            given = f"{west:g},{south:g},{east:g},{north:g}"
            raise QueryError(f"box is {given}; give west,south,east,north in degrees, with south <= north")
        x, y = index.catalogue.longitude, index.catalogue.latitude
        yield (y >= south) & (y <= north)
        yield (x >= west) & (x <= east) if west <= east else (x >= west) | (x <= east)


def _neighbourhood(index: Index, asked: int, radius: int) -> Mask:
    """Return a mask of the pairs that lie near a pair or share an acquisition with it."""
    if radius < 0:
        raise QueryError(f"exclude-within is {radius}; give a whole number >= 0")
    found = index.catalogue
    same_tile = found.tile.codes == found.tile.codes[asked]
    near = (abs(found.column - found.column[asked]) <= radius) & (abs(found.row - found.row[asked]) <= radius)
    close: Mask = same_tile & near if found.tile[asked] else np.zeros(index.size, np.bool_)
    for passes in (found.acquisition_s1, found.acquisition_s2):
        if passes[asked]:
            close |= passes.codes == passes.codes[asked]
    return close


def _bits(words: Sequence[str], class_names: Sequence[str]) -> int:
    columns = {class_names.index(_known(word, class_names, "label")) for word in words}
    return sum(1 << column for column in columns)


def _known(word: str, values: Sequence[str], what: str) -> str:
    """Return the known value that equals a word, ignoring case."""
    known = {value.casefold(): value for value in values if value}
    found = known.get(word.casefold().strip())
    if found is not None:
        return found
    if not known:
        raise QueryError(f"{what} is {short(word)}, but no pair of this index has a known {what}; remove this filter")
    near = difflib.get_close_matches(word.casefold(), list(known), 1, 0.5)
    hint = f"did you mean {known[near[0]]!r}?" if near else f"choose from {summarize_names(sorted(known.values()), 20)}"
    raise QueryError(f"{what} is {short(word)}, which no pair of this index has; {hint}")
