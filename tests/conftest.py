"""Real BigEarthNet patches for every test that reads data: six pairs, as GeoTIFFs and as each archive kind."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import sys
import tarfile
import types
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from safetensors.numpy import save

from bigearthnet_cbir.data.bands import S1_BANDS, S2_10M_BANDS, S2_20M_BANDS, S2_60M_BANDS, S2_BANDS
from bigearthnet_cbir.data.labels import multi_hot, to_19_classes
from bigearthnet_cbir.types import Patch, PatchPair

# Three test files run at a time, and some start further processes: with a thread each for every core, PyTorch's threads
# would wait for each other. It is read when torch is imported, here and in the scripts that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "data"


LONGEST = (
    "test_scripts.py", "test_extract.py", "test_tutorial.py", "test_faults.py", "test_processors.py", "test_page.py",
    "test_packaging.py", "test_ray_index.py", "test_index_codes.py", "test_parallel.py", "test_int8.py",
)  # fmt: skip
"""Test files that take more than half a minute, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process has one of them left when the others are done."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


class RealPairs(NamedTuple):
    """The six pairs as v1 folders."""

    s1_root: Path
    s2_root: Path
    pairs: list[PatchPair]


class Archive(NamedTuple):
    """One kind of archive that holds the six pairs; parquet where its labels are beside the LMDB."""

    s2: Path
    s1: Path
    parquet: Path | None = None


@pytest.fixture(scope="session")
def samples() -> Path:
    """More real samples, of the kinds that other tools wrote, where this machine has them."""
    if not SAMPLES.is_dir():
        pytest.skip("no folder of samples here; the same kinds are tested as built from the six packaged pairs")
    return SAMPLES


@pytest.fixture(scope="session")
def real_pairs(tmp_path_factory: pytest.TempPathFactory) -> RealPairs:
    """Six real v1 pairs as GeoTIFF folders, from the data files of the bigearthnet-common package."""
    spec = importlib.util.find_spec("bigearthnet_common")  # found, not imported: it needs packages that we do not
    if spec is None:
        pytest.fail("the tests need real patches: pip install --no-deps bigearthnet-common==2.8.0 (make test does it)")
    root = tmp_path_factory.mktemp("bigearthnet-v1")
    for sensor in ("S1", "S2"):
        name = f"BigEarthNet-{sensor}-Example"
        with tarfile.open(Path(spec.submodule_search_locations[0]) / f"{name}.tar.bz2") as archive:
            archive.extractall(root, filter="data")
    s1_root, s2_root = root / "BigEarthNet-S1-Example", root / "BigEarthNet-S2-Example"
    pairs = []
    for path in sorted(s1_root.glob("*/*.json")):
        pairs.append(PatchPair(json.loads(path.read_text())["corresponding_s2_patch"], path.parent.name))
    assert len(pairs) == 6
    return RealPairs(s1_root, s2_root, pairs)


@pytest.fixture(scope="session")
def true_patches(real_pairs: RealPairs) -> dict[str, Patch]:
    """Name -> patch, read by rasterio and json alone: the oracle for every reader."""
    found = {}
    for pair in real_pairs.pairs:
        for name, root, bands in ((pair.s2, real_pairs.s2_root, S2_BANDS), (pair.s1, real_pairs.s1_root, S1_BANDS)):
            pixels = {}
            for band in bands:
                with rasterio.open(root / name / f"{name}_{band}.tif") as source:
                    pixels[band] = source.read(1)
            names = json.loads((root / name / f"{name}_labels_metadata.json").read_text())["labels"]
            found[name] = Patch(pixels, to_19_classes(names))
    return found


