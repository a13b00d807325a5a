"""Training and retrieval straight from every kind of archive, by the real commands: same pairs, same result.

The kinds are built from the six real pairs of bigearthnet-common; where this machine has the folder of samples that
other tools wrote, those are used as well.
"""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from tests.commands import run_command
from tests.conftest import Archive, RealPairs
from tests.models.test_original import OriginalNetwork

from bigearthnet_cbir.cli import encode, export, retrieve, train
from bigearthnet_cbir.config import load_config
from bigearthnet_cbir.data.loaders import ordered_loader
from bigearthnet_cbir.data.patch_store import PatchStore
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.models.export import DESCRIPTION, read_export
from bigearthnet_cbir.pipelines.builders import build_dataset

pytestmark = pytest.mark.slow

KINDS = ("original", "encoder", "rico")


def run_on(archive: Archive, lists: dict[str, str], folder: Path, **more: object) -> Path:
    """Train one epoch and retrieve; return the run folder."""
    values = {
        **{f"{split}_csv": path for split, path in lists.items()},
        "bigEarthPthLMDB_S2": str(archive.s2),
        "bigEarthPthLMDB_S1": str(archive.s1),
        "backbone": "resnet10",
        "projection_dim": 8,
        "out_channels": 4,
        "loss_func": "classification",
        "batch_size": 3,
        "epochs": 1,
        "num_workers": 0,
        "device": "cpu",
        "precision": "fp32",  # features are compared with a float32 network's
        "query_split": "test",
        "archive_split": "train",
        "name": "kinds",
        "logging_params": {"save_dir": str(folder), "name": "run"},
        **more,
    }
    path = folder / "args.yaml"
    path.write_text(yaml.safe_dump(values))
    run_command(train.main, "--filepath", path)
    run = folder / "kinds" / "run"
    run_command(retrieve.main, "--filepath", run / "parameters.yaml")
    return run


def csv_lists(pairs: RealPairs, folder: Path) -> dict[str, str]:
    """The parquet's splits as CSV files."""
    lists = {}
    for split, rows in (("train", slice(0, 3)), ("val", slice(3, 4)), ("test", slice(4, 6))):
        path = folder / f"{split}.csv"
        path.write_text("".join(f"{pair.s2},{pair.s1}\n" for pair in pairs.pairs[rows]))
        lists[split] = str(path)
    return lists


