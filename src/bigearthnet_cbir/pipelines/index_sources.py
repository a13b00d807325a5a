"""Inputs of an index: the pairs of splits or of the whole archive, and their metadata from the lists."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.data.metadata import read_metadata
from bigearthnet_cbir.data.official_splits import is_installed, read_official_lists
from bigearthnet_cbir.data.pair_filter import PairInfo
from bigearthnet_cbir.data.pair_list import Names, PairList
from bigearthnet_cbir.data.partners import TABLES, find_partners
from bigearthnet_cbir.data.patch_folders import PatchFolders, notes_file, read_notes
from bigearthnet_cbir.data.patch_rules import S2_NAME
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.places import grid_cell
from bigearthnet_cbir.data.positions import PatchPositions, centres
from bigearthnet_cbir.data.splits import SPLITS, parquet_split
from bigearthnet_cbir.errors import DataError, summarize_names
from bigearthnet_cbir.pipelines.builders import build_dataset
from bigearthnet_cbir.pipelines.inputs import ALL, index_splits
from bigearthnet_cbir.types import PatchPair

logger = logging.getLogger(__name__)


class IndexPart(NamedTuple):
    """Pairs of one split that are part of an index.

    Attributes:
        split: train, val or test; "" for pairs of the archive that are in no list.
        dataset: all pairs of the split.
        chosen: rows of the dataset that no earlier part contains.
    """

    split: str
    dataset: BigEarthNetMM
    chosen: list[int]


def index_parts(config: Config, splits: Sequence[str]) -> list[IndexPart]:
    """Return the pairs of splits, without duplicates.

    Args:
        config: of the run.
        splits: train, val and test, or "all" for these and every other pair of the archive.

    Raises:
        ConfigError: a split is unknown.
        DataError: a list or an archive cannot be read, or there are no pairs.
    """
    wanted = index_splits(splits)
    parts, seen = [], set[str]()
    for split in wanted:
        dataset = build_dataset(config, split, require_labels=False)
        chosen = [row for row, name in enumerate(dataset.pairs.s2) if name not in seen]
        seen.update(dataset.pairs.s2)
        parts.append(IndexPart(split, dataset, chosen))
    if ALL in splits:
        rest = _unlisted(parts[0].dataset, seen)
        if len(rest):
            parts.append(IndexPart("", rest, list(range(len(rest)))))
    if not any(part.chosen for part in parts):
        raise DataError(f"{config.split_csv(wanted[0])}: has no pairs; give a list with pairs")
    return parts


def _unlisted(known: BigEarthNetMM, seen: set[str]) -> BigEarthNetMM:
    """Return the pairs of the archive that are in no split."""
    s2_store, s1_store = PatchStore(known.s2_store.path), PatchStore(known.s1_store.path)
    names = Names(name for name in s2_store.names() if S2_NAME.fullmatch(name) and name not in seen)
    pairs = find_partners(names, s2_store, s1_store)
    keys = list(map(s1_store.s1_name, pairs))
    lacking = set(s1_store.missing(keys))
    if lacking:
        logger.warning("%s: excluded %s pairs without a stored Sentinel-1 patch (%s)", s1_store.path,
                       f"{len(lacking):,}", summarize_names(sorted(lacking), 2))  # fmt: skip
    kept = PairList.of(pair for pair, key in zip(pairs, keys, strict=True) if key not in lacking)
    return BigEarthNetMM(kept, s2_store, s1_store, require_labels=False)


def known_pairs(config: Config, pairs: Sequence[PatchPair]) -> dict[str, PairInfo]:
    """Return a mapping of Sentinel-2 name -> country, season and split from the lists.

    The source is each metadata.parquet that is a split list, is next to a split list, or is in or next to an archive.
    For names of version 1, the official lists are a further source if they are installed.
    """
    wanted = {pair.s2 for pair in pairs}
    found: dict[str, PairInfo] = {}
    for table in _tables(config):
        for row in read_metadata(table):
            if row.s2 in wanted:
                found[row.s2] = PairInfo(row.s2, row.s1, row.split, row.country or None)
    # Names of version 2 contain the tile, and the official lists of version 1 do not contain them.
    rest = {name for name in wanted - found.keys() if (grid_cell(name) or ("",))[0] is None}
    if rest and is_installed():
        found |= {pair.s2: pair for pair in read_official_lists() if pair.s2 in rest}
    return found


def _tables(config: Config) -> list[Path]:
    """Return the tables of version 2 that belong to the lists and archives of a run, without duplicates."""
    listed: list[Path] = []
    folders = [Path(store) for store in (config.bigEarthPthLMDB_S2, config.bigEarthPthLMDB_S1)]
    for split in SPLITS:
        source = config.split_csv(split)
        parquet = parquet_split(source)
        listed += [parquet[0]] if parquet else []
        folders.append(parquet[0] if parquet else Path(source))
    beside = [place / name for folder in folders for place in (folder, folder.parent) for name in TABLES]
    return [path for path in dict.fromkeys(listed + beside) if path.is_file()]


def with_told_places(places: PatchPositions, pairs: Sequence[PatchPair], root: Path) -> PatchPositions:
    """Return positions with the coordinates from version 1 JSON files where they differ from those of the names.

    Args:
        places: of the pairs, from their names.
        pairs: N pairs.
        root: folder of patch folders of one sensor; pairs without a folder keep their position.

    Raises:
        DataError: the folder contains no patch folder, or a JSON file is malformed.
    """
    sensor = "S2" if any(place.name.startswith("S2") for place in islice(root.glob("S[12]*"), 1)) else "S1"
    folders = PatchFolders(root, sensor)
    epsg, left, top = places.epsg.copy(), places.left.copy(), places.top.copy()
    for position, pair in enumerate(pairs):
        folder = folders.folder(pair.s2 if sensor == "S2" else pair.s1)
        told = read_notes(folder).corner if notes_file(folder).is_file() else None
        if told is not None and told.system.startswith("EPSG:"):
            epsg[position], left[position], top[position] = int(told.system[5:]), told.left, told.top
    moved = int(((epsg != places.epsg) | (left != places.left) | (top != places.top)).sum())
    if moved:
        logger.info("%s: the location in the JSON file differs from that of the name for %s pairs", root, f"{moved:,}")
    longitude, latitude = centres(epsg, left, top)
    return replace(places, epsg=epsg, left=left, top=top, longitude=longitude, latitude=latitude)
