"""Split lists with one column of Sentinel-2 names, as other tools provide them: lookup of the Sentinel-1 names."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from bigearthnet_cbir.data import official_splits as official_lists
from bigearthnet_cbir.data.bands import S1_BANDS
from bigearthnet_cbir.data.pair_list import Names, PairList
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.splits import read_list
from bigearthnet_cbir.errors import DataError, summarize_names
from bigearthnet_cbir.types import PatchPair

logger = logging.getLogger(__name__)

TABLES: Final = ("metadata.parquet", "metadata_for_patches_with_snow_cloud_or_shadow.parquet")


def read_pairs(source: Path | str, s2_store: PatchStore, s1_store: PatchStore) -> PairList:
    """Return the pairs of a split list, also of one with Sentinel-2 names only.

    If the archive stores both sensors under the Sentinel-2 name, this name stands for both. Otherwise the Sentinel-1
    name comes from a metadata.parquet beside the list or in or beside an archive, else from the official lists of
    version 1.

    Raises:
        DataError: as read_split does, or a name has no partner.
    """
    found = read_list(source)
    if isinstance(found, Names) and _holds_both(s1_store, found):
        logger.info("%s: one column, and %s stores both sensors under each name", source, s1_store.path)
        return PairList(found, found)
    return found if isinstance(found, PairList) else _with_partners(found, source, (s2_store.path, s1_store.path))


def read_pairs_beside(source: Path | str, folders: Iterable[Path]) -> PairList:
    """Return the pairs of a split list as read_pairs does, for folders of patches instead of an archive."""
    found = read_list(source)
    return found if isinstance(found, PairList) else _with_partners(found, source, folders)


def find_partners(names: Names, s2_store: PatchStore, s1_store: PatchStore) -> PairList:
    """Return the pairs of an archive's Sentinel-2 patches; those without a known partner are left out, and counted."""
    if not names or _holds_both(s1_store, names):
        return PairList(names, names)
    found: dict[str, str] = {}
    for _, partners in _sources(place for path in (s2_store.path, s1_store.path) for place in (path, path.parent)):
        found |= {name: partners[name] for name in names if name not in found and name in partners}
        if len(found) == len(names):
            break
    lacking = [name for name in names if name not in found]
    if lacking:
        logger.warning("%s: left out %s patches (%s), whose Sentinel-1 partners no list names", s2_store.path,
                       f"{len(lacking):,}", summarize_names(lacking, 2))  # fmt: skip
    return PairList.of(PatchPair(name, found[name]) for name in names if name in found)


def _with_partners(names: Names, source: Path | str, archives: Iterable[Path]) -> PairList:
    folders = [Path(source).parent, *(place for path in archives for place in (path, path.parent))]
    asked = []
    lacking = list(names)
    for where, partners in _sources(folders):
        asked.append(where)
        lacking = [name for name in names if name not in partners]
        if not lacking:
            logger.info("%s: one column; the Sentinel-1 partners are those of %s", source, where)
            return PairList(names, map(partners.__getitem__, names))
    place = f"in {' or '.join(asked)}" if asked else "in any known source"
    raise DataError(
        f"{source}: one column, Sentinel-2 names only, and {len(lacking):,} of them ({summarize_names(lacking, 2)}) "
        f"have no Sentinel-1 partner {place}; put version 2's metadata.parquet beside the list, for version 1 "
        f"{official_lists.INSTALL}, or add the Sentinel-1 names as a second column"
    )


def _sources(folders: Iterable[Path]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the sources of partners lazily: a description and the mapping from Sentinel-2 to Sentinel-1 names."""
    for folder in dict.fromkeys(folders):
        tables = [folder / name for name in TABLES if (folder / name).is_file()]
        if tables:
            from bigearthnet_cbir.data import metadata  # imported lazily: few lists need pyarrow

            yield str(tables[0]), {s2: s1 for table in tables for s2, s1 in metadata.read_table_partners(table).items()}
    if official_lists.is_installed():
        yield "the official lists", official_lists.read_official_partners()


def _holds_both(store: PatchStore, names: Names) -> bool:
    """Return whether the record of the first name found in a store has the Sentinel-1 bands."""
    first = next((name for name in names if name in store), None)
    return first is not None and set(S1_BANDS) <= store.read(first).bands.keys()
