"""Whether an index matches the current state of its run: checkpoint, lists, archives and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigearthnet_cbir.config import Config, load_config
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.splits import SPLITS, parquet_split
from bigearthnet_cbir.errors import QueryError
from bigearthnet_cbir.pipelines.code_settings import code_settings
from bigearthnet_cbir.provenance import file_digest
from bigearthnet_cbir.query.index import Index, open_index
from bigearthnet_cbir.storage.run_folder import RunFolder

SETTINGS = ("fusion", "feature", "distance")
_CODES_BEFORE = {"code": "median", "code_bits": None}
"""Codes of an index of an earlier version, which does not record them."""

_CURE = "run project/index.py again"


def list_digests(config: Config) -> dict[str, str]:
    """Return the digest of the list of each split, for the lists that exist."""
    files = {split: list_file(config, split) for split in SPLITS}
    return {split: file_digest(path) for split, path in files.items() if path.is_file()}


def list_file(config: Config, split: str) -> Path:
    """Return the file that lists the pairs of a split."""
    parquet = parquet_split(config.split_csv(split))
    return Path(config.split_csv(split)) if parquet is None else parquet[0]


def open_current_index(folder: Path | str) -> Index:
    """Open the index of a run folder and verify that it is up to date.

    Missing inputs (archives and lists on another machine) do not make an index out of date.

    Raises:
        QueryError: there is no index, or its inputs differ from the current ones.
    """
    run = RunFolder(Path(folder))
    index = open_index(run.index)
    if run.parameters.is_file():
        _check(index, load_config(run.parameters), run)
    return index


def _check(index: Index, config: Config, run: RunFolder) -> None:
    checkpoint = Path(config.state_dict) if config.state_dict else run.best
    known = index.manifest
    if checkpoint.is_file() and file_digest(checkpoint) != known["checkpoint"]:
        raise QueryError(f"{index.folder}: was built with another checkpoint than the current {checkpoint}; {_CURE}")
    recorded = {**_CODES_BEFORE, **known}
    settings = {**{key: getattr(config, key) for key in SETTINGS}, **code_settings(config)}
    for key, value in settings.items():
        if recorded.get(key) != value:
            raise QueryError(f"{index.folder}: was built with {key}: {recorded.get(key)}, now {value}; {_CURE}")
    current = list_digests(config)
    for split, digest in known["lists"].items():
        if current.get(split, digest) != digest:
            raise QueryError(
                f"{index.folder}: {list_file(config, split)} has changed since the index was built; {_CURE}"
            )
    for path, identity in known["archives"].items():
        if Path(path).exists() and _identity(path) != identity:
            raise QueryError(f"{index.folder}: the archive {path} has changed since the index was built; {_CURE}")


def _identity(path: str) -> dict[str, Any]:
    return dict(PatchStore(path).identity())
