"""PyTorch dataset of patch pairs; it returns stored values without computation on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bigearthnet_cbir.data.bands import S1_BANDS, S2_10M_BANDS, S2_20M_BANDS
from bigearthnet_cbir.data.labels import N_CLASSES, multi_hot
from bigearthnet_cbir.data.pair_list import PairList
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.stored_pairs import check_stored
from bigearthnet_cbir.errors import DataError
from bigearthnet_cbir.types import Patch, PatchPair


class PairBatch(NamedTuple):
    """One pair, or a batch of pairs with a leading axis B, with values as stored.

    Attributes:
        s1: (2, 120, 120) float32 dB, channels VV, VH.
        s2_10m: (4, 120, 120) reflectance x 10 000, channels B02 B03 B04 B08; uint16, or float32 from
            archives of the original scripts.
        s2_20m: (6, 60, 60), channels B05 B06 B07 B8A B11 B12; dtype as s2_10m.
        label: (19,) uint8 multi-hot.
        pair_index: index in the list of pairs, int64.
    """

    s1: Tensor
    s2_10m: Tensor
    s2_20m: Tensor
    label: Tensor
    pair_index: Tensor


class BigEarthNetMM(Dataset[PairBatch]):
    """Paired Sentinel-1 and Sentinel-2 patches from one or two patch stores.

    Args:
        pairs: names of the pairs, in the order of the samples.
        s2_store: store of the Sentinel-2 patches. Its labels (of its table, else of the record) are used first.
        s1_store: store of the Sentinel-1 patches; may be the same store. Its labels are used if s2_store has
            none.
        require_labels: whether a pair without labels is an error. If not (contrastive training), the label of
            such a pair is all zero and is not used.
        is_checked: whether check_stored has already found all pairs in the stores.

    Raises:
        DataError: at construction, if names are missing from a store; the message has their number and the first ones.
    """

    def __init__(
        self,
        pairs: Sequence[PatchPair],
        s2_store: PatchStore,
        s1_store: PatchStore,
        *,
        require_labels: bool = True,
        is_checked: bool = False,
    ) -> None:
        self.pairs = PairList.of(pairs)
        self.s2_store = s2_store
        self.s1_store = s1_store
        self.require_labels = require_labels
        if not is_checked:
            check_stored(self.pairs, s2_store, s1_store)

    @classmethod
    def from_lmdb(
        cls,
        path: Path | str | None = None,
        pairs: Sequence[PatchPair] = (),
        *,
        s2: Path | str | None = None,
        s1: Path | str | None = None,
        labels: Mapping[str, tuple[str, ...]] | None = None,
        require_labels: bool = True,
    ) -> BigEarthNetMM:
        """Return the dataset of one LMDB folder with both sensors, or of two.

        Args:
            path: the LMDB folder of both sensors.
            pairs: from `read_split`.
            s2: in place of `path`: the folder of the Sentinel-2 patches.
            s1: in place of `path`: the folder of the Sentinel-1 patches.
            labels: Sentinel-2 patch name -> 19-class names, for archives whose records have none.
            require_labels: whether a pair without labels is an error.

        Raises:
            DataError: neither `path` nor both `s2` and `s1` were given, or as in the constructor.

        Example (`archive` is an LMDB folder with six pairs, `pairs` their names):
            >>> import bigearthnet_cbir as cbir
            >>> data = cbir.BigEarthNetMM.from_lmdb(archive, pairs)
            >>> len(data), tuple(data[0].s1.shape), tuple(data[0].s2_20m.shape)
            (6, (2, 120, 120), (6, 60, 60))
        """
        given = [folder for folder in (s2, s1) if folder is not None]
        if (path is None) != (len(given) == 2) or (path is not None and given):
            raise DataError("from_lmdb: give one LMDB folder with both sensors, or two as s2=... and s1=...")
        s2_store = PatchStore(path or given[0], labels)
        s1_store = s2_store if path is not None else PatchStore(given[1])
        return cls(pairs, s2_store, s1_store, require_labels=require_labels)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> PairBatch:
        """Return one pair with its values as stored; raises as `__getitems__` does."""
        batch = self.__getitems__([index])
        return PairBatch(*(values[0] for values in batch))

    def __getitems__(self, indices: Sequence[int]) -> PairBatch:
        """Return a batch of pairs: each value is copied once, from the memory map to its row of the batch.

        Raises:
            DataError: a record is malformed, lacks a band, or has no label where one is required.
        """
        filling: dict[str, npt.NDArray[Any]] = {}
        labels = np.zeros((len(indices), N_CLASSES), dtype=np.uint8)
        with self.s2_store.reading() as read_s2, self.s1_store.reading() as read_s1:
            for row, index in enumerate(indices):
                pair = self.pairs[index]
                s2, s1 = read_s2(pair.s2), read_s1(self.s1_store.s1_name(pair))
                parts = (("s1", s1, S1_BANDS), ("s2_10m", s2, S2_10M_BANDS), ("s2_20m", s2, S2_20M_BANDS))
                for field, patch, bands in parts:
                    _fill(filling, field, (row, len(indices)), [_band(patch, band, pair) for band in bands])
                labels[row] = self._label(pair, s2.labels if s2.labels is not None else s1.labels)
        return PairBatch(
            **{field: torch.from_numpy(values) for field, values in filling.items()},
            label=torch.from_numpy(labels),
            pair_index=torch.tensor(indices),
        )

    def _label(self, pair: PatchPair, names: tuple[str, ...] | None) -> npt.NDArray[np.uint8]:
        if names is not None:
            return multi_hot(names)
        if self.require_labels:
            raise DataError(
                f"{pair.s2}: neither record of this pair has labels; use metadata.parquet:train as the split "
                "list, which has labels, or encode the archive with labels"
            )
        return np.zeros(N_CLASSES, dtype=np.uint8)


def _band(patch: Patch, band: str, pair: PatchPair) -> npt.NDArray[np.generic]:
    try:
        return patch.bands[band]
    except KeyError as error:
        name = pair.s1 if band in S1_BANDS else pair.s2
        raise DataError(f"{name}: band {band} is not in its record; are the two LMDBs swapped?") from error


def _fill(
    filling: dict[str, npt.NDArray[Any]], field: str, where: tuple[int, int], bands: list[npt.NDArray[np.generic]]
) -> None:
    """Copy bands to their row of a batch, which the first sample allocates; mixed data types widen it to float32."""
    row, rows = where
    if field not in filling:
        filling[field] = np.empty((rows, len(bands), *bands[0].shape), bands[0].dtype)
    if bands[0].dtype != filling[field].dtype:
        filling[field] = filling[field].astype(np.float32)
    for channel, values in enumerate(bands):
        filling[field][row, channel] = values


def collate(samples: PairBatch | list[PairBatch]) -> PairBatch:
    """Return samples as a batch; `BigEarthNetMM.__getitems__` has already collated them."""
    if isinstance(samples, PairBatch):
        return samples
    return PairBatch(*(torch.stack(part) for part in zip(*samples, strict=True)))
