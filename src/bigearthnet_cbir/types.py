"""Values that cross layers: patches, pairs, neighbours, and a bound that two rooms know.

NumPy is imported for type checkers only, because reading a configuration needs this module, but no arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FloatArray: TypeAlias = "npt.NDArray[np.float32]"
DoubleArray: TypeAlias = "npt.NDArray[np.float64]"
IntArray: TypeAlias = "npt.NDArray[np.int32]"
ByteArray: TypeAlias = "npt.NDArray[np.uint8]"

LOWEST_LEARNED_TEMPERATURE: Final = 0.01
"""A learned temperature stays above this, as in CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020)."""


class PatchPair(NamedTuple):
    """The Sentinel-2 and Sentinel-1 patch names of a pair; split lists have the Sentinel-2 name first."""

    s2: str
    s1: str


class Patch(NamedTuple):
    """One patch as stored.

    Attributes:
        bands: band name -> (H, W) array at its native size; Sentinel-2 uint16 reflectance x 10 000
            (float32 in archives of the original scripts), Sentinel-1 float32 dB.
        labels: names of the 19-class nomenclature, or None if the source has none.
    """

    bands: dict[str, npt.NDArray[np.generic]]
    labels: tuple[str, ...] | None


class Neighbours(NamedTuple):
    """Result of a search, nearest first, ties by archive index.

    Attributes:
        indices: (Q, k) int32 indices of archive rows.
        distances: (Q, k) float32.
    """

    indices: IntArray
    distances: FloatArray


class Columns(NamedTuple):
    """What a file of embeddings holds, before anything in it is checked.

    Attributes:
        columns: name -> array or list with one entry for each row.
        attributes: what the file says of all rows: class names, fusion, model.
    """

    columns: dict[str, Any]
    attributes: dict[str, Any]
