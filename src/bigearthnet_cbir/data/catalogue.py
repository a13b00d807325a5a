"""The catalogue of an index: the metadata of each pair, as columns and as a GeoParquet file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.geoparquet import Categories, label_lists, read_columns, write_points
from bigearthnet_cbir.data.pair_filter import PairInfo, season_of
from bigearthnet_cbir.data.pair_list import Names
from bigearthnet_cbir.data.positions import PatchPositions, acquisition_dates
from bigearthnet_cbir.types import ByteArray, DoubleArray, IntArray, PatchPair

_ACQUISITION: Final = re.compile(r"(S[12].+?)(?:_T?\d{1,2}[A-Z]{3})?_\d+_\d+")
_SHORT_TIME: Final = re.compile(r"T(?=\d{5}$)")
"""Names of version 1 may lack the leading zero of the hour."""

_NAMES: Final = ("name_s1", "name_s2")
_CATEGORIES: Final = ("tile", "season", "country", "split", "acquisition_s1", "acquisition_s2")


@dataclass(frozen=True)
class Catalogue:
    """N pairs. Unknown values are "", NaN, NaT or, for column and row, -1.

    Attributes:
        name_s1: Sentinel-1 names.
        name_s2: Sentinel-2 names.
        tile: MGRS tile.
        column: (N,) int32, in patches of 1.2 km from the left edge of the tile.
        row: (N,) int32, in patches of 1.2 km from the top edge of the tile.
        epsg: (N,) int32 code of the UTM zone, 0 if unknown.
        left: (N,) float64 easting of the upper left corner, metres.
        top: (N,) float64 northing of the upper left corner, metres.
        longitude: (N,) float64 of the centre, degrees.
        latitude: (N,) float64 of the centre, degrees.
        date_s1: (N,) datetime64[D] acquisition day of Sentinel-1.
        date_s2: (N,) datetime64[D] acquisition day of Sentinel-2.
        season: Winter, Spring, Summer or Fall, at the acquisition by Sentinel-2.
        country: English name.
        split: train, val or test.
        acquisition_s1: identifier shared by all patches of one satellite pass: the name up to tile or column.
        acquisition_s2: as acquisition_s1, for Sentinel-2.
    """

    name_s1: Names
    name_s2: Names
    tile: Categories
    column: IntArray
    row: IntArray
    epsg: IntArray
    left: DoubleArray
    top: DoubleArray
    longitude: DoubleArray
    latitude: DoubleArray
    date_s1: npt.NDArray[np.datetime64]
    date_s2: npt.NDArray[np.datetime64]
    season: Categories
    country: Categories
    split: Categories
    acquisition_s1: Categories
    acquisition_s2: Categories

    def __len__(self) -> int:
        return len(self.column)


def build_catalogue(
    pairs: Sequence[PatchPair], places: PatchPositions, known: Mapping[str, PairInfo], splits: Sequence[str]
) -> Catalogue:
    """Return the catalogue of pairs.

    Args:
        pairs: N pairs.
        places: of the same pairs.
        known: Sentinel-2 name -> metadata of the pair from the lists; may lack some pairs.
        splits: the split of each pair, "" if unknown; then that of the lists is used.
    """
    s1, s2 = [pair.s1 for pair in pairs], [pair.s2 for pair in pairs]
    infos = [known.get(pair.s2) or PairInfo(*pair) for pair in pairs]
    return Catalogue(
        Names(s1), Names(s2), Categories.of(places.tile.tolist()), places.column, places.row, places.epsg,
        places.left, places.top, places.longitude, places.latitude, acquisition_dates(s1), acquisition_dates(s2),
        season=Categories.of([season_of(info) or "" for info in infos]),
        country=Categories.of([info.country or "" for info in infos]),
        split=Categories.of([split or info.split or "" for split, info in zip(splits, infos, strict=True)]),
        acquisition_s1=Categories.of(list(map(_acquisition, s1))),
        acquisition_s2=Categories.of(list(map(_acquisition, s2))),
    )  # fmt: skip


def _acquisition(name: str) -> str:
    found = _ACQUISITION.fullmatch(name)
    return _SHORT_TIME.sub("T0", found[1]) if found else ""


def write_catalogue(path: Path, catalogue: Catalogue, labels: ByteArray, class_names: Sequence[str]) -> None:
    """Write a catalogue, with the labels as lists of class names, as GeoParquet 1.1 points."""
    columns: dict[str, Any] = {field.name: getattr(catalogue, field.name) for field in fields(catalogue)}
    columns["labels"] = label_lists(labels, class_names)
    write_points(path, columns, catalogue.longitude, catalogue.latitude)


def read_catalogue(path: Path) -> Catalogue:
    """Return the catalogue of a file.

    Raises:
        DataError: it is missing, damaged, or not a catalogue.
    """
    found = read_columns(path, _NAMES, _CATEGORIES)
    return Catalogue(**{field.name: found[field.name] for field in fields(Catalogue)})
