"""The lists and archives of a configuration, opened and checked without torch.

Commands call this before they import torch (2 s), so that an error in the inputs is reported within a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.data.pair_list import LabelTable, PairList
from bigearthnet_cbir.data.partners import read_pairs
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.splits import SPLITS, read_split_labels
from bigearthnet_cbir.data.stored_pairs import check_stored
from bigearthnet_cbir.errors import ConfigError, DataError

ALL: Final = "all"
"""Value in place of splits: train, val, test and every other pair of the archive."""


class SplitInputs(NamedTuple):
    """One split with its archives, which hold every pair.

    Attributes:
        pairs: the names, in the order of the list.
        s2_store: archive of the Sentinel-2 patches, with the labels from the list's table if it has labels.
        s1_store: archive of the Sentinel-1 patches; the same object if both are in one folder.
    """

    pairs: PairList
    s2_store: PatchStore
    s1_store: PatchStore


_checked: dict[tuple[str, str, str], SplitInputs] = {}
"""Splits that a command has checked and its pipeline has not opened yet, by list and archives."""


def open_split(config: Config, split: str) -> SplitInputs:
    """Return the pairs of train, val or test with their archives.

    Raises:
        DataError: a list or an archive is missing or malformed, or the archive lacks patches of the list.
    """
    checked = _checked.pop(_key(config, split), None)
    return _open(config, split) if checked is None else checked


def _key(config: Config, split: str) -> tuple[str, str, str]:
    return config.split_csv(split), config.bigEarthPthLMDB_S2, config.bigEarthPthLMDB_S1


def _open(config: Config, split: str) -> SplitInputs:
    listed = config.split_csv(split)
    s2_store, s1_store = open_stores(config, read_split_labels(listed))
    pairs = read_pairs(listed, s2_store, s1_store)
    check_stored(pairs, s2_store, s1_store)
    return SplitInputs(pairs, s2_store, s1_store)


def _check(config: Config, split: str) -> int:
    """Open a split again, cache it for the pipeline, and return its number of pairs."""
    found = _checked[_key(config, split)] = _open(config, split)
    return len(found.pairs)


def open_stores(config: Config, labels: LabelTable | None = None) -> tuple[PatchStore, PatchStore]:
    """Return the stores of Sentinel-2 and Sentinel-1; one object if both paths are equal."""
    s2_store = PatchStore(config.bigEarthPthLMDB_S2, labels)
    same = Path(config.bigEarthPthLMDB_S1).resolve() == Path(config.bigEarthPthLMDB_S2).resolve()
    return s2_store, s2_store if same else PatchStore(config.bigEarthPthLMDB_S1)


def read_configured_pairs(config: Config, split: str) -> PairList:
    """Return the names of the pairs of train, val or test, whether or not the archives contain them."""
    return read_pairs(config.split_csv(split), *open_stores(config))


def check_retrieval_inputs(config: Config) -> None:
    """Check the inputs of a retrieval: lists, archives, names.

    Raises:
        DataError: see open_split; or a list is empty.
    """
    calibration = ("train",) if config.precision == "int8" else ()
    for split in dict.fromkeys((config.query_split, config.archive_split, *calibration)):
        if _check(config, split) == 0:
            raise DataError(f"{config.split_csv(split)}: has no pairs; give a list with pairs")


def index_splits(splits: Sequence[str]) -> tuple[str, ...]:
    """Return the lists that an index of these splits reads, without duplicates; "all" reads every list.

    Raises:
        ConfigError: a split is unknown.
    """
    unknown = [split for split in splits if split not in (*SPLITS, ALL)]
    if unknown or not splits:
        raise ConfigError(f"--splits {' '.join(unknown)}: no such split; choose from {', '.join(SPLITS)}, or {ALL}")
    return SPLITS if ALL in splits else tuple(dict.fromkeys(splits))


def check_index_inputs(config: Config, splits: Sequence[str]) -> None:
    """Check the inputs of an index: lists, archives, names; raises the errors of index_splits and open_split."""
    for split in index_splits(splits):
        _check(config, split)


def check_training_inputs(config: Config) -> None:
    """Check the inputs of a training: arithmetic, lists, archives, names.

    Raises:
        ConfigError: precision is int8.
        DataError: see open_split; or a list has too few pairs for the loss.
    """
    refuse_int8(config)
    for split in ("train", "val"):
        require_pairs(config, split, _check(config, split))


def refuse_int8(config: Config) -> None:
    """Raise ConfigError where a network is to be trained in 8 bits."""
    if config.precision == "int8":
        raise ConfigError(
            f"{config.source}: precision is int8, which is for extraction; train with auto, fp32 or bf16, and set int8 "
            "in the run's parameters.yaml before the retrieval"
        )


def require_pairs(config: Config, split: str, size: int) -> None:
    """Raise DataError if a list has too few pairs for training."""
    least = 2 if config.loss_func == "contrastive" else 1
    if size < least:
        why = "the contrastive loss of one pair is always 0" if size else "training needs pairs"
        raise DataError(f"{config.split_csv(split)}: has {size} pairs; {why}: give a list with {least} or more")
