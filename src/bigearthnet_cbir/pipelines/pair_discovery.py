"""Sources of the list of pairs for encoding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tqdm import tqdm

from bigearthnet_cbir.data.metadata import read_metadata
from bigearthnet_cbir.data.official_splits import is_installed, read_official_lists
from bigearthnet_cbir.data.pair_filter import PairInfo, Selection
from bigearthnet_cbir.data.partners import read_pairs_beside
from bigearthnet_cbir.data.patch_folders import PatchFolders, read_notes
from bigearthnet_cbir.data.splits import SPLITS, known_splits
from bigearthnet_cbir.errors import DataError

OFFICIAL: Final = "official"
_PARQUET: Final = "metadata.parquet"
_PARQUET_EXCLUDED: Final = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"


class PairSource(NamedTuple):
    """The pairs of an archive, and the name of their source for messages.

    Attributes:
        pairs: all pairs of the source.
        name: a file, a folder, or "the official lists".
        has_splits: whether pairs without a split are excluded (otherwise they get one).
        unreadable: name of a patch -> why its pair could not be found.
    """

    pairs: list[PairInfo]
    name: str
    has_splits: bool
    unreadable: dict[str, str]


def find_pairs(
    split_from: str | None, s1: PatchFolders | None, s2: PatchFolders | None, selection: Selection
) -> PairSource:
    """Return the pairs that a source lists.

    Args:
        split_from: "official", a metadata.parquet, or a folder with train.csv, val.csv, test.csv; None takes the
            metadata.parquet beside v2 folders, and for v1 folders the pairs that the Sentinel-1 JSONs name.
        s1: the Sentinel-1 folders, if given.
        s2: the Sentinel-2 folders, if given.
        selection: filter of the pairs; the official lists are read only if it needs them.

    Raises:
        DataError: the source is missing or malformed, or none is given.
    """
    if split_from == OFFICIAL:
        return PairSource(read_official_lists(), "the official lists", True, {})
    if split_from is not None and split_from.endswith(".parquet"):
        return _from_parquet(Path(split_from), selection)
    if split_from is not None:
        roots = [folders.root for folders in (s2, s1) if folders is not None]
        listed = known_splits(Path(split_from), lambda path: read_pairs_beside(path, roots))
        pairs = [PairInfo(*pair, split) for split, found in listed.items() for pair in found]
        return PairSource(_informed(pairs, s2, selection), split_from, True, {})
    if s1 is None or s2 is None:
        raise DataError("no list of pairs: give --s1-root and --s2-root, or --split-from")
    parquet = find_parquet(s1, s2)
    if parquet is not None:
        return _from_parquet(parquet, selection)
    if s1.is_v2 or s2.is_v2:
        raise DataError(
            f"{s2.root}: these are v2 folders, whose pairs and labels are in {_PARQUET}; put it beside them"
        )
    pairs, unreadable = _from_jsons(s1)
    paired = {pair.s2 for pair in pairs}
    for name in sorted(s2.names()):
        if name not in paired:
            where = s2.folder(name)
            unreadable[name] = f"{where}: no Sentinel-1 JSON names this Sentinel-2 patch; download its partner"
    return PairSource(_informed(pairs, s2, selection), f"the JSONs in {s1.root}", False, unreadable)


def find_parquet(*folders: PatchFolders | None) -> Path | None:
    """Return the metadata.parquet in or beside the folders of a v2 archive."""
    for folder in folders:
        if folder is not None and folder.is_v2:
            for place in (folder.root, folder.root.parent):
                if (place / _PARQUET).is_file():
                    return place / _PARQUET
    return None


def _from_parquet(path: Path, selection: Selection) -> PairSource:
    rows = read_metadata(path)
    excluded = path.with_name(_PARQUET_EXCLUDED)
    if False in (selection.exclude_snow, selection.exclude_clouds) and excluded.is_file():
        rows += read_metadata(excluded)
    pairs = [
        PairInfo(row.s2, row.s1, row.split, row.country or None, None, row.snow, row.cloud, row.labels) for row in rows
    ]
    return PairSource(pairs, str(path), True, {})


def _from_jsons(s1: PatchFolders) -> tuple[list[PairInfo], dict[str, str]]:
    pairs, unreadable = [], {}
    for name in tqdm(sorted(s1.names()), "pairing", unit="patch", disable=None, leave=False):
        try:
            notes = read_notes(s1.folder(name))
        except DataError as error:
            unreadable[name] = str(error)
            continue
        if notes.s2 is None:
            unreadable[name] = f"{s1.folder(name)}: its JSON has no corresponding_s2_patch; download this patch again"
        else:
            pairs.append(PairInfo(notes.s2, name, labels=notes.labels))
    return pairs, unreadable


def _informed(pairs: list[PairInfo], s2: PatchFolders | None, selection: Selection) -> list[PairInfo]:
    """Add information of the official lists or the parquet file, if the filter needs it."""
    parquet = find_parquet(s2)
    if parquet is not None:
        known = {pair.s2: pair for pair in _from_parquet(parquet, selection).pairs}
    elif selection.needs_lists() and is_installed():
        known = {pair.s2: pair for pair in read_official_lists()}
    else:
        return pairs
    return [
        known[pair.s2]._replace(s1=pair.s1, split=pair.split, labels=pair.labels or known[pair.s2].labels)
        if pair.s2 in known
        else pair
        for pair in pairs
    ]


def assign_splits(pairs: Iterable[PairInfo], fractions: Sequence[float], seed: int) -> list[PairInfo]:
    """Assign each pair to a split by the rank of a seeded hash of its name, in the given shares of train, val, test.

    The assignment depends only on the set of names, the shares and the seed. Adjacent patches may be in different
    splits; publish metrics on the official splits.
    """
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed} {pair.s2}".encode()).digest())
    bounds = [round(len(ranked) * sum(fractions[: number + 1])) for number in range(len(SPLITS))]
    split_of = {}
    for rank, pair in enumerate(ranked):
        number = next((number for number, bound in enumerate(bounds) if rank < bound), len(SPLITS) - 1)
        split_of[pair.s2] = SPLITS[number]
    return [pair._replace(split=split_of[pair.s2]) for pair in sorted(ranked)]
