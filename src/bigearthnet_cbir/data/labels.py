"""The 19-class nomenclature of BigEarthNet, and its mapping from the 43 CORINE classes.

Source: Sumbul et al. 2021, "BigEarthNet-MM", https://arxiv.org/abs/2105.07921, table 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from bigearthnet_cbir.errors import DataError, short
from bigearthnet_cbir.types import ByteArray

CLASSES: Final = (
    "Urban fabric",
    "Industrial or commercial units",
    "Arable land",
    "Permanent crops",
    "Pastures",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas",
    "Broad-leaved forest",
    "Coniferous forest",
    "Mixed forest",
    "Natural grassland and sparsely vegetated areas",
    "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland, shrub",
    "Beaches, dunes, sands",
    "Inland wetlands",
    "Coastal wetlands",
    "Inland waters",
    "Marine waters",
)
"""Class names in this project's column order (the original scripts' and torchgeo's; others sort by name)."""

N_CLASSES: Final = len(CLASSES)
CLASS_INDEX: Final[dict[str, int]] = {name: index for index, name in enumerate(CLASSES)}

_RENAMED: Final[dict[str, str]] = {
    "Continuous urban fabric": "Urban fabric",
    "Discontinuous urban fabric": "Urban fabric",
    "Non-irrigated arable land": "Arable land",
    "Permanently irrigated land": "Arable land",
    "Rice fields": "Arable land",
    "Vineyards": "Permanent crops",
    "Fruit trees and berry plantations": "Permanent crops",
    "Olive groves": "Permanent crops",
    "Annual crops associated with permanent crops": "Permanent crops",
    "Natural grassland": "Natural grassland and sparsely vegetated areas",
    "Sparsely vegetated areas": "Natural grassland and sparsely vegetated areas",
    "Moors and heathland": "Moors, heathland and sclerophyllous vegetation",
    "Sclerophyllous vegetation": "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland/shrub": "Transitional woodland, shrub",
    "Inland marshes": "Inland wetlands",
    "Peatbogs": "Inland wetlands",
    "Salt marshes": "Coastal wetlands",
    "Salines": "Coastal wetlands",
    "Water courses": "Inland waters",
    "Water bodies": "Inland waters",
    "Coastal lagoons": "Marine waters",
    "Estuaries": "Marine waters",
    "Sea and ocean": "Marine waters",
}

DROPPED_CLASSES: Final = frozenset(
    {
        "Road and rail networks and associated land",
        "Port areas",
        "Airports",
        "Mineral extraction sites",
        "Dump sites",
        "Construction sites",
        "Green urban areas",
        "Sport and leisure facilities",
        "Bare rock",
        "Burnt areas",
        "Intertidal flats",
    }
)
"""The 11 CORINE classes that the 19-class nomenclature excludes."""


def to_19_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the 19-class names of a patch, in column order, from 43- or 19-class names.

    Raises:
        DataError: a name belongs to neither nomenclature.
    """
    found: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise DataError(f"a label is {short(name)}; it must be a class name")
        if name in DROPPED_CLASSES:
            continue
        renamed = _RENAMED.get(name, name)
        if renamed not in CLASS_INDEX:
            raise DataError(f"label {short(name)} is in neither nomenclature of BigEarthNet (43 or 19 classes)")
        found.add(renamed)
    return tuple(sorted(found, key=CLASS_INDEX.__getitem__))


def labels_digest(labels: Mapping[str, tuple[str, ...]] | None) -> str:
    """Return a hash of patch name -> class names, or "in the records" if a list has no labels of its own."""
    if labels is None:
        return "in the records"
    sets: dict[tuple[str, ...], str] = {}  # half a million patches share a few thousand label sets
    lines = (f"{name}\t{sets.setdefault(classes, ';'.join(classes))}" for name, classes in labels.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def multi_hot(names: Iterable[str]) -> ByteArray:
    """Return the (19,) 0/1 vector of 19-class names.

    Raises:
        DataError: a name is not one of the 19 classes.
    """
    vector = np.zeros(N_CLASSES, dtype=np.uint8)
    for name in names:
        if name not in CLASS_INDEX:
            raise DataError(f"label {short(name)} is not one of the 19 BigEarthNet classes")
        vector[CLASS_INDEX[name]] = 1
    return vector
