"""The public API: names, laziness, and every example in a docstring, on six real pairs."""

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Archive, RealPairs

import bigearthnet_cbir as cbir
from bigearthnet_cbir.data.splits import SPLITS
from bigearthnet_cbir.errors import CheckpointError, DataError
from bigearthnet_cbir.models.export import write_export
from bigearthnet_cbir.pipelines.builders import build_encoder
from bigearthnet_cbir.training.checkpoints import load_checkpoint, save_checkpoint

SOURCE = Path(cbir.__file__).parent
WITH_EXAMPLES = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, archives: dict[str, Archive]) -> Path:
    """A run folder whose network was trained for one epoch on the six pairs."""
    archive = archives["rico"]
    config = {
        **{f"{split}_csv": f"{archive.parquet}:{'test' if split == 'val' else split}" for split in SPLITS},
        "bigEarthPthLMDB_S2": str(archive.s2), "bigEarthPthLMDB_S1": str(archive.s1), "backbone": "resnet10",
        "projection_dim": 8, "out_channels": 4, "batch_size": 3, "epochs": 1, "num_workers": 0, "device": "cpu",
        "precision": "fp32", "top_k": 2, "query_split": "val", "archive_split": "train", "name": "api",
        "logging_params": {"save_dir": str(tmp_path_factory.mktemp("logs")), "name": "first"},
    }  # fmt: skip
    folder = cbir.train(config)
    assert cbir.retrieve(folder / "parameters.yaml") == folder / "retrieval.h5"
    return folder


@pytest.fixture(scope="module")
def labels(archives: dict[str, Archive]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        found |= dict(cbir.read_split_labels(f"{archives['rico'].parquet}:{split}") or {})
    return found


def test_import_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, bigearthnet_cbir; assert not {'torch', 'numpy', 'numba', 'h5py', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SOURCE.parent)


def test_every_public_name_is_there_and_documented() -> None:
    page = (SOURCE.parents[1] / "docs" / "api.md").read_text()
    for name in cbir.__all__:
        found = getattr(cbir, name)
        assert inspect.getdoc(found), name
        assert name == "__version__" or f"`{name}" in page, f"docs/api.md does not name {name}"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        cbir.nothing  # noqa: B018


def test_packages_are_called_like_their_main_function_and_stay_packages() -> None:
    from bigearthnet_cbir.search import knn

    assert cbir.search is sys.modules["bigearthnet_cbir.search"]
    assert inspect.signature(cbir.search) == inspect.signature(knn.search)
    assert importlib.import_module("bigearthnet_cbir.search.knn") is knn


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings_run(
    path: Path, run: Path, real_pairs: RealPairs, archives: dict[str, Archive], tmp_path: Path
) -> None:
    name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
    given = {"archive": archives["encoder"].s2, "pairs": real_pairs.pairs, "run": run, "folder": tmp_path}
    failed, tried = doctest.testmod(importlib.import_module(name), extraglobs=given)
    assert (failed, tried > 0) == (0, True)


def test_the_way_from_a_list_to_figures(run: Path, archives: dict[str, Archive], labels) -> None:
    archive = archives["rico"]
    pairs = cbir.read_split(f"{archive.parquet}:train")
    data = cbir.BigEarthNetMM.from_lmdb(archive.s2, pairs, labels=labels)
    two = cbir.BigEarthNetMM.from_lmdb(s2=archive.s2, s1=archive.s1, pairs=pairs, labels=labels)
    assert len(data) == len(two) == 3
    found = cbir.embed(cbir.load_encoder(run, device="cpu", precision="fp32"), data)
    assert list(found.names) == list(pairs)
    hits = cbir.search(found.s1, found.s2, k=2, distance="cosine")
    result = cbir.evaluate(hits, found.labels, found.labels)
    assert set(result.intervals) == {"P@10", "R@10", "F1@10", "F1@5", "mAP@10", "NDCG@10"}
    assert f"{result.curves['average_precision'][1]:.3f}" in str(result)
    assert "chance" in str(result)


def test_embeddings_are_those_that_retrieval_wrote(run: Path, archives: dict[str, Archive], labels) -> None:
    import h5py

    pairs = cbir.read_split(f"{archives['rico'].parquet}:train")
    data = cbir.BigEarthNetMM.from_lmdb(archives["rico"].s2, pairs, labels=labels)
    found = cbir.embed(cbir.load_encoder(run, device="cpu", precision="fp32"), data)
    with h5py.File(run / "archive.h5") as file:
        assert np.array_equal(found.fused, file["feature"][:])
        assert np.array_equal(found.labels, file["label"][:])


def test_encoders_of_a_run_a_checkpoint_and_an_export_are_one(
    run: Path, archives: dict[str, Archive], labels, tmp_path: Path
) -> None:
    config = cbir.load_config(run / "parameters.yaml")
    content = load_checkpoint(run / "checkpoints_model_best.pth.tar")
    options = {key: content["identity"][key] for key in ("type", "backbone", "projection_dim", "projection_head",
                                                         "out_channels", "sensor_norm")}  # fmt: skip
    model = build_encoder(config)
    model.load_state_dict(content["state_dict"])
    write_export(model.eval(), tmp_path / "export", options, {"fusion": "concat", "feature": "projection"})
    pairs = cbir.read_split(f"{archives['rico'].parquet}:train")
    data = cbir.BigEarthNetMM.from_lmdb(archives["rico"].s2, pairs, labels=labels)
    places = (run, run / "checkpoints_model_best.pth.tar", tmp_path / "export")
    first, *others = (cbir.embed(cbir.load_encoder(place, device="cpu", precision="fp32"), data) for place in places)
    for other in others:
        assert np.array_equal(first.fused, other.fused)


def test_mistakes_are_one_line(run: Path, tmp_path: Path, archives: dict[str, Archive]) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        cbir.load_encoder(tmp_path)
    save_checkpoint(tmp_path / "bare.pth.tar", {"state_dict": {}})
    with pytest.raises(CheckpointError, match="no settings of the network"):
        cbir.load_encoder(tmp_path / "bare.pth.tar")
    with pytest.raises(DataError, match=r"or two as s2=\.\.\. and s1=\.\.\."):
        cbir.BigEarthNetMM.from_lmdb(s2=archives["rico"].s2, pairs=[])


def test_report_of_a_run(run: Path) -> None:
    assert cbir.report(run) == run / "report.html"
    assert cbir.read_results(run / "retrieval.h5").directions["s1_s2"].depth == 2
