"""How much work was finished at a moment, and how much a command did."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import lmdb
from tests.faults.client import Ended
from tests.faults.compare import finished_epochs

ROW_FILES = ".retrieval.h5.rows"
FEATURE_FILES = {"query.h5": 20, "archive.h5": 24}
"""File -> its pairs in the small world."""


class Work(NamedTuple):
    """Amounts of work."""

    epochs: int
    features: int
    embedded: int
    rows: int
    pairs: int


def finished(case: Path, run: Path, top_k: int, whole: Work) -> Work:
    """Return what lies finished in a case's folder.

    Args:
        case: the folder.
        run: the run's folder in it.
        top_k: neighbours in a row.
        whole: all there is to do.
    """
    features = sum((run / name).exists() for name in FEATURE_FILES)
    embedded = sum(
        pairs if (run / name).exists() else _embedded(run / f".{name}.blocks") for name, pairs in FEATURE_FILES.items()
    )
    rows = whole.rows if (run / "retrieval.h5").exists() else _rows(run / ROW_FILES, 4 * top_k)
    return Work(finished_epochs(run), features, embedded, rows, _pairs(case / "patches.lmdb"))


def _embedded(folder: Path) -> int:
    """Pairs of finished blocks of an extraction."""
    header = folder / "blocks.json"
    if not header.exists():
        return 0
    told = json.loads(header.read_text())
    starts = [int(file.stem) * told["block"] for file in folder.glob("*.npz") if file.stem.isdigit()]
    return sum(min(told["block"], told["rows"] - start) for start in starts)


def _rows(folder: Path, size: int) -> int:
    """Rows that both files of a direction hold whole."""
    found = 0
    for indices in folder.glob("*.indices"):
        distances = indices.with_suffix(".distances")
        found += min(indices.stat().st_size, distances.stat().st_size if distances.exists() else 0) // size
    return found


def _pairs(archive: Path) -> int:
    """Pairs of which an archive has both records."""
    try:
        environment = lmdb.open(str(archive), readonly=True, lock=False, create=False)
    except lmdb.Error:
        return 0
    try:
        with environment.begin() as transaction:
            keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
    finally:
        environment.close()
    return min(sum(key.startswith(sensor) for key in keys) for sensor in (b"S1", b"S2"))


def done(ended: Ended, archive: int) -> Work:
    """Return what a command says that it did; `archive` is the number of patches that were searched."""
    embedded = sum(int(number.replace(",", "")) for number in re.findall(r" extracted ([\d,]+) pairs", ended.err))
    distances = sum(int(number.replace(",", "")) for number in re.findall(r"searched \w+: ([\d,]+) ", ended.err))
    encoded = re.search(r"^encoded ([\d,]+) pairs", ended.out, re.MULTILINE)
    return Work(
        len(re.findall(r" epoch \d+/\d+: ", ended.err)),
        ended.err.count(" extracted "),
        embedded,
        distances // archive,
        int(encoded[1].replace(",", "")) if encoded else 0,
    )


def again(before: Work, then: Work, whole: Work) -> str:
    """Return what was done although it was finished before; empty where nothing was."""
    twice = {
        name: now + was - all_of_it
        for name, was, now, all_of_it in zip(Work._fields, before, then, whole, strict=True)
        if now + was > all_of_it
    }
    return ", ".join(f"{number} finished {name} were done again" for name, number in twice.items())
