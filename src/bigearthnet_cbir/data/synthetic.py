"""Synthetic demo data: procedural Sentinel-1/Sentinel-2 patch pairs with known land cover.

For demonstrations and tests without BigEarthNet. Each pair has one land-cover map, from which both sensors are
simulated with their own physics; illumination, haze, incidence angle and speckle are drawn per patch and sensor.
Metrics on this data show whether the pipeline learns, not how it performs on real data.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.positions import upper_left
from bigearthnet_cbir.data.synthetic_cover import draw_cover, labels_of
from bigearthnet_cbir.data.synthetic_sensors import measure_s1, measure_s2
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import ByteArray, FloatArray, PatchPair

WORLD_VERSION: Final = 2
"""Incremented whenever the same seed would give other files. Since 2 patches lie where their names say."""

_GRID: Final = 91
"""Patches of 1.2 km along one side of a Sentinel-2 tile."""

_STRIDE: Final = 37
"""Coprime to _GRID**2, so that consecutive indices are far apart on the tile."""

_TILES: Final = ("33UUP", "29UPU", "35VPK", "29SND", "34TCQ", "32UMA", "34WFT", "33UXP")
_FIRST_PASS: Final = datetime(2017, 6, 13, 10, 10, 31)


class Acquisition(NamedTuple):
    """Location and acquisition times of a pair.

    Attributes:
        names: unique patch names in the style of v1.
        tile: MGRS tile; its first two digits are the UTM zone.
        upper_left: easting and northing of the patch's outer corner, metres.
        s2_time: acquisition by Sentinel-2.
        s1_time: acquisition by Sentinel-1.
    """

    names: PatchPair
    tile: str
    upper_left: tuple[int, int]
    s2_time: datetime
    s1_time: datetime


class SyntheticPair(NamedTuple):
    """One pair of the demo world.

    Attributes:
        acquisition: names, position and times.
        s2: twelve bands, uint16 reflectance x 10 000, at 120, 60 or 20 pixels.
        s1: VV and VH, float32 dB, (120, 120).
        labels: 19-class names of the classes that cover at least MIN_SHARE of the patch.
        cover: (120, 120) index of the class at every pixel.
    """

    acquisition: Acquisition
    s2: dict[str, npt.NDArray[np.uint16]]
    s1: dict[str, FloatArray]
    labels: tuple[str, ...]
    cover: ByteArray


def acquisition_of(index: int) -> Acquisition:
    """Return the acquisition of a patch; the same in every world. Eight passes over eight tiles are filled in turn.

    Raises:
        DataError: the index is negative.
    """
    if index < 0:
        raise DataError(f"patch number {index} of the demo world: give 0 or more")
    cells, turn = _GRID**2, index // len(_TILES)
    number = index % len(_TILES) + len(_TILES) * (turn // cells)
    column, row = divmod(turn % cells * _STRIDE % cells, _GRID)
    tile = _TILES[number % len(_TILES)]
    s2_time = _FIRST_PASS + timedelta(days=5 * (number // 2), seconds=317 * number)
    s1_time = s2_time - timedelta(days=1, hours=4, seconds=1013)
    names = PatchPair(
        s2=f"S2{'AB'[number % 2]}_MSIL2A_{s2_time:%Y%m%dT%H%M%S}_{column}_{row}",
        s1=f"S1{'AB'[number // 2 % 2]}_IW_GRDH_1SDV_{s1_time:%Y%m%dT%H%M%S}_{tile}_{column}_{row}",
    )
    return Acquisition(names, tile, upper_left(tile, column, row)[1:], s2_time, s1_time)


def make_pair(seed: int, index: int) -> SyntheticPair:
    """Return one pair; its pixels depend only on the seed and the index.

    Args:
        seed: seed of the data set, >= 0.
        index: index of the pair, >= 0.

    Raises:
        DataError: either is negative.
    """
    acquisition = acquisition_of(index)
    if seed < 0:
        raise DataError(f"seed {seed} of the demo world: give 0 or more")
    # The map and each sensor have their own random stream, so that changing one does not affect the others.
    cover_rng, s2_rng, s1_rng = (np.random.default_rng([seed, index, part]) for part in range(3))
    cover = draw_cover(cover_rng)
    return SyntheticPair(acquisition, measure_s2(s2_rng, cover), measure_s1(s1_rng, cover), labels_of(cover), cover)
