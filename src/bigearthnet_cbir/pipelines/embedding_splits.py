"""The query and archive rows of a named protocol: the lists of its splits, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.config.protocols import PROTOCOLS
from bigearthnet_cbir.data import metadata
from bigearthnet_cbir.data.official_splits import read_official_lists
from bigearthnet_cbir.data.pair_filter import BEN14K_ACQUISITIONS, PairInfo, Selection
from bigearthnet_cbir.data.pair_list import Names, PairList
from bigearthnet_cbir.data.splits import read_list
from bigearthnet_cbir.directions import S1, S2
from bigearthnet_cbir.errors import ConfigError, DataError, summarize_names
from bigearthnet_cbir.pipelines.embedding_names import Sides
from bigearthnet_cbir.pipelines.pair_discovery import OFFICIAL
from bigearthnet_cbir.types import PatchPair

BEN14K: Final = "ben14k"


_BEN14K_ONLY: Final = Selection(acquisitions=BEN14K_ACQUISITIONS)


class ProtocolLists(NamedTuple):
    """Both lists of a protocol.

    Attributes:
        protocol: its name in configurations: ben14k is csmae on the lists of the small benchmark.
        query: pairs, or Sentinel-2 names alone, of the query split.
        archive: pairs, or Sentinel-2 names alone, of the archive split.
        origin: source of the lists, for the provenance.
    """

    protocol: str
    query: PairList | Names
    archive: PairList | Names
    origin: str


def protocol_lists(name: str, splits: str) -> ProtocolLists:
    """Return the lists of a protocol.

    Args:
        name: original, csmae or ben14k.
        splits: "official" for those of BigEarthNet v1, a metadata.parquet, or a folder of
            train.csv, val.csv and test.csv.

    Raises:
        ConfigError: the protocol is unknown.
        DataError: a list is missing, malformed or empty.
    """
    if name != BEN14K and name not in PROTOCOLS:
        raise ConfigError(f"protocol is {name!r}; choose one of {', '.join((*PROTOCOLS, BEN14K))}")
    protocol = "csmae" if name == BEN14K else name
    official = [info for info in read_official_lists() if info.labels != ()] if splits == OFFICIAL else []
    if name == BEN14K:
        official = _BEN14K_ONLY.choose(official)[0]
    found = []
    for split in (PROTOCOLS[protocol]["query_split"], PROTOCOLS[protocol]["archive_split"]):
        pairs = _of_split(splits, split, official)
        if name == BEN14K:
            pairs = _of_ben14k(pairs)
        if not len(pairs):
            raise DataError(f"{splits}: split {split} has no pairs of protocol {name}; give other lists with --splits")
        found.append(pairs)
    return ProtocolLists(protocol, found[0], found[1], f"{splits} lists, {name}")


def _of_split(splits: str, split: str, official: Sequence[PairInfo]) -> PairList | Names:
    if splits == OFFICIAL:
        return PairList.of([_pair(info) for info in official if info.split == split])
    if splits.endswith(".parquet"):
        return metadata.read_table_split(Path(splits), split)[0]
    return read_list(Path(splits) / f"{split}.csv")


def _pair(info: PairInfo) -> PatchPair:
    return PatchPair(info.s2, info.s1)


def _of_ben14k(pairs: PairList | Names) -> PairList | Names:
    infos = [PairInfo(*pair) if isinstance(pair, PatchPair) else PairInfo(pair, "") for pair in pairs]
    chosen, _ = _BEN14K_ONLY.choose(infos)
    return PairList.of(map(_pair, chosen)) if isinstance(pairs, PairList) else Names(info.s2 for info in chosen)


def rows_of(wanted: PairList | Names, names: Sides, source: str) -> npt.NDArray[np.int64]:
    """Return the rows of a file that a list names, in the order of the list.

    Raises:
        DataError: the file lacks some of the patches.
    """
    side = S2 if names.has(S2) else S1
    if isinstance(wanted, Names) and side == S1:
        raise DataError(
            f"{source}: has Sentinel-1 names, but the list only has Sentinel-2 names; add these to the file"
        )
    asked = wanted if isinstance(wanted, Names) else wanted.s2 if side == S2 else wanted.s1
    positions = {name: row for row, name in enumerate(names.of(side))}
    lacking = [name for name in asked if name not in positions]
    if lacking:
        raise DataError(
            f"{source}: {len(lacking):,} of the {len(asked):,} patches in the list are missing "
            f"({summarize_names(lacking, 2)}); embed them too, or give the embedded lists with --splits"
        )
    return np.fromiter((positions[name] for name in asked), np.int64, len(asked))
