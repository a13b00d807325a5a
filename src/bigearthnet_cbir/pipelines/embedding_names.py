"""Names of patches in embedding files: of Sentinel-1, of Sentinel-2, or of both. Their prefix identifies the sensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.patch_rules import S1_NAME, S2_NAME
from bigearthnet_cbir.directions import FUSED, S1, S2
from bigearthnet_cbir.errors import DataError, short

NAME_COLUMNS: Final = {S1: ("name_s1", "s1_name"), S2: ("name_s2", "s2_name", "patch_id")}
"""Columns with the names of one sensor."""

EITHER: Final = ("patch_name", "name", "names")
"""Columns with names of either sensor, identified by their prefix; also (N, 2) with both."""

_PATTERNS: Final = {S1: S1_NAME, S2: S2_NAME}


@dataclass(frozen=True)
class Sides:
    """The names of N pairs. At least one sensor is known.

    Attributes:
        s1: of the Sentinel-1 patches, None if unknown.
        s2: of the Sentinel-2 patches, None if unknown.
    """

    s1: Sequence[str] | None
    s2: Sequence[str] | None

    def __len__(self) -> int:
        return len(self.known)

    @property
    def known(self) -> Sequence[str]:
        """The names that identify the rows: of Sentinel-2 if known, else of Sentinel-1."""
        return self.of(S2 if self.s2 is not None else S1)

    @property
    def side(self) -> str:
        """Default modality of a matrix: fused if the names of both sensors are known."""
        if self.s1 is None or self.s2 is None:
            return S1 if self.s2 is None else S2
        return FUSED

    def has(self, side: str) -> bool:
        """Return whether the names of a sensor, s1 or s2, are known."""
        return (self.s1 if side == S1 else self.s2) is not None

    def of(self, side: str) -> Sequence[str]:
        """Return the names of a sensor, which must be known."""
        found = self.s1 if side == S1 else self.s2
        assert found is not None, side
        return found

    def rows(self, positions: npt.NDArray[np.int64]) -> Sides:
        """Return the names at the given positions."""
        chosen = [None if names is None else [names[row] for row in positions] for names in (self.s1, self.s2)]
        return Sides(*chosen)

    def merged(self, other: Sides) -> Sides:
        """Return the names of both objects for the same rows."""
        return Sides(other.s1 if self.s1 is None else self.s1, other.s2 if self.s2 is None else self.s2)


def read_sides(columns: Mapping[str, Any], path: Path) -> Sides:
    """Return the names in the columns of a file.

    Raises:
        DataError: there are none, one is not the name of a patch, or one occurs twice.
    """
    found: dict[str, list[str]] = {}
    for side, known in NAME_COLUMNS.items():
        column = next((name for name in known if name in columns), None)
        if column is not None:
            found[side] = _texts(columns[column], f"{path}: {column}")
    column = next((name for name in EITHER if name in columns), None)
    if not found and column is not None:
        found = _split(columns[column], f"{path}: {column}")
    if not found:
        words = ", ".join((*EITHER, *NAME_COLUMNS[S1], *NAME_COLUMNS[S2]))
        raise DataError(f"{path}: has no patch names; add a column named one of {words}")
    for side, names in found.items():
        # Archives of bigearthnet_encoder store both sensors of a pair under the Sentinel-2 name.
        if side == S2 or names != found.get(S2):
            _check(names, side, path)
    return Sides(found.get(S1), found.get(S2))


def _texts(values: Any, where: str) -> list[str]:
    given = values.tolist() if isinstance(values, np.ndarray) else list(values)
    row = next((row for row, name in enumerate(given) if not isinstance(name, str)), None)
    if row is not None:
        raise DataError(f"{where}, row {row:,} is {short(given[row])}; give the name of a patch")
    return given


def _split(values: Any, where: str) -> dict[str, list[str]]:
    """Return the names in a column with one name for each row, or with two in either order."""
    rows = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if not rows:
        raise DataError(f"{where} has 0 rows; give at least one patch")
    if isinstance(rows[0], str):
        return {S1 if S1_NAME.fullmatch(rows[0]) else S2: _texts(rows, where)}
    if not all(isinstance(row, list | tuple) and len(row) == 2 for row in rows):
        raise DataError(f"{where}: a row has neither one name nor two; give one name, or both names of a pair")
    one, two = (_texts(column, where) for column in zip(*rows, strict=True))
    return {S1: two, S2: one} if S1_NAME.fullmatch(two[0]) else {S1: one, S2: two}


def _check(names: Sequence[str], side: str, path: Path) -> None:
    seen: dict[str, int] = {}
    sensor = "Sentinel-1" if side == S1 else "Sentinel-2"
    for row, name in enumerate(names):
        if not _PATTERNS[side].fullmatch(name):
            raise DataError(
                f"{path}, row {row:,}: {short(name)} is not the name of a {sensor} patch; use the names of BigEarthNet"
            )
        if seen.setdefault(name, row) != row:
            raise DataError(f"{path}, row {row:,}: {name} is also in row {seen[name]:,}; remove one of the two rows")
