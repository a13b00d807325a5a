"""Pairs of patches as a PyTorch dataset: a sample is a read, nothing is computed on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bigearthnet_cbir.data.bands import S1_BANDS, S2_10M_BANDS, S2_20M_BANDS
from bigearthnet_cbir.data.labels import N_CLASSES, multi_hot
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.errors import DataError, shown
from bigearthnet_cbir.types import PatchPair


class PairBatch(NamedTuple):
    """One pair, or a batch of pairs with a leading axis B, with values as stored.

    Attributes:
        s1: (2, 120, 120) float32 dB, channels VV, VH.
        s2_10m: (4, 120, 120) reflectance x 10 000, channels B02 B03 B04 B08; uint16, or float32 from
            archives of the original scripts.
        s2_20m: (6, 60, 60), channels B05 B06 B07 B8A B11 B12; dtype as s2_10m.
        label: (19,) uint8 multi-hot.
        position: index in the list of pairs, int64.
    """

    s1: Tensor
    s2_10m: Tensor
    s2_20m: Tensor
    label: Tensor
    position: Tensor


class BigEarthNetMM(Dataset[PairBatch]):
    """Paired Sentinel-1 and Sentinel-2 patches from one or two patch stores.

    Args:
        pairs: names of the pairs, in the order of the samples.
        s2_store: where the Sentinel-2 patches are; their labels are the samples' labels.
        s1_store: where the Sentinel-1 patches are; may be the same store. Its labels are used where the
            Sentinel-2 record has none.
        require_labels: whether a pair without any label record is an error. Where it is not (training by
            contrast), the label of such a pair is all zero and nobody reads it.

    Raises:
        DataError: at construction, when a store lacks some of the names: their number and the first few.
    """

    def __init__(
        self, pairs: Sequence[PatchPair], s2_store: PatchStore, s1_store: PatchStore, *, require_labels: bool = True
    ) -> None:
        self.pairs = list(pairs)
        self.s2_store = s2_store
        self.s1_store = s1_store
        self.require_labels = require_labels
        for store, names, sensor in (
            (s2_store, [pair.s2 for pair in self.pairs], "Sentinel-2"),
            (s1_store, [s1_store.s1_name(pair) for pair in self.pairs], "Sentinel-1"),
        ):
            missing = store.missing(names)
            if missing:
                raise DataError(
                    f"{store.path}: {len(missing):,} of {len(names):,} {sensor} patches of the list are not in this "
                    f"archive ({shown(missing)}); check the list, or that the two LMDB paths are not swapped"
                )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> PairBatch:
        """Return one pair with its values as stored.

        Raises:
            DataError: a record is malformed, or has no label where one is required.
        """
        pair = self.pairs[index]
        s2, s1 = self.s2_store.read(pair.s2), self.s1_store.read(self.s1_store.s1_name(pair))
        return PairBatch(
            s1=_stack(s1.bands, S1_BANDS, pair.s1),
            s2_10m=_stack(s2.bands, S2_10M_BANDS, pair.s2),
            s2_20m=_stack(s2.bands, S2_20M_BANDS, pair.s2),
            label=torch.from_numpy(self._label(pair, s2.labels if s2.labels is not None else s1.labels)),
            position=torch.tensor(index),
        )

    def _label(self, pair: PatchPair, names: tuple[str, ...] | None) -> npt.NDArray[np.uint8]:
        if names is not None:
            return multi_hot(names)
        if self.require_labels:
            raise DataError(f"{pair.s2}: neither record of this pair has labels; encode the archive with labels")
        return np.zeros(N_CLASSES, dtype=np.uint8)


def _stack(bands: dict[str, npt.NDArray[np.generic]], wanted: tuple[str, ...], name: str) -> Tensor:
    try:
        return torch.from_numpy(np.stack([bands[band] for band in wanted]))
    except KeyError as error:
        raise DataError(f"{name}: band {error.args[0]} is not in its record; are the two LMDBs swapped?") from error
