"""Networks in 8 bits: close to float32, calibrated on training patches only, and never mixed with other vectors."""

from __future__ import annotations

import json
import logging
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tests.commands import run_command
from tests.config.test_config import MINIMAL
from tests.models.networks import trained_like
from tests.pipelines.test_extract import archive as archive
from tests.pipelines.test_extract import config as config
from tests.pipelines.test_extract import content, run

from bigearthnet_cbir.cli import retrieve, train
from bigearthnet_cbir.config import Config, parse_config, write_config
from bigearthnet_cbir.errors import ConfigError, DataError
from bigearthnet_cbir.models import int8, onnx_runtime
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.onnx_runtime import OnnxEncoder
from bigearthnet_cbir.pipelines import encoder_features
from bigearthnet_cbir.pipelines.calibration import CALIBRATION_PAIRS, Calibration
from bigearthnet_cbir.pipelines.encoder_features import choose_arithmetic
from bigearthnet_cbir.pipelines.feature_extractors import encoder_extractor
from bigearthnet_cbir.storage.features import FEATURES

pytest.importorskip("onnxruntime", reason="needs the extra onnxruntime")
pytest.importorskip("onnx", reason="needs the extra onnxruntime")
pytestmark = pytest.mark.slow

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one, two = (torch.randn(count, bands, 120, 120, generator=generator) for bands in (2, 10))
    return one, two


def in_8_bits(config: Config, **keys: object) -> Config:
    return replace(config, precision="int8", extract_backend="auto", **keys)


@pytest.mark.parametrize(("type", "feature"), [("joint", "projection"), ("separate", "backbone")])
def test_vectors_are_close_to_those_of_float32(type: str, feature: str) -> None:
    model = trained_like(backbone="resnet10", type=type, sensor_norm="per_sensor" if type == "joint" else "shared")
    exact, encoder = OnnxEncoder(model, feature), OnnxEncoder(model, feature, lambda: images(20, 1))
    handlers = list(logging.getLogger().handlers)
    others = images(5, 2)
    for found, wanted in zip(encoder(*others), exact(*others), strict=True):
        assert found.shape == wanted.shape
        assert not torch.equal(found, wanted)
        assert float(torch.cosine_similarity(found, wanted).min()) > 0.999
    assert logging.getLogger().handlers == handlers
    again = pickle.loads(pickle.dumps(encoder))
    assert all(torch.equal(*pair) for pair in zip(again(*others), encoder(*others), strict=True))


def test_a_network_that_loses_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "LEAST_COSINE", 1.1)
    encoder = OnnxEncoder(trained_like(backbone="resnet10"), "projection", lambda: images(2, 1))
    with pytest.raises(
        ConfigError, match=r"^precision is int8: the cosine .* is 0\.\d+, lower than 1\.1; use precision"
    ):
        encoder(*images(1, 2))


def test_zeros_of_a_relu_in_both_are_no_difference() -> None:
    model = trained_like(backbone="resnet10", projection_head="original")
    for head in (model.head_s1, model.head_s2):
        torch.nn.init.zeros_(head[0].weight)
        torch.nn.init.constant_(head[0].bias, -1)
    for vectors in OnnxEncoder(model, "projection", lambda: images(20, 1))(*images(2, 2)):
        assert not vectors.any()


def test_features_say_what_they_are_and_depend_on_the_training_pairs(config: Config, tmp_path: Path) -> None:
    quantized = in_8_bits(config)
    run(config, tmp_path / "float.h5")
    run(quantized, tmp_path / "int8.h5")
    exact, found = content(tmp_path / "float.h5"), content(tmp_path / "int8.h5")
    for name in FEATURES:
        one, other = (torch.from_numpy(np.asarray(values[name])) for values in (exact, found))
        assert float(torch.cosine_similarity(one, other).min()) > 0.98  # few training pairs to calibrate on
    assert "calibrated on" in json.loads(found["@extract_precision"])
    assert json.loads(found["@extract_backend"]) == "onnxruntime"
    assert "@extract_precision" not in exact
    run(quantized, tmp_path / "again.h5")
    again = content(tmp_path / "again.h5")
    assert all(np.array_equal(found[name], again[name]) for name in FEATURES)
    shorter = tmp_path / "shorter.csv"
    shorter.write_text("".join(Path(config.train_csv).read_text().splitlines(keepends=True)[1:]))
    run(replace(quantized, train_csv=str(shorter)), tmp_path / "other.h5")
    assert content(tmp_path / "other.h5")["@fingerprint"] != found["@fingerprint"]


