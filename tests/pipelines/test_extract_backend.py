"""ONNX Runtime gives the vectors of PyTorch, is chosen where it fits, and is never mixed with it silently."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tests.config.test_config import MINIMAL
from tests.conftest import Archive
from tests.models.networks import trained_like
from tests.pipelines.test_extract import PAIRS, content, counted, interrupted, run
from tests.pipelines.test_extract import archive as archive
from tests.pipelines.test_extract import config as config

from bigearthnet_cbir.cli.retrieve import main as retrieve_command
from bigearthnet_cbir.config import Config, parse_config, write_config
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.models import onnx_runtime
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.onnx_runtime import OnnxEncoder
from bigearthnet_cbir.pipelines import encoder_features
from bigearthnet_cbir.pipelines.encoder_features import choose_arithmetic
from bigearthnet_cbir.pipelines.feature_extractors import baseline_extractor
from bigearthnet_cbir.storage.features import FEATURES

pytest.importorskip("onnxruntime", reason="needs the extra onnxruntime")
pytest.importorskip("onnx", reason="needs the extra onnxruntime")
pytestmark = pytest.mark.slow

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("feature", "options"),
    [
        ("projection", {"backbone": "resnet10", "type": "joint", "sensor_norm": "per_sensor"}),
        ("backbone", {"backbone": "resnet10", "type": "joint", "sensor_norm": "shared"}),
        ("projection", {"backbone": "resnet10", "type": "joint", "projection_head": "mlp"}),
        ("backbone", {"backbone": "resnet10", "type": "separate"}),
        ("projection", {"backbone": "resnet50", "type": "separate"}),
        ("backbone", {"backbone": "resnet50", "type": "joint"}),
    ],
)
def test_vectors_equal_those_of_pytorch(feature: str, options: dict[str, str]) -> None:
    model = trained_like(**options)
    encoder = OnnxEncoder(model, feature)
    for batch in (1, 5):
        s1, s2 = torch.randn(batch, 2, 120, 120), torch.randn(batch, 10, 120, 120)
        with torch.inference_mode():
            output = model(s1, s2)
        expected = (output.z1, output.z2) if feature == "projection" else (output.h1, output.h2)
        for found, wanted in zip(encoder(s1, s2), expected, strict=True):
            assert found.shape == wanted.shape
            assert found.dtype == torch.float32
            assert float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max()) < 1e-5


def test_features_of_both_programs_are_equal_but_for_rounding_and_never_mixed(config: Config, tmp_path: Path) -> None:
    by_onnx = replace(config, extract_backend="onnxruntime")
    run(config, tmp_path / "torch.h5")
    run(by_onnx, tmp_path / "onnx.h5")
    one, other = content(tmp_path / "torch.h5"), content(tmp_path / "onnx.h5")
    for name in FEATURES:
        lengths = np.linalg.norm(one[name], axis=1)
        assert (np.linalg.norm(one[name] - other[name], axis=1) / lengths).max() < 1e-5
    assert json.loads(other["@extract_backend"]) == "onnxruntime"
    assert "@extract_backend" not in one
    assert one["@fingerprint"] != other["@fingerprint"]
    interrupted(config, tmp_path / "mixed.h5", 8)
    source, batches = counted(baseline_extractor(by_onnx, "untrained"))
    run(by_onnx, tmp_path / "mixed.h5", source)
    assert sum(batches) == PAIRS, "blocks of the other program were used"


@pytest.mark.parametrize(
    ("precision", "backend", "device", "backbone", "expected"),
    [
        ("fp32", "auto", CPU, "resnet50", (torch.float32, "onnxruntime")),
        ("fp32", "auto", CPU, "timm:resnet18", (torch.float32, "torch")),
        ("fp32", "auto", GPU, "resnet50", (torch.float32, "torch")),
        ("bf16", "auto", CPU, "resnet50", (torch.bfloat16, "torch")),
        ("fp32", "torch", CPU, "resnet50", (torch.float32, "torch")),
        ("auto", "onnxruntime", CPU, "timm:resnet18", (torch.float32, "onnxruntime")),
    ],
)
def test_what_is_chosen(precision: str, backend: str, device: torch.device, backbone: str, expected: Any) -> None:
    assert choose_arithmetic(precision, backend, device, backbone) == expected


def test_without_the_package_auto_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_features, "has_onnx_runtime", lambda: False)
    assert choose_arithmetic("fp32", "auto", CPU, "resnet50") == (torch.float32, "torch")
    with pytest.raises(ConfigError, match=r"^extract_backend is onnxruntime, which is not installed; use torch"):
        choose_arithmetic("fp32", "onnxruntime", CPU, "resnet50")


def test_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^extract_backend is onnxruntime, .* not on cuda; use torch$"):
        choose_arithmetic("fp32", "onnxruntime", GPU, "resnet50")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"precision": "bf16"}, "precision is 'bf16', which only torch has"),
        ({"encoder": "module:function"}, "encoder is 'module:function', which is run as it is"),
    ],
)
def test_contradictions_are_reported(keys: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=f"extract_backend is onnxruntime, but {words}; use extract_backend: torch"):
        parse_config({**MINIMAL, "extract_backend": "onnxruntime", **keys})


def test_a_conversion_with_other_vectors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when an exporter fixes what depends on the input."""
    first = OnnxEncoder(trained_like(backbone="resnet10"), "projection")
    graph = first.__getstate__()["_graph"]
    monkeypatch.setattr(onnx_runtime, "_convert", lambda network: graph)
    other = DualEncoder(backbone="resnet10")
    with pytest.raises(ConfigError, match=r"^extract_backend: ONNX Runtime's vectors .*; use extract_backend: torch$"):
        OnnxEncoder(other, "projection")(torch.zeros(1, 2, 120, 120), torch.zeros(1, 10, 120, 120))


def test_a_network_that_cannot_be_converted_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("operator x\nis not there")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ConfigError, match=r"^extract_backend: .* \(operator x is not there\); use [^\n]*torch$"):
        OnnxEncoder(trained_like(backbone="resnet10"), "projection")(torch.zeros(1), torch.zeros(1))


def test_a_retrieval_by_onnx_runtime(tmp_path: Path, config: Config, archives: dict[str, Archive]) -> None:
    """From the command line; the results say which program computed the vectors, and torch's are then computed anew."""
    base = replace(config, protocol="custom", query_split="val", archive_split="test", top_k=5)
    found = {}
    for backend in ("onnxruntime", "torch"):
        write_config(replace(base, extract_backend=backend), tmp_path / "run.yaml")
        command = ["--filepath", str(tmp_path / "run.yaml"), "--baseline", "untrained", "--no-report"]
        assert retrieve_command(command) == 0
        with h5py.File(base.run_folder / "baseline_untrained" / "retrieval.h5") as file:
            found[backend] = dict(file.attrs), file["fused/retrieval_result"][:]
    assert json.loads(found["onnxruntime"][0]["extract_backend"]) == "onnxruntime"
    assert "extract_backend" not in found["torch"][0]
    assert found["onnxruntime"][0]["fingerprint"] != found["torch"][0]["fingerprint"]
    assert np.array_equal(found["onnxruntime"][1], found["torch"][1])
