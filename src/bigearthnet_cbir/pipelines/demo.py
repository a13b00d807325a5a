"""Writer of the synthetic demo data: BigEarthNet v1 patch folders and three split lists."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from bigearthnet_cbir.data.geotiff import write_s1_folder, write_s2_folder
from bigearthnet_cbir.data.synthetic import WORLD_VERSION, acquisition_of, make_pair
from bigearthnet_cbir.data.synthetic_classes import CORINE_NAMES
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.pipelines.worker_pool import worker_pool

S2_FOLDER: Final = "BigEarthNet-v1.0"
S1_FOLDER: Final = "BigEarthNet-S1-v1.0"
_MOST_PAIRS: Final = 1_000_000
"""Number of pairs in a split."""

_STAMP: Final = "demo.json"
_UNFINISHED: Final = ".unfinished"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoWorld:
    """Parameters of the demo data: the number of pairs per split, and the seed.

    Raises:
        ConfigError: a split would be empty or larger than BigEarthNet itself, or the seed is out of range.
    """

    train: int = 600
    val: int = 150
    test: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("train", 1, _MOST_PAIRS),
            ("val", 1, _MOST_PAIRS),
            ("test", 1, _MOST_PAIRS),
            ("seed", 0, 2**63 - 1),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} is {getattr(self, name)}; give {least} or more")
            if getattr(self, name) > most:
                raise ConfigError(f"--{name} is {getattr(self, name)}; give {most} or less")

    def splits(self) -> dict[str, range]:
        """Return the pair indices of each split; test comes first, so that it does not depend on the size of train."""
        ends = (self.test, self.test + self.val, self.test + self.val + self.train)
        return {"test": range(ends[0]), "val": range(*ends[:2]), "train": range(*ends[1:])}


def build_demo(output: Path, world: DemoWorld, workers: int = 0) -> int:
    """Write, complete or reuse a demo archive; return the number of written pairs.

    Args:
        output: folder that is new, empty, or has demo data with the same parameters.
        world: parameters of the data.
        workers: number of processes; 0 for none. The files do not depend on it.

    Raises:
        ConfigError: the folder has other content, or workers is negative.
    """
    if workers < 0:
        raise ConfigError(f"--workers is {workers}; give 0 (this process) or more")
    _claim(output, world)
    splits = world.splits()
    missing = [index for indices in splits.values() for index in indices if not _is_written(output, index)]
    start = time.perf_counter()
    with tqdm(total=len(missing), desc="demo world", unit="pair", disable=None) as bar:
        for _ in _written(output, world.seed, missing, workers):
            bar.update()
    shutil.rmtree(output / _UNFINISHED, ignore_errors=True)
    for name, indices in splits.items():
        _write_split(output / f"{name}.csv", indices)
    if missing:
        seconds = time.perf_counter() - start
        logger.info("wrote %s pairs, %.0f s, %.0f pairs/s", f"{len(missing):,}", seconds, len(missing) / seconds)
    return len(missing)


def _claim(output: Path, world: DemoWorld) -> None:
    """Record the parameters in a new folder, or check that an existing folder has the same ones."""
    wanted: dict[str, Any] = {"world_version": WORLD_VERSION, **asdict(world)}
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}: is a file; give a folder")
    stamp = output / _STAMP
    if not stamp.is_file():
        if output.is_dir() and any(output.iterdir()):
            raise ConfigError(f"--output {output}: is not empty and has no demo data; give a new or empty folder")
        output.mkdir(parents=True, exist_ok=True)
        _write_text(stamp, json.dumps(wanted))
        return
    try:
        found = dict(json.loads(stamp.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{stamp}: is damaged; remove the folder, or choose another --output") from error
    differing = [
        f"{key} is {found.get(key)} instead of {value}" for key, value in wanted.items() if found.get(key) != value
    ]
    if differing:
        raise ConfigError(
            f"--output {output}: has demo data with other parameters ({', '.join(differing)}); "
            "give the same arguments, or another folder"
        )


def _is_written(output: Path, index: int) -> bool:
    names = acquisition_of(index).names
    return (output / S2_FOLDER / names.s2).is_dir() and (output / S1_FOLDER / names.s1).is_dir()


def _written(output: Path, seed: int, indices: list[int], workers: int) -> Iterator[int]:
    """Yield the index of each pair after it is written."""
    write = partial(_write_pair, output, seed)
    if workers == 0 or len(indices) < 2:
        yield from map(write, indices)
        return
    with worker_pool(workers) as pool:
        yield from pool.map(write, indices, chunksize=8)


def _write_pair(output: Path, seed: int, index: int) -> int:
    """Write both folders of a pair to a temporary place, then move them, so that existing folders are complete."""
    pair = make_pair(seed, index)
    acquisition, names = pair.acquisition, pair.acquisition.names
    labels = [CORINE_NAMES.get(label, label) for label in pair.labels]
    where: dict[str, Any] = {"upper_left": acquisition.upper_left, "utm_zone": int(acquisition.tile[:2])}
    aside = output / _UNFINISHED / str(os.getpid())
    shutil.rmtree(aside, ignore_errors=True)
    s2_folder = write_s2_folder(aside, names.s2, pair.s2, labels, acquired=str(acquisition.s2_time), **where)
    s1_folder = write_s1_folder(
        aside, names.s1, pair.s1, labels, names.s2, acquired=acquisition.s1_time.isoformat(), **where
    )
    for folder, root in ((s2_folder, output / S2_FOLDER), (s1_folder, output / S1_FOLDER)):
        root.mkdir(exist_ok=True)
        if not (root / folder.name).exists():
            folder.rename(root / folder.name)
    return index


def _write_split(path: Path, indices: range) -> None:
    """Write one split list: Sentinel-2 name, Sentinel-1 name, no header."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(acquisition_of(index).names for index in indices)
    temporary.replace(path)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