@pytest.fixture(scope="session")
def archives(
    real_pairs: RealPairs, true_patches: dict[str, Patch], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Archive]:
    """The six pairs as each of the LMDB kinds that other tools write, built without the code under test."""
    root = tmp_path_factory.mktemp("archives")
    pairs, read = real_pairs.pairs, true_patches.__getitem__
    original_s1 = _write(root / "original-S1", {p.s1: _original_s1(read(p.s1)) for p in pairs}, with_keys=True)
    original_s2 = _write(root / "original-S2", {p.s2: _original_s2(read(p.s2)) for p in pairs}, with_keys=True)
    encoder = _write(root / "encoder", {p.s2: encoder_record(read(p.s1), read(p.s2), real_pairs, p) for p in pairs})
    rico = _write(root / "rico", {name: save(dict(read(name).bands)) for pair in pairs for name in pair})
    parquet = root / "metadata.parquet"
    write_parquet(parquet, [(p.s2, p.s1, read(p.s2).labels, split) for p, split in zip(pairs, V2_SPLITS, strict=True)])
    return {
        "original": Archive(original_s2, original_s1),
        "encoder": Archive(encoder, encoder),
        "rico": Archive(rico, rico, parquet),
    }


V2_SPLITS = ("train", "train", "train", "validation", "test", "test")


def write_parquet(path: Path, rows: list[tuple]) -> None:
    """Write (s2, s1, labels, split) rows with every column of BigEarthNet v2; labels are sorted by name there."""
    s2, s1, labels, split = zip(*rows, strict=True)
    flags = [False] * len(rows)
    columns = {
        "patch_id": s2,
        "labels": [sorted(names) for names in labels],
        "split": split,
        "country": ["Austria"] * len(rows),
        "s1_name": s1,
        "s2v1_name": s2,
        "contains_seasonal_snow": flags,
        "contains_cloud_or_shadow": flags,
    }
    pq.write_table(pa.table(columns), path)


def _write(path: Path, content: dict[str, bytes], with_keys: bool = False) -> Path:
    entries = {name.encode(): value for name, value in content.items()}
    if with_keys:
        entries |= {b"__keys__": pickle.dumps(list(entries)), b"__len__": pickle.dumps(len(entries))}
    path.mkdir()
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value)
    environment.close()
    (path / "lock.mdb").unlink()
    return path


def _original_s2(patch: Patch) -> bytes:
    stacks = [
        np.stack([patch.bands[band] for band in bands]).astype("f4")
        for bands in (S2_10M_BANDS, S2_20M_BANDS, S2_60M_BANDS)
    ]
    return pickle.dumps((*stacks, multi_hot(patch.labels).astype("f8")))


def _original_s1(patch: Patch) -> bytes:
    return pickle.dumps((*(patch.bands[band][None] for band in S1_BANDS), multi_hot(patch.labels).astype("f8")))


def encoder_record(s1: Patch, s2: Patch, real: RealPairs, pair: PatchPair) -> bytes:
    """Pickle objects of classes with the names that bigearthnet_encoder's have, and NumPy 1's module names."""
    names = {"merged": "BigEarthNet_S1_S2_Patch", "s1": "BigEarthNet_S1_Patch", "s2": "BigEarthNet_S2_Patch"}
    classes = {}
    for part, name in {**names, "band": "Band"}.items():
        module = types.ModuleType(f"bigearthnet_patch_interface.{part}_interface")
        classes[part] = type(name, (), {"__module__": module.__name__})
        setattr(module, name, classes[part])
        sys.modules[module.__name__] = module
    sys.modules["bigearthnet_patch_interface"] = types.ModuleType("bigearthnet_patch_interface")
    try:
        halves = {
            "s1": {f"band{band}": pixels for band, pixels in s1.bands.items()},
            "s2": {f"band{band[1:]}": pixels for band, pixels in s2.bands.items()},
        }
        patch = classes["merged"]()
        for part, attributes in halves.items():
            half = classes[part]()
            for attribute, pixels in attributes.items():
                band = classes["band"]()
                band.data, band.name = pixels, attribute
                setattr(half, attribute, band)
            setattr(patch, f"{part}_patch", half)
        path = real.s2_root / pair.s2 / f"{pair.s2}_labels_metadata.json"
        patch.labels, patch.new_labels = json.loads(path.read_text())["labels"], list(s2.labels)
        stream = io.BytesIO()
        pickle.Pickler(stream, protocol=4).dump(patch)
        return stream.getvalue()
    finally:
        for name in [name for name in sys.modules if name.startswith("bigearthnet_patch_interface")]:
            del sys.modules[name]
