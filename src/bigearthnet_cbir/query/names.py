"""Search for patches by the name of either sensor: exact, by prefix, or by nearest spelling."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.pair_list import Names
from bigearthnet_cbir.errors import QueryError, short

_BESIDE: Final = 200
"""Names before and after an unknown name, in alphabetical order, that are candidates for similar spellings."""


_LONGEST: Final = 600
"""Maximum number of characters of a name that are compared; every valid name is shorter."""


class NameIndex:
    """The names of N pairs in alphabetical order, both sensors in one list."""

    def __init__(self, s1: Names, s2: Names) -> None:
        self._size = len(s1)
        texts = np.array([name.encode() for names in (s1, s2) for name in names], np.bytes_)
        self._order: npt.NDArray[np.int32] = np.argsort(texts, kind="stable").astype(np.int32)
        self._texts: npt.NDArray[np.bytes_] = texts[self._order]

    def find(self, name: str) -> int | None:
        """Return the position of the pair with a name, or None."""
        slot = self._slot(name)
        if slot < len(self._texts) and self._texts[slot] == name.encode(errors="replace"):
            return int(self._order[slot]) % self._size
        return None

    def position(self, name: str) -> int:
        """Return the position of the pair with a name.

        Raises:
            QueryError: the index has no such name; the message lists the nearest spellings.
        """
        found = self.find(name)
        if found is not None:
            return found
        near = self.similar(name)
        hint = f"similar names: {', '.join(near)}" if near else "give the name of a Sentinel-1 or Sentinel-2 patch"
        raise QueryError(f"patch {short(name)} is not in the index; {hint}")

    def complete(self, beginning: str, most: int = 10) -> list[str]:
        """Return up to `most` names with a prefix, in alphabetical order."""
        slot = self._slot(beginning)
        found = self._decoded(slot, slot + most)
        return [name for name in found if name.startswith(beginning)]

    def similar(self, name: str, most: int = 3) -> list[str]:
        """Return the nearest spellings among the alphabetical neighbours of a name."""
        slot = self._slot(name[:200])
        return difflib.get_close_matches(name[:200], self._decoded(slot - _BESIDE, slot + _BESIDE), most, 0.8)

    def _slot(self, name: str) -> int:
        return int(np.searchsorted(self._texts, np.bytes_(name[:_LONGEST].encode(errors="replace"))))

    def _decoded(self, first: int, stop: int) -> list[str]:
        chosen: Sequence[bytes] = self._texts[max(first, 0) : stop].tolist()
        return [text.decode() for text in chosen]
