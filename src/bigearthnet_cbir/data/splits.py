"""Reader of split lists (the pairs of train, val or test): CSV files, or splits of a metadata.parquet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from bigearthnet_cbir.data.pair_list import LabelTable, Names, PairList
from bigearthnet_cbir.data.patch_rules import S1_NAME, S2_NAME
from bigearthnet_cbir.errors import DataError, MissingDataError
from bigearthnet_cbir.types import PatchPair

SPLITS: Final = ("train", "val", "test")
_CURE: Final = "a split list has one pair per line and no header: S2 patch name, S1 patch name"


def read_split(source: Path | str) -> PairList:
    """Return the pairs of a split list, in their order, as a sequence that equals a list of the same pairs.

    Args:
        source: a CSV file without header (Sentinel-2 name, Sentinel-1 name), or "metadata.parquet:train" for one
            split of a BigEarthNet v2 table.

    Raises:
        DataError: the file is missing, empty, has a header or one column, swapped names, a stray quote or a name
            twice; with the file and the line. Lists of one column are read by partners.read_pairs.

    Example (`folder` is any folder):
        >>> import bigearthnet_cbir as cbir
        >>> lists = folder / "test.csv"
        >>> line = "S2A_MSIL2A_20170613T101031_87_48,S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48"
        >>> _ = lists.write_text(line)
        >>> cbir.read_split(lists)[0].s2
        'S2A_MSIL2A_20170613T101031_87_48'
    """
    found = read_list(source)
    if isinstance(found, PairList):
        return found
    raise DataError(
        f"{source}, line 1: 1 column ({found[0]}), but 2 are needed; Sentinel-2 names only are valid if the archive, a "
        f"metadata.parquet or the official lists have the Sentinel-1 partners; otherwise {_CURE}"
    )


def read_list(source: Path | str) -> PairList | Names:
    """Return the pairs of a split list, or the Sentinel-2 names of a list with one column; otherwise as read_split."""
    parquet = parquet_split(source)
    return _read_csv(Path(source)) if parquet is None else _split_of_table(*parquet)[0]


def read_split_labels(source: Path | str) -> LabelTable | None:
    """Return Sentinel-2 patch name -> 19-class names if the list has labels (parquet), else None."""
    parquet = parquet_split(source)
    return None if parquet is None else _split_of_table(*parquet)[1]


def parquet_split(source: Path | str) -> tuple[Path, str] | None:
    """Return file and split name of "metadata.parquet:train", or None for a CSV file."""
    file, separator, split = str(source).rpartition(":")
    if separator and file.endswith(".parquet"):
        return Path(file), split
    if str(source).endswith(".parquet"):
        raise DataError(f"{source}: the split of this table is missing; write {source}:train, :val or :test")
    return None


def _split_of_table(path: Path, split: str) -> tuple[PairList, LabelTable]:
    version: tuple[int, ...] = ()
    with suppress(OSError):  # reading the table raises the precise error
        file = path.stat()
        version = file.st_ino, file.st_size, file.st_mtime_ns
    return _once(path, split, version)


@lru_cache(maxsize=1)
def _once(path: Path, split: str, _version: tuple[int, ...]) -> tuple[PairList, LabelTable]:
    """Read a split once for its pairs and labels, which share the names."""
    from bigearthnet_cbir.data import metadata  # imported lazily: a CSV file does not need pyarrow

    return metadata.read_table_split(path, split)


def _read_csv(path: Path) -> PairList | Names:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: there is no such split list; encode_patches.py --splits writes one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a CSV file ({error}); {_CURE}") from error
    names = _at_once(lines) or _line_by_line(lines, path)
    if names is None:
        raise DataError(f"{path}: this split list is empty; {_CURE}")
    return names


def _at_once(lines: list[str]) -> PairList | Names | None:
    """Return the content of a valid list, else None; three times as fast as parsing line by line."""
    filled = [line for line in lines if line]
    commas = {line.count(",") for line in filled}
    if commas not in ({0}, {1}):
        return None
    cells = [cell.strip() for cell in ",".join(filled).split(",")]
    if any('"' in line for line in filled):
        cells = [cell[1:-1] if cell[:1] == cell[-1:] == '"' else cell for cell in cells]
    s2, s1 = (cells, None) if commas == {0} else (cells[::2], cells[1::2])
    if not all(map(S2_NAME.fullmatch, s2)) or len(set(s2)) < len(filled):
        return None
    if s1 is None:
        return Names(s2)
    return PairList(s2, s1) if all(map(S1_NAME.fullmatch, s1)) and len(set(s1)) == len(filled) else None


def _line_by_line(lines: list[str], path: Path) -> PairList | Names | None:
    """Return the content of a list, None if it is empty; raise DataError with the line of the first error."""
    rows: list[list[str]] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:  # each line separately, because an unclosed quote would include all following lines
            cells = next(csv.reader([line], strict=True, skipinitialspace=True), [])
        except csv.Error as error:
            raise DataError(f"{where}: a quote is not closed, or is inside a name ({error}); {_CURE}") from error
        if not cells:
            continue
        names = _parse([cell.strip() for cell in cells], len(rows[0]) if rows else None, where)
        for name in names:
            if name in seen:
                raise DataError(f"{where}: {name} is already in line {seen[name]}; remove one of the two")
            seen[name] = number
        rows.append(names)
    if not rows:
        return None
    columns = zip(*rows, strict=True)
    return Names(*columns) if len(rows[0]) == 1 else PairList(*columns)


def _parse(cells: list[str], columns: int | None, where: str) -> list[str]:
    """Return the names of a line, which must have as many columns as the first line (one or two)."""
    if len(cells) != columns and (columns is not None or len(cells) > 2):
        found = "1 column" if len(cells) == 1 else f"{len(cells)} columns"
        raise DataError(f"{where}: {found} ({', '.join(cells)[:80]}), but {columns or 2} are needed; {_CURE}")
    if len(cells) == 2 and S1_NAME.fullmatch(cells[0]) and S2_NAME.fullmatch(cells[1]):
        raise DataError(f"{where}: the names are swapped ({', '.join(cells)}); {_CURE}")
    for name, pattern in zip(cells, (S2_NAME, S1_NAME), strict=False):
        if not pattern.fullmatch(name):
            hint = "is that a header?" if where.endswith("line 1") else "it starts with S2A_, say, and has no spaces"
            sensor = "Sentinel-2" if pattern is S2_NAME else "Sentinel-1"
            raise DataError(f"{where}: {name[:80]!r} is not a {sensor} patch name ({hint}); {_CURE}")
    return cells


def known_splits(folder: Path, read: Callable[[Path], PairList] = read_split) -> dict[str, PairList]:
    """Return the pairs of train.csv, val.csv and test.csv, as far as they exist; `read` reads one list.

    Raises:
        DataError: none exists, or a pair is in two of them.
    """
    found = {split: read(folder / f"{split}.csv") for split in SPLITS if (folder / f"{split}.csv").exists()}
    if not found:
        raise DataError(f"{folder}: it has no train.csv, val.csv or test.csv; give the folder with the split lists")
    check_disjoint(found)
    return found


def check_disjoint(splits: Mapping[str, Iterable[PatchPair]]) -> None:
    """Raise DataError if a Sentinel-2 patch is in two splits."""
    owner: dict[str, str] = {}
    for split, pairs in splits.items():
        for pair in pairs:
            if owner.setdefault(pair.s2, split) != split:
                raise DataError(f"{pair.s2} is in {owner[pair.s2]} and in {split}; remove it from one of them")
