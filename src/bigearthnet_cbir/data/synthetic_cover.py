"""Land-cover maps of the synthetic data: which classes occur together, and their regions in a patch."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from bigearthnet_cbir.data.bands import PATCH_SIZE
from bigearthnet_cbir.data.labels import CLASS_INDEX, CLASSES
from bigearthnet_cbir.data.synthetic_textures import smooth_fields
from bigearthnet_cbir.types import ByteArray, DoubleArray

MIN_SHARE: Final = 0.04
"""Smallest share of a patch that a class must cover to become a label."""

CLASS_COUNTS: Final = (0.16, 0.26, 0.30, 0.19, 0.09)
"""Probabilities of maps with 1, 2, ... 5 classes (BigEarthNet's mean is 2.9 labels)."""


class Landscape(NamedTuple):
    """A landscape type: its frequency, and the weight of each class in it."""

    frequency: float
    weights: DoubleArray


_SHORT: Final = {
    "urban": "Urban fabric",
    "industry": "Industrial or commercial units",
    "arable": "Arable land",
    "orchards": "Permanent crops",
    "pastures": "Pastures",
    "complex": "Complex cultivation patterns",
    "hedged": "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "dehesa": "Agro-forestry areas",
    "broadleaf": "Broad-leaved forest",
    "conifers": "Coniferous forest",
    "mixed": "Mixed forest",
    "grass": "Natural grassland and sparsely vegetated areas",
    "heath": "Moors, heathland and sclerophyllous vegetation",
    "shrub": "Transitional woodland, shrub",
    "sand": "Beaches, dunes, sands",
    "bog": "Inland wetlands",
    "marsh": "Coastal wetlands",
    "lake": "Inland waters",
    "sea": "Marine waters",
}
"""Short names of the classes in the table of landscapes."""


def _landscape(frequency: float, **weights: float) -> Landscape:
    vector = np.zeros(len(CLASSES))
    for name, weight in weights.items():
        vector[CLASS_INDEX[_SHORT[name]]] = weight
    return Landscape(frequency, vector / vector.sum())


LANDSCAPES: Final = (
    _landscape(0.28, arable=8, complex=5, hedged=4, pastures=3, urban=3, broadleaf=2, industry=1, lake=0.5),
    _landscape(0.14, pastures=8, hedged=4, arable=3, broadleaf=3, complex=2, urban=1, bog=1),
    _landscape(0.22, conifers=8, mixed=7, shrub=5, broadleaf=3, lake=3, bog=2, hedged=1),
    _landscape(0.12, orchards=5, dehesa=5, arable=3, heath=3, grass=3, complex=3, broadleaf=2),
    _landscape(0.08, grass=6, heath=6, shrub=3, conifers=3, bog=2, pastures=1),
    _landscape(0.07, urban=8, industry=5, arable=2, complex=2, lake=1, pastures=1),
    _landscape(0.09, sea=8, sand=4, marsh=4, heath=1, urban=1, pastures=1),
)
"""Farmland, pastoral, boreal, mediterranean, upland, town and coast; frequencies sum to 1."""


def draw_cover(rng: np.random.Generator) -> ByteArray:
    """Return a (120, 120) map of class indices: one to five classes in coherent regions."""
    landscape = LANDSCAPES[rng.choice(len(LANDSCAPES), p=[item.frequency for item in LANDSCAPES])]
    count = 1 + int(rng.choice(len(CLASS_COUNTS), p=CLASS_COUNTS))
    classes = rng.choice(len(CLASSES), size=count, replace=False, p=landscape.weights)
    if count == 1:
        return np.full((PATCH_SIZE, PATCH_SIZE), classes[0], dtype=np.uint8)
    height = smooth_fields(rng, count, scale=rng.uniform(9, 18))
    height += rng.normal(0, 0.35, size=(count, 1, 1)).astype(np.float32)
    # Fine noise makes the borders irregular.
    height += 0.15 * smooth_fields(rng, count, scale=2)
    cover: ByteArray = classes[height.argmax(axis=0)].astype(np.uint8)
    return cover


def labels_of(cover: ByteArray) -> tuple[str, ...]:
    """Return the names, in column order, of the classes that cover at least MIN_SHARE of the map."""
    shares = np.bincount(cover.ravel(), minlength=len(CLASSES)) / cover.size
    return tuple(name for name, share in zip(CLASSES, shares, strict=True) if share >= MIN_SHARE)
