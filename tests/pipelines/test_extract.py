"""Extraction in blocks: an interruption costs its block and changes no bit, and so do Ray workers and their deaths."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tests.search.test_faults import kill_one_busy_worker

from bigearthnet_cbir.config import Config, parse_config
from bigearthnet_cbir.data.patch_store import PatchStore, PatchWriter
from bigearthnet_cbir.data.synthetic import make_pair
from bigearthnet_cbir.errors import ConfigError, DataError, ResultsError
from bigearthnet_cbir.models.onnx_runtime import has_onnx_runtime
from bigearthnet_cbir.pipelines import extract as stage
from bigearthnet_cbir.pipelines import index as index_stage
from bigearthnet_cbir.pipelines.extract import extract
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor, baseline_extractor, configured_extractor
from bigearthnet_cbir.pipelines.index import build_index
from bigearthnet_cbir.query.index import open_index
from bigearthnet_cbir.storage.features import FEATURES, read_block, write_block
from bigearthnet_cbir.storage.partial_features import PartialFeatures
from bigearthnet_cbir.types import Patch

pytestmark = pytest.mark.slow
needs_onnxruntime = pytest.mark.skipif(not has_onnx_runtime(), reason="needs the extra onnxruntime")

PAIRS = 22
BLOCKS = 6
"""Of two batches of two pairs each, and one of one batch."""

ENCODER = """
import torch
class Means:
    bands_s1, bands_s2, size, normalisation = ["VV"], ["B02", "B05"], 60, {}
    scale = SCALE
    def encode_s1(self, images):
        return images.mean((2, 3)).repeat(1, 3) * self.scale
    def encode_s2(self, images):
        return images.std((2, 3)).repeat(1, 2)[:, :3] * self.scale
def build():
    return Means()
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    with PatchWriter(folder / "patches.lmdb") as writer:
        for number in range(PAIRS):
            made = make_pair(0, number)
            writer.write(made.acquisition.names.s1, Patch(made.s1, made.labels))
            writer.write(made.acquisition.names.s2, Patch(made.s2, made.labels))
    names = [make_pair(0, number).acquisition.names for number in range(PAIRS)]
    (folder / "all.csv").write_text("".join(f"{pair.s2},{pair.s1}\n" for pair in names))
    (folder / "few.csv").write_text("".join(f"{pair.s2},{pair.s1}\n" for pair in names[:3]))
    return folder