def test_ray_workers_give_the_same_vectors(config: Config, tmp_path: Path) -> None:
    quantized = in_8_bits(config)
    run(quantized, tmp_path / "here.h5")
    run(replace(quantized, extract_workers=1), tmp_path / "ray.h5")
    here, there = content(tmp_path / "here.h5"), content(tmp_path / "ray.h5")
    assert all(np.array_equal(here[name], there[name]) for name in FEATURES)


def test_calibration_is_spread_over_the_training_list(config: Config) -> None:
    calibration = Calibration.of(config)
    assert len(calibration.rows) == min(CALIBRATION_PAIRS, len(calibration.dataset))
    assert calibration.rows[0] == 0
    assert calibration.rows[-1] == len(calibration.dataset) - 1
    s1, s2 = calibration()
    assert s1.shape == (len(calibration.rows), 2, 120, 120)
    assert s2.shape == (len(calibration.rows), 10, 120, 120)


def test_without_training_pairs_it_is_refused_in_one_line(config: Config, tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("")
    for path, error in ((tmp_path / "none.csv", "none.csv"), (tmp_path / "missing.csv", "missing.csv")):
        wrong = in_8_bits(config, train_csv=str(path), query_split="val", archive_split="test")
        with pytest.raises(DataError, match=error):
            Calibration.of(wrong)
        write_config(wrong, tmp_path / "run.yaml")
        done = run_command(
            retrieve.main, "--filepath", tmp_path / "run.yaml", "--baseline", "untrained", "--no-report", code=2
        )
        assert error in done.stderr


def test_a_retrieval_has_it_in_its_provenance(config: Config, tmp_path: Path) -> None:
    quantized = in_8_bits(config, protocol="custom", query_split="val", archive_split="test", top_k=5)
    write_config(quantized, tmp_path / "run.yaml")
    run_command(retrieve.main, "--filepath", tmp_path / "run.yaml", "--baseline", "untrained")
    folder = config.run_folder / "baseline_untrained"
    with h5py.File(folder / "retrieval.h5") as file:
        assert "calibrated on" in file.attrs["extract_precision"]


def test_training_in_8_bits_is_refused(config: Config, tmp_path: Path) -> None:
    write_config(in_8_bits(config), tmp_path / "run.yaml")
    done = run_command(train.main, "--filepath", tmp_path / "run.yaml", code=2)
    assert "precision is int8, which is for extraction; train with auto, fp32 or bf16" in done.stderr


@pytest.mark.parametrize(
    ("device", "backend", "words"), [(GPU, "auto", "not on cuda"), (CPU, "torch", "not with extract_backend: torch")]
)
def test_other_programs_are_refused(device: torch.device, backend: str, words: str) -> None:
    assert choose_arithmetic("int8", "auto", CPU, "resnet50") == (torch.int8, "onnxruntime")
    with pytest.raises(ConfigError, match=rf"^precision is int8, which is for onnxruntime on a CPU, {words}; use bf16"):
        choose_arithmetic("int8", backend, device, "resnet50")


def test_without_the_package_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_features, "has_onnx_runtime", lambda: False)
    with pytest.raises(ConfigError, match=r"^precision is int8, and onnxruntime is not installed; use another"):
        choose_arithmetic("int8", "auto", CPU, "resnet50")


@pytest.mark.parametrize("keys", [{"extract_backend": "torch"}, {"encoder": "module:function"}])
def test_contradictions_are_reported(keys: dict[str, str]) -> None:
    (key,) = keys
    with pytest.raises(ConfigError, match=f"precision is int8, .* but {key} is .*; use precision: auto"):
        parse_config({**MINIMAL, "precision": "int8", **keys})


def test_an_encoder_without_training_patches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^precision is int8, which is calibrated on training patches: .* use bf16$"):
        encoder_extractor(
            DualEncoder(backbone="resnet10"), {}, device=CPU, precision=torch.int8, feature="projection",
            fusion="concat", backend="onnxruntime",
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"^precision is 'fp8'; choose one of auto, fp32, bf16$"):
        choose_arithmetic("fp8", "auto", CPU, "resnet50")


def test_weights_lose_a_bit_where_products_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained_like(backbone="resnet10")
    others = images(3, 2)
    exact = OnnxEncoder(model, "projection")(*others)
    monkeypatch.setattr(int8, "has_full_range", lambda: False)
    found = OnnxEncoder(model, "projection", lambda: images(20, 1))(*others)
    for one, other in zip(found, exact, strict=True):
        assert 0.99 < float(torch.cosine_similarity(one, other).min()) < 1
