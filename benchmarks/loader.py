"""The data path: samples a second and core, ours against the plain way, same archive, same pairs, same run.

    python benchmarks/loader.py [--pairs 256]

The plain way is what the original scripts did, written out below: unpickle a record, normalise every band and
interpolate the 20 m bands per sample on the CPU, stack float32 samples into a batch. Ours reads values as stored; the
same arithmetic happens per batch on the device. Here the device is the CPU too, so a third row adds it: what a machine
without an accelerator pays in all.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import lmdb
import numpy as np
import torch
from hardware import write_results
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from bigearthnet_cbir.data.bands import BAND_STATISTICS, S1_BANDS, S2_10M_BANDS, S2_20M_BANDS
from bigearthnet_cbir.data.dataset import BigEarthNetMM
from bigearthnet_cbir.data.loaders import ordered_loader
from bigearthnet_cbir.data.patch_store import PatchStore, PatchWriter
from bigearthnet_cbir.data.synthetic import make_pair
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.types import Patch, PatchPair

BATCH = 64
LABEL = np.zeros(19)


def write_archives(folder: Path, count: int) -> list[PatchPair]:
    """Write the same synthetic pairs as a patch store and as pickles of the original scripts' kind."""
    pairs = []
    pickles = lmdb.open(str(folder / "pickled"), map_size=1 << 32)
    with PatchWriter(folder / "store") as writer, pickles.begin(write=True) as transaction:
        for index in range(count):
            made = make_pair(0, index)
            pair = made.acquisition.names
            pairs.append(pair)
            writer.write(pair.s1, Patch(made.s1, made.labels))
            writer.write(pair.s2, Patch(made.s2, made.labels))
            groups = (S2_10M_BANDS, S2_20M_BANDS)
            stacks = [np.stack([made.s2[band] for band in bands]).astype(np.float32) for bands in groups]
            transaction.put(pair.s2.encode(), pickle.dumps((*stacks, LABEL)))
            transaction.put(pair.s1.encode(), pickle.dumps((*(made.s1[band][None] for band in S1_BANDS), LABEL)))
    pickles.close()
    return pairs


class PlainDataset(Dataset[Any]):
    """Per sample: unpickle, normalise band by band, interpolate each 20 m band to 120 x 120 pixels."""

    def __init__(self, path: Path, pairs: list[PatchPair]) -> None:
        self.pairs = pairs
        self.environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self.environment.begin() as transaction:
            ten, twenty, label = pickle.loads(transaction.get(self.pairs[index].s2.encode()))
            vv, vh, _ = pickle.loads(transaction.get(self.pairs[index].s1.encode()))
        bands = [normalised(image, name) for image, name in zip(ten, S2_10M_BANDS, strict=True)]
        for image, name in zip(twenty, S2_20M_BANDS, strict=True):
            small = torch.tensor(normalised(image, name))[None, None]
            bands.append(functional.interpolate(small, size=(120, 120), mode="bicubic").squeeze().numpy())
        radar = [normalised(image[0], name) for image, name in zip((vv, vh), S1_BANDS, strict=True)]
        return {"s1": torch.tensor(np.stack(radar)), "s2": torch.tensor(np.stack(bands)), "label": torch.tensor(label)}


def normalised(image: Any, band: str) -> Any:
    """Return (image - mean) / std of one band."""
    mean, std = BAND_STATISTICS[band]
    return (image - mean) / std


def rate(batches: Callable[[], Iterable[Any]], samples: int, turns: int = 4) -> float:
    """Return the samples a second of the fastest of several passes; the first is not counted."""
    seconds = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        for _ in batches():
            pass
        seconds.append(time.perf_counter() - start)
    return samples / min(seconds[1:])


def main() -> None:
    """Measure and write benchmarks/results/loader.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=256)
    count = parser.parse_args().pairs
    torch.set_num_threads(1)  # figures are per core
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pairs = write_archives(folder, count)
        store = PatchStore(folder / "store")
        ours = ordered_loader(BigEarthNetMM(pairs, store, store, require_labels=False), BATCH, 0)
        plain = DataLoader(PlainDataset(folder / "pickled", pairs), batch_size=BATCH)
        transform = BatchTransform()
        rates = {
            "plain: unpickle, normalise, interpolate per sample": rate(lambda: plain, count),
            "ours: values as stored": rate(lambda: ours, count),
            "ours, arithmetic on this CPU per batch": rate(lambda: (transform(batch) for batch in ours), count),
        }
        store.close()
    first = next(iter(rates.values()))
    write_results(
        "loader",
        [{"way": name, "samples/s and core": f"{r:,.0f}", "x plain": f"{r / first:.1f}"} for name, r in rates.items()],
    )


if __name__ == "__main__":
    main()
