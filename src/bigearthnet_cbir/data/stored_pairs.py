"""Check that archives contain the pairs of a list, before slow imports."""

from __future__ import annotations

from bigearthnet_cbir.data.pair_list import PairList
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.errors import DataError, summarize_names


def check_stored(pairs: PairList, s2_store: PatchStore, s1_store: PatchStore) -> None:
    """Raise an error if an archive lacks a patch of the pairs.

    Raises:
        DataError: a store lacks some of the names (the message has their number and the first few), or is unreadable.
    """
    for store, names, sensor in (
        (s2_store, pairs.s2, "Sentinel-2"),
        (s1_store, map(s1_store.s1_name, pairs), "Sentinel-1"),
    ):
        missing = store.missing(names)
        if missing:
            raise DataError(
                f"{store.path}: {len(missing):,} of {len(pairs):,} {sensor} patches of the list are not in "
                f"this archive ({summarize_names(missing)}); check the list, or that the two LMDB paths are not "
                "swapped"
            )
