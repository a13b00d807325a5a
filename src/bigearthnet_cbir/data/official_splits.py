"""The official lists of BigEarthNet v1, from the data files of the bigearthnet-common package if it is installed.

The data files are read without importing the package, so that its dependencies are not needed.
"""

from __future__ import annotations

import bz2
import importlib.util
from pathlib import Path
from typing import Final

from bigearthnet_cbir.data.pair_filter import PairInfo
from bigearthnet_cbir.errors import DataError

LIST_PACKAGE: Final = "bigearthnet_common"
INSTALL: Final = "pip install --no-deps bigearthnet-common==2.8.0"
_PAIRS: Final = "s1_s2_name_country_season.csv.bz2"
_HEADER: Final = "s1_name,s2_name,country,season"


def package_folder() -> Path:
    """Return the folder of the data files of bigearthnet-common.

    Raises:
        DataError: the package is not installed.
    """
    spec = importlib.util.find_spec(LIST_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the official lists of BigEarthNet v1 are not installed; install them with: {INSTALL}")
    return Path(spec.submodule_search_locations[0])


def is_installed() -> bool:
    """Return whether the official lists are installed."""
    return importlib.util.find_spec(LIST_PACKAGE) is not None


def read_official_lists() -> list[PairInfo]:
    """Return all 590,326 pairs of BigEarthNet v1 with split, country, season, snow and cloud flags.

    split is None for the 70,987 patches with snow or clouds and for those without a label of the 19 classes, because
    no official split contains them; the latter have labels (), the others None.

    Raises:
        DataError: the package is not installed or a list differs from the published one.
    """
    folder = package_folder()
    split_of = {name: split for split in ("train", "val", "test") for name in _lines(folder / f"{split}.csv.bz2")}
    snow = set(_lines(folder / "patches_with_seasonal_snow.csv.bz2"))
    cloud = set(_lines(folder / "patches_with_cloud_and_shadow.csv.bz2"))
    unlabelled = set(_lines(folder / "patches_with_no_19_class_targets.csv.bz2"))
    pairs = []
    for s1, s2, country, season in _pairs(folder / _PAIRS):
        labels = () if s2 in unlabelled else None
        pairs.append(PairInfo(s2, s1, split_of.get(s2), country, season, s2 in snow, s2 in cloud, labels))
    return pairs


def read_official_partners() -> dict[str, str]:
    """Return Sentinel-2 patch name -> Sentinel-1 patch name of all of BigEarthNet v1; raises as read_official_lists."""
    return {s2: s1 for s1, s2, _, _ in _pairs(package_folder() / _PAIRS)}


def _pairs(path: Path) -> list[list[str]]:
    header, *rows = _lines(path)
    if header != _HEADER:
        raise DataError(f"{path}: its columns are {header} instead of {_HEADER}; {INSTALL}")
    return [row.split(",") for row in rows]


def _lines(path: Path) -> list[str]:
    try:
        return bz2.decompress(path.read_bytes()).decode("ascii").split()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {INSTALL}") from error
