"""Retrieval directions: the features of the queries and the features of the archive."""

from __future__ import annotations

from typing import Final, NamedTuple

S1, S2, FUSED = "s1", "s2", "fused"
_TITLES: Final = {S1: "S1", S2: "S2", FUSED: "fused"}


class Direction(NamedTuple):
    """A retrieval direction.

    Attributes:
        name: name in files and options.
        query: features of the queries: s1, s2 or fused.
        archive: features of the archive: s1, s2 or fused.
    """

    name: str
    query: str
    archive: str

    @property
    def title(self) -> str:
        """Title in tables, such as S1 -> S2."""
        return f"{_TITLES[self.query]} -> {_TITLES[self.archive]}"

    @property
    def lacks_a_sensor(self) -> bool:
        """Whether queries of one sensor search fused vectors (missing modality)."""
        return self.archive == FUSED and self.query != FUSED


DIRECTIONS: Final = {
    direction.name: direction
    for direction in (
        Direction("fused", FUSED, FUSED),
        Direction("s1_s1", S1, S1),
        Direction("s2_s2", S2, S2),
        Direction("s1_s2", S1, S2),
        Direction("s2_s1", S2, S1),
        Direction("s1_fused", S1, FUSED),
        Direction("s2_fused", S2, FUSED),
    )
}
"""All directions by name, in the order of display; the original scripts have only fused."""

SAME_FEATURES: Final = tuple(name for name, direction in DIRECTIONS.items() if direction.query == direction.archive)
"""Directions that do not need a common embedding space of the two sensors."""
