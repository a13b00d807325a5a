"""The Sentinel-1 and Sentinel-2 bands of a patch: names, native sizes and normalisation constants."""

from __future__ import annotations

from typing import Final

PATCH_SIZE: Final = 120
"""Pixels along one side of a patch at 10 m."""

S1_BANDS: Final = ("VV", "VH")
S2_10M_BANDS: Final = ("B02", "B03", "B04", "B08")
S2_20M_BANDS: Final = ("B05", "B06", "B07", "B8A", "B11", "B12")
S2_60M_BANDS: Final = ("B01", "B09")

MODEL_S2_BANDS: Final = S2_10M_BANDS + S2_20M_BANDS
"""The ten bands that the encoders use, in channel order."""

S2_BANDS: Final = MODEL_S2_BANDS + S2_60M_BANDS
"""All twelve bands of a BigEarthNet patch (the product has no B10)."""

BAND_SIZES: Final[dict[str, int]] = {
    **dict.fromkeys(S1_BANDS + S2_10M_BANDS, 120),
    **dict.fromkeys(S2_20M_BANDS, 60),
    **dict.fromkeys(S2_60M_BANDS, 20),
}
"""Native pixels along one side."""

BAND_STATISTICS: Final[dict[str, tuple[float, float]]] = {
    "B01": (340.76769064, 554.81258967),
    "B02": (429.9430203, 572.41639287),
    "B03": (614.21682446, 582.87945694),
    "B04": (590.23569706, 675.88746967),
    "B05": (950.68368468, 729.89827633),
    "B06": (1792.46290469, 1096.01480586),
    "B07": (2075.46795189, 1273.45393088),
    "B08": (2218.94553375, 1365.45589904),
    "B8A": (2266.46036911, 1356.13789355),
    "B09": (2246.0605464, 1302.3292881),
    "B11": (1594.42694882, 1079.19066363),
    "B12": (1009.32729131, 818.86747235),
    "VV": (-12.619993741972035, 5.115911777546365),
    "VH": (-19.29044597721542, 5.464428464912864),
}
"""Mean and standard deviation of each band over BigEarthNet at native resolution.

Sentinel-2 in reflectance x 10 000, Sentinel-1 in dB. These are the constants of the original
scripts, computed by the BigEarthNet authors over the whole data set.
"""
