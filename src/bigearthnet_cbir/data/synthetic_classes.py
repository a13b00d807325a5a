"""Appearance of each land-cover class in the synthetic data: spectrum, backscatter and texture.

The values are typical of summer scenes of central Europe, set by hand; they are not measurements. Classes that are hard
to distinguish on real data have almost equal spectrum and backscatter here too, and differ in texture.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.types import FloatArray

SPECTRUM_BANDS: Final = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""Order of the columns of SPECTRA, by wavelength."""


class Texture(NamedTuple):
    """Texture of a class within its region.

    Attributes:
        kind: name of a generator in synthetic_textures.
        scale: characteristic length in 10 m pixels.
        contrast: standard deviation; relative to the mean in Sentinel-2, dB in Sentinel-1.
    """

    kind: str
    scale: float
    contrast: float


class LandClass(NamedTuple):
    """One land-cover class.

    Attributes:
        reflectance: x 10 000, in the order of SPECTRUM_BANDS.
        backscatter: mean of VV and VH, dB.
        optical: texture in Sentinel-2.
        radar: texture in Sentinel-1; drawn independently of the optical one.
    """

    reflectance: tuple[int, ...]
    backscatter: tuple[float, float]
    optical: Texture
    radar: Texture


LAND_CLASSES: Final[dict[str, LandClass]] = {
    "Urban fabric": LandClass(
        (760, 840, 1010, 1080, 1300, 1750, 1950, 2030, 2120, 2150, 1950, 1650),
        (-8.0, -14.5),
        Texture("streets", 9, 0.28),
        Texture("points", 1.0, 3.0),
    ),
    "Industrial or commercial units": LandClass(
        (900, 1010, 1180, 1260, 1430, 1750, 1900, 1980, 2050, 2080, 2080, 1850),
        (-6.8, -14.0),
        Texture("parcels", 9, 0.32),
        Texture("points", 2.4, 3.4),
    ),
    "Arable land": LandClass(
        (450, 540, 800, 840, 1260, 2050, 2350, 2480, 2620, 2640, 2220, 1500),
        (-11.4, -18.2),
        Texture("parcels", 30, 0.28),
        Texture("parcels", 30, 2.6),
    ),
    "Permanent crops": LandClass(
        (450, 545, 800, 850, 1240, 1960, 2240, 2350, 2500, 2500, 2220, 1520),
        (-11.2, -17.8),
        Texture("rows", 5, 0.28),
        Texture("rows", 5, 2.6),
    ),
    "Pastures": LandClass(
        (360, 440, 740, 620, 1180, 2420, 2900, 3000, 3180, 3180, 2120, 1220),
        (-12.0, -18.8),
        Texture("grain", 9, 0.20),
        Texture("grain", 9, 2.0),
    ),
    "Complex cultivation patterns": LandClass(
        (410, 500, 770, 740, 1210, 2170, 2540, 2650, 2800, 2800, 2160, 1390),
        (-11.4, -18.0),
        Texture("parcels", 8, 0.28),
        Texture("parcels", 8, 2.6),
    ),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": LandClass(
        (375, 460, 710, 650, 1130, 2160, 2550, 2660, 2810, 2810, 2020, 1240),
        (-11.1, -17.4),
        Texture("blobs", 7, 0.28),
        Texture("blobs", 7, 2.6),
    ),
    "Agro-forestry areas": LandClass(
        (400, 490, 750, 780, 1180, 1960, 2260, 2370, 2520, 2520, 2180, 1400),
        (-11.0, -17.3),
        Texture("points", 1.6, 0.28),
        Texture("points", 1.6, 2.6),
    ),
    "Broad-leaved forest": LandClass(
        (230, 275, 480, 300, 780, 2350, 2920, 3030, 3210, 3230, 1530, 690),
        (-9.8, -15.5),
        Texture("grain", 2.2, 0.24),
        Texture("grain", 2.2, 2.4),
    ),
    "Coniferous forest": LandClass(
        (195, 230, 385, 255, 580, 1550, 1900, 2000, 2130, 2170, 990, 460),
        (-10.3, -15.9),
        Texture("grain", 0.8, 0.28),
        Texture("grain", 0.8, 2.6),
    ),
    "Mixed forest": LandClass(
        (210, 250, 425, 275, 670, 1900, 2350, 2450, 2600, 2640, 1230, 560),
        (-10.0, -15.7),
        Texture("blobs", 2.6, 0.28),
        Texture("blobs", 2.6, 2.6),
    ),
    "Natural grassland and sparsely vegetated areas": LandClass(
        (420, 510, 780, 810, 1180, 1820, 2060, 2170, 2310, 2310, 2260, 1520),
        (-12.6, -19.6),
        Texture("streaks", 4, 0.28),
        Texture("streaks", 4, 2.6),
    ),
    "Moors, heathland and sclerophyllous vegetation": LandClass(
        (320, 380, 590, 570, 920, 1640, 1900, 2000, 2140, 2150, 1760, 1060),
        (-12.2, -18.9),
        Texture("grain", 3.5, 0.26),
        Texture("grain", 3.5, 2.4),
    ),
    "Transitional woodland, shrub": LandClass(
        (265, 315, 520, 400, 810, 1900, 2300, 2400, 2550, 2570, 1560, 800),
        (-10.7, -16.5),
        Texture("points", 3.2, 0.28),
        Texture("points", 3.2, 2.6),
    ),
    "Beaches, dunes, sands": LandClass(
        (1050, 1240, 1580, 1800, 1960, 2080, 2180, 2270, 2330, 2330, 2650, 2330),
        (-15.5, -23.0),
        Texture("rows", 12, 0.24),
        Texture("rows", 12, 2.6),
    ),
    "Inland wetlands": LandClass(
        (280, 335, 520, 450, 800, 1500, 1760, 1860, 1970, 2000, 1260, 680),
        (-12.8, -19.3),
        Texture("blobs", 12, 0.28),
        Texture("blobs", 12, 2.6),
    ),
    "Coastal wetlands": LandClass(
        (330, 400, 590, 540, 830, 1360, 1560, 1650, 1750, 1780, 1190, 680),
        (-13.6, -20.6),
        Texture("creeks", 6, 0.28),
        Texture("creeks", 6, 2.6),
    ),
    "Inland waters": LandClass(
        (290, 310, 370, 270, 270, 250, 240, 220, 210, 230, 120, 80),
        (-19.0, -25.8),
        Texture("grain", 12, 0.12),
        Texture("grain", 12, 1.2),
    ),
    "Marine waters": LandClass(
        (340, 355, 340, 210, 185, 165, 155, 145, 135, 160, 85, 55),
        (-17.6, -26.0),
        Texture("rows", 8, 0.20),
        Texture("rows", 8, 2.4),
    ),
}

LOOKS: Final = tuple(LAND_CLASSES[name] for name in CLASSES)
"""The classes in label-column order."""

SPECTRA: Final[FloatArray] = np.array([look.reflectance for look in LOOKS], dtype=np.float32)
"""(19, 12) mean reflectance x 10 000, columns in the order of SPECTRUM_BANDS."""

BACKSCATTER: Final[FloatArray] = np.array([look.backscatter for look in LOOKS], dtype=np.float32)
"""(19, 2) mean VV and VH in dB."""

CORINE_NAMES: Final[dict[str, str]] = {
    "Arable land": "Non-irrigated arable land",
    "Urban fabric": "Discontinuous urban fabric",
    "Permanent crops": "Vineyards",
    "Natural grassland and sparsely vegetated areas": "Natural grassland",
    "Moors, heathland and sclerophyllous vegetation": "Moors and heathland",
    "Transitional woodland, shrub": "Transitional woodland/shrub",
    "Inland wetlands": "Peatbogs",
    "Coastal wetlands": "Salt marshes",
    "Inland waters": "Water bodies",
    "Marine waters": "Sea and ocean",
}
"""19-class name -> its 43-class name in the demo files, if the two differ."""
