"""Detection of invalid pairs: different locations, a patch in two pairs, folders without a pair."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from bigearthnet_cbir.data.pair_filter import PairInfo
from bigearthnet_cbir.data.patch_folders import PatchFolders
from bigearthnet_cbir.data.places import names_agree
from bigearthnet_cbir.errors import summarize_names
from bigearthnet_cbir.pipelines.encode_types import EncodeReport
from bigearthnet_cbir.types import PatchPair

logger = logging.getLogger(__name__)


def sound_pairs(pairs: Sequence[PairInfo], report: EncodeReport) -> list[PairInfo]:
    """Return the valid pairs, and report the others by name.

    Of several pairs with the same patch none is used, because the correct one is unknown.
    """
    one_place = []
    for pair in pairs:
        if names_agree(PatchPair(pair.s2, pair.s1)) is False:
            report.skip(
                pair.s1,
                f"{pair.s1}: paired with a patch of another tile, column or row; partner {pair.s2}: correct the list",
            )
        else:
            one_place.append(pair)
    s2, s1 = Counter(pair.s2 for pair in one_place), Counter(pair.s1 for pair in one_place)
    sound = []
    for pair in one_place:
        if s2[pair.s2] > 1:
            report.skip(
                pair.s1,
                f"{pair.s1}: several Sentinel-1 patches are paired with one Sentinel-2 patch; partner {pair.s2}: "
                "remove all but the correct one",
            )
        elif s1[pair.s1] > 1:
            report.skip(
                pair.s2,
                f"{pair.s2}: several Sentinel-2 patches are paired with one Sentinel-1 patch; partner {pair.s1}: "
                "correct the list",
            )
        else:
            sound.append(pair)
    return sound


def count_unlisted(pairs: Sequence[PairInfo], s2: PatchFolders, report: EncodeReport) -> None:
    """Count the Sentinel-2 folders that no list names."""
    listed = {pair.s2 for pair in pairs}
    unlisted = sorted(name for name in s2.names() if name not in listed)
    if unlisted:
        report.left_out["Sentinel-2 folders that no list names"] = len(unlisted)
        logger.warning("%s: no list names %s folders: %s", s2.root, f"{len(unlisted):,}", summarize_names(unlisted))