@pytest.fixture
def config(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(stage, "EXTRACTION_BATCH", 2)
    return parse_config(
        {
            "train_csv": str(archive / "few.csv"), "val_csv": str(archive / "few.csv"),
            "test_csv": str(archive / "all.csv"), "bigEarthPthLMDB_S2": str(archive / "patches.lmdb"),
            "bigEarthPthLMDB_S1": str(archive / "patches.lmdb"), "num_workers": 0, "device": "cpu",
            "precision": "fp32", "extract_backend": "torch", "backbone": "resnet10", "projection_dim": 8,
            "out_channels": 4,
            "name": "g", "logging_params": {"save_dir": str(tmp_path), "name": "run"},
        }
    )  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a Ray worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(config: Config, path: Path, source: FeatureExtractor | None = None, **options: Any) -> str:
    [digest] = extract(config, {path: "test"}, source or baseline_extractor(config, "untrained"), **options)
    return digest


def counted(source: FeatureExtractor, stop_after: int | None = None) -> tuple[FeatureExtractor, list[int]]:
    """Return an extractor that notes the pairs of each batch, and is interrupted after some batches."""
    batches: list[int] = []

    def compute(batch: Any) -> dict[str, torch.Tensor]:
        if len(batches) == stop_after:
            raise KeyboardInterrupt
        batches.append(len(batch.label))
        return source.compute(batch)

    return replace(source, compute=compute), batches


def content(path: Path) -> dict[str, Any]:
    """Every dataset and attribute of a feature file but the time and the configuration."""
    with h5py.File(path) as file:
        found: dict[str, Any] = {name: values[()] for name, values in file.items()}
        found |= {
            f"@{name}": str(value) for name, value in file.attrs.items() if name not in ("created", "configuration")
        }
    return found


def assert_equal(one: Path, other: Path) -> None:
    left, right = content(one), content(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert np.array_equal(value, right[name]), name
    assert {"feature", "feature_s1", "feature_s2", "label", "patch_name"} <= left.keys()


def interrupted(config: Config, path: Path, batches: int) -> None:
    source, _ = counted(baseline_extractor(config, "untrained"), stop_after=batches)
    with pytest.raises(KeyboardInterrupt):
        run(config, path, source)


@pytest.mark.parametrize("batches", [0, 1, 2, 5, 10])
def test_an_interrupted_extraction_goes_on_after_its_last_finished_block(
    config: Config, tmp_path: Path, batches: int
) -> None:
    expected, path = tmp_path / "expected.h5", tmp_path / "features.h5"
    digest = run(config, expected)
    interrupted(config, path, batches)
    assert not path.exists()
    assert sum(file.suffix == ".npz" for file in PartialFeatures(path).folder.iterdir()) == batches // 2
    source, computed = counted(baseline_extractor(config, "untrained"))
    assert run(config, path, source) == digest
    assert sum(computed) == PAIRS - batches // 2 * 4
    assert_equal(path, expected)
    assert not PartialFeatures(path).folder.exists()


def test_features_equal_those_of_single_batches(config: Config, tmp_path: Path) -> None:
    """What is written is what the extractor gives for the batches in order."""
    source = baseline_extractor(config, "untrained")
    dataset = stage.build_dataset(config, "test", require_labels=True)
    parts = [source.compute(dataset.__getitems__(range(first, first + 2))) for first in range(0, PAIRS, 2)]
    run(config, tmp_path / "features.h5")
    with h5py.File(tmp_path / "features.h5") as file:
        for name in FEATURES:
            assert np.array_equal(file[name][:], torch.cat([part[name] for part in parts]).numpy())


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_processes_change_nothing(config: Config, tmp_path: Path, workers: int) -> None:
    expected, path = tmp_path / "expected.h5", tmp_path / "features.h5"
    run(config, expected)
    interrupted(config, path, 5)
    run(replace(config, num_workers=workers), path)
    assert_equal(path, expected)


def damage_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a byte": damage_byte,
    "empty": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "another block": lambda file: write_block(file, {"label": np.zeros((1, 19), np.uint8)}),
    "no arrays": lambda file: np.savez(file),
    "pickle": lambda file: file.write_bytes(pickle.dumps({"label": [1]})),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_block_is_computed_again_and_nothing_else(
    config: Config, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected, path = tmp_path / "expected.h5", tmp_path / "features.h5"
    run(config, expected)
    interrupted(config, path, 8)
    DAMAGE[kind](PartialFeatures(path).file(1))
    source, computed = counted(baseline_extractor(config, "untrained"))
    run(config, path, source)
    assert_equal(path, expected)
    assert sum(computed) == PAIRS - 12
    assert caplog.text.count("is damaged; it is computed again") == 1


def test_blocks_of_other_inputs_and_sizes_are_not_used(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features.h5"
    interrupted(config, path, 8)
    source, computed = counted(baseline_extractor(replace(config, seed=1), "untrained"))
    run(config, path, source)
    assert sum(computed) == PAIRS
    path.unlink()
    interrupted(config, path, 8)
    monkeypatch.setattr(stage, "EXTRACTION_BATCH", 4)
    source, computed = counted(baseline_extractor(config, "untrained"))
    run(config, path, source)
    assert sum(computed) == PAIRS


def test_recompute_drops_the_blocks(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    interrupted(config, path, 8)
    source, computed = counted(baseline_extractor(config, "untrained"))
    run(config, path, source, recompute=True)
    assert sum(computed) == PAIRS
    assert not PartialFeatures(path).folder.exists()


def test_blocks_beside_a_finished_file_are_removed(config: Config, tmp_path: Path) -> None:
    """A kill between the two leaves them."""
    path = tmp_path / "features.h5"
    run(config, path)
    PartialFeatures(path).open("any", PAIRS, 4)
    run(config, path)
    assert not PartialFeatures(path).folder.exists()


def test_a_block_that_is_not_finite_is_not_kept(config: Config, tmp_path: Path) -> None:
    source, path = baseline_extractor(config, "untrained"), tmp_path / "features.h5"
    broken = replace(source, compute=lambda batch: {name: part / 0 for name, part in source.compute(batch).items()})
    with pytest.raises(ResultsError, match="not finite"):
        run(config, path, broken)
    run(config, path, source)
    assert np.isfinite(content(path)["feature"]).all()


def test_a_block_is_read_as_it_was_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = {"feature": np.random.default_rng(0).random((5, 3), np.float32), "label": np.ones((5, 19), np.uint8)}
    write_block(tmp_path / "0.npz", columns)
    found = read_block(tmp_path / "0.npz", 5)
    assert found is not None
    assert all(
        np.array_equal(values, found[name]) and values.dtype == found[name].dtype for name, values in columns.items()
    )
    assert not caplog.records
    assert read_block(tmp_path / "0.npz", 6) is None


# On Ray workers.


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    from bigearthnet_cbir.search.ray_backend import ray_session

    with ray_session(2, 1 << 29):
        yield


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"type": "separate", "feature": "backbone", "fusion": "max"}, {"precision": "bf16"},
        pytest.param({"extract_backend": "onnxruntime"}, marks=needs_onnxruntime),
    ],
    ids=str,
)  # fmt: skip
def test_ray_workers_give_the_same_vectors(ray: None, config: Config, tmp_path: Path, settings: dict[str, Any]) -> None:
    config = replace(config, **settings)
    alone, spread = tmp_path / "alone.h5", tmp_path / "spread.h5"
    assert run(config, alone) == run(replace(config, extract_workers=2), spread)
    assert_equal(alone, spread)


def test_ray_workers_go_on_after_an_interruption_here(ray: None, config: Config, tmp_path: Path) -> None:
    expected, path = tmp_path / "expected.h5", tmp_path / "features.h5"
    run(config, expected)
    interrupted(config, path, 5)
    with h5py.File(expected) as file:
        assert len(file["label"]) == PAIRS
    run(replace(config, extract_workers=2), path)
    assert_equal(path, expected)


def test_band_statistics_on_ray_workers(ray: None, config: Config, tmp_path: Path) -> None:
    source = baseline_extractor(config, "band_statistics")
    alone, spread = tmp_path / "alone.h5", tmp_path / "spread.h5"
    assert run(config, alone, source) == run(replace(config, extract_workers=2), spread, source)


def test_a_foreign_encoder_on_ray_workers(ray: None, config: Config, tmp_path: Path) -> None:
    (tmp_path / "some_means.py").write_text(ENCODER.replace("SCALE", "2"))
    config = replace(config, encoder="some_means:build", encoder_path=str(tmp_path))
    source = configured_extractor(config, tmp_path)
    alone, spread = tmp_path / "alone.h5", tmp_path / "spread.h5"
    assert run(config, alone, source) == run(replace(config, extract_workers=2), spread, source)
    assert content(spread)["feature_s1"].shape == (PAIRS, 3)


def test_a_foreign_encoder_whose_code_differs_there_is_refused(ray: None, config: Config, tmp_path: Path) -> None:
    (tmp_path / "other_means.py").write_text(ENCODER.replace("SCALE", "2"))
    config = replace(config, encoder="other_means:build", encoder_path=str(tmp_path), extract_workers=2)
    source = configured_extractor(config, tmp_path)
    (tmp_path / "other_means.py").write_text(ENCODER.replace("SCALE", "3"))
    with pytest.raises(ConfigError, match=r"^[^\n]*other_means:build[^\n]*its code or weights differ[^\n]*$"):
        run(config, tmp_path / "features.h5", source)


def test_an_error_of_a_worker_is_one_line(ray: None, config: Config, tmp_path: Path) -> None:
    config, source = replace(config, extract_workers=2), baseline_extractor(config, "untrained")
    dataset = stage.build_dataset(config, "test", require_labels=True)
    dataset.s2_store = dataset.s1_store = PatchStore(tmp_path / "nowhere")
    blocks = stage.embedded_blocks(config, source, dataset, [(0, 4)])
    with pytest.raises(DataError, match=r"^[^\n]*nowhere[^\n]*$"), stage.extraction_session(config):
        next(blocks)


def test_a_killed_worker_costs_its_block_only(ray: None, config: Config, tmp_path: Path) -> None:
    config = replace(config, backbone="resnet50", type="separate", feature="backbone")  # so slow that a kill hits it
    alone, spread = tmp_path / "alone.h5", tmp_path / "spread.h5"
    digest = run(config, alone)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_busy_worker, args=(killed, "ray::_run"))
    killer.start()
    assert run(replace(config, extract_workers=2), spread) == digest
    killer.join()
    assert len(killed) == 1
    assert_equal(alone, spread)


def test_an_index_by_ray_workers_is_the_same(
    ray: None, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = baseline_extractor(config, "untrained")
    monkeypatch.setattr(index_stage, "configured_extractor", lambda *args, **options: source)
    found = {}
    for workers in (0, 2):
        chosen = replace(config, extract_workers=workers)
        index = open_index(build_index(chosen, splits=("test",), recompute=True))
        found[workers] = [np.array(index.vectors(side)) for side in ("s1", "s2", "fused")]
    for one, other in zip(found[0], found[2], strict=True):
        assert np.array_equal(one, other)
        assert len(one) == PAIRS


def test_ray_is_not_started_for_features_that_are_up_to_date(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features.h5"
    digest = run(config, path)
    monkeypatch.setattr(stage, "extraction_session", lambda config: pytest.fail("nothing is to be computed"))
    assert run(replace(config, extract_workers=2), path) == digest


def test_interruptions_are_logged(config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "features.h5"
    interrupted(config, path, 5)
    with caplog.at_level(logging.INFO):
        run(config, path)
    assert f"2 of {BLOCKS} blocks are there from an interrupted run" in caplog.text
    assert f"extracted {PAIRS - 8} pairs of test" in caplog.text