@pytest.fixture(scope="module")
def runs(
    archives: dict[str, Archive], real_pairs: RealPairs, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    made = {}
    for kind in ("ours", *KINDS):
        folder = tmp_path_factory.mktemp(kind)
        if kind == "ours":
            store = folder / "patches.lmdb"
            roots = ("--s2-root", real_pairs.s2_root, "--s1-root", real_pairs.s1_root)
            run_command(encode.main, *roots, "--output", store)
            archive = Archive(store, store)
        else:
            archive = archives[kind]
        parquet = archive.parquet
        lists = csv_lists(real_pairs, folder)
        if parquet is not None:
            lists = {split: f"{parquet}:{split}" for split in ("train", "val", "test")}
        made[kind] = run_on(archive, lists, folder)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_and_retrieves_to_the_same_features(runs: dict[str, Path], kind: str) -> None:
    for name in ("query.h5", "archive.h5"):
        with h5py.File(runs["ours"] / name) as ours, h5py.File(runs[kind] / name) as theirs:
            for dataset in ("feature", "feature_s1", "feature_s2", "label", "patch_name"):
                assert np.array_equal(ours[dataset][:], theirs[dataset][:]), (name, dataset)
            assert list(ours.attrs["class_names"]) == list(theirs.attrs["class_names"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_batch_tensors(runs: dict[str, Path], kind: str) -> None:
    ours, theirs = (
        build_dataset(load_config(runs[name] / "parameters.yaml"), "train", require_labels=True)
        for name in ("ours", kind)
    )
    for index in range(len(ours)):
        for one, other in zip(ours[index], theirs[index], strict=True):
            assert np.array_equal(one.float().numpy(), other.float().numpy())


def test_real_v2_sample_goes_all_the_way(samples: Path, tmp_path: Path) -> None:
    folder = samples / "bigearthnet-v2"
    archive = Archive(folder / "BigEarthNet-V2-LMDB", folder / "BigEarthNet-V2-LMDB")
    lists = {split: f"{folder / 'metadata.parquet'}:{split}" for split in ("train", "val", "test")}
    run = run_on(archive, lists, tmp_path)
    with h5py.File(run / "retrieval.h5") as results:
        assert results.attrs["queries"] > 0


def test_real_encoder_sample_goes_all_the_way(samples: Path, tmp_path: Path) -> None:
    """Its records do not say what the Sentinel-1 patch is called: the list's second column is only a label."""
    path = samples / "encoder-lmdb" / "BigEarthNetEncoded.lmdb"
    names = sorted(PatchStore(path).names())
    lists = {}
    for split, part in (("train", names[:2]), ("val", names[2:3]), ("test", names[3:])):
        file = tmp_path / f"{split}.csv"
        lines = [f"{name},S1A_IW_GRDH_1SDV_20180101T000000_33UUP_1_{row}\n" for row, name in enumerate(part)]
        file.write_text("".join(lines))
        lists[split] = str(file)
    run = run_on(Archive(path, path), lists, tmp_path, batch_size=2)
    assert (run / "retrieval.h5").exists()


def test_real_original_sample_goes_all_the_way_with_the_original_keys(samples: Path, tmp_path: Path) -> None:
    folder = samples / "original-lmdb"
    lists = {split: str(folder / f"{split}.csv") for split in ("train", "val", "test")}
    kept = {"pretrain": False, "reload": True, "epoch_num": 3, "scheduler_gamma": 0.5, "n_features": 512}
    logging_params = {"save_dir": str(tmp_path), "name": "run", "summaries": "x", "suffix": "y"}
    archive = Archive(folder / "BigEarth_S2.lmdb", folder / "BigEarth_S1.lmdb")
    run = run_on(archive, lists, tmp_path, **kept, logging_params=logging_params)
    assert (run / "retrieval.h5").exists()


def test_checkpoint_of_the_original_scripts_retrieves(runs: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = OriginalNetwork().eval()
    checkpoint = tmp_path / "checkpoint.pth.tar"
    content = {"epoch": 7, "state_dict": network.state_dict(), "optimizer": {"state": {}}}
    torch.save(content, checkpoint, _use_new_zipfile_serialization=False)  # as old versions of torch did
    values = yaml.safe_load((runs["ours"] / "parameters.yaml").read_text())
    values |= {"backbone": "resnet50", "n_features": 2048, "state_dict": str(checkpoint), "num_cpu": 0}
    values["logging_params"] |= {"save_dir": str(tmp_path), "name": "original"}
    path = tmp_path / "original.yaml"
    path.write_text(yaml.safe_dump(values))
    run_command(retrieve.main, "--filepath", path)
    dataset = build_dataset(load_config(path), "test", require_labels=True)
    (batch,) = ordered_loader(dataset, 8, 0)
    with torch.inference_mode():
        z1, z2 = network(*BatchTransform()(batch), values["type"])
    with h5py.File(tmp_path / "kinds" / "original" / "query.h5") as query:
        assert np.allclose(query["feature_s1"][:], z1.numpy(), atol=1e-4)
        assert np.allclose(query["feature_s2"][:], z2.numpy(), atol=1e-4)


def test_export_gives_the_features_of_the_run(runs: dict[str, Path]) -> None:
    run = runs["ours"]
    run_command(export.main, "--filepath", run / "parameters.yaml")
    model, description = read_export(run / "export")
    assert (run / "export" / DESCRIPTION).exists()
    assert description["inputs"]["s2"][:4] == ["B02", "B03", "B04", "B08"]
    dataset = build_dataset(load_config(run / "parameters.yaml"), "test", require_labels=True)
    (batch,) = ordered_loader(dataset, 8, 0)
    with torch.inference_mode():
        output = model(*BatchTransform()(batch))
    with h5py.File(run / "query.h5") as query:
        assert np.allclose(query["feature_s1"][:], output.z1.numpy(), atol=1e-5)
        assert np.allclose(query["feature_s2"][:], output.z2.numpy(), atol=1e-5)
