"""Exports: what was written comes back, and two files that are damaged or do not belong together are one line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.export import DESCRIPTION, WEIGHTS, read_export, write_export

OPTIONS: dict[str, Any] = {
    "type": "joint", "backbone": "resnet10", "projection_dim": 4, "projection_head": "mlp", "out_channels": 2,
    "sensor_norm": "shared",
}  # fmt: skip
TOLD = {"feature": "projection", "fusion": "avg", "class_names": ["Pastures"], "normalisation": {"VV": [-12.6, 5.1]}}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DualEncoder]:
    torch.manual_seed(0)
    model = DualEncoder(**OPTIONS).eval()
    folder = tmp_path_factory.mktemp("export")
    write_export(model, folder, OPTIONS, TOLD)
    return folder, model


@pytest.fixture
def export(written: tuple[Path, DualEncoder], tmp_path: Path) -> Path:
    """A copy whose JSON may be changed; the weights are the same file."""
    (tmp_path / DESCRIPTION).write_bytes((written[0] / DESCRIPTION).read_bytes())
    (tmp_path / WEIGHTS).symlink_to(written[0] / WEIGHTS)
    return tmp_path


def change(export: Path, **values: Any) -> None:
    content = json.loads((export / DESCRIPTION).read_text())
    (export / DESCRIPTION).write_text(json.dumps({**content, **values}))


def test_export_is_read_as_it_was_written(written: tuple[Path, DualEncoder]) -> None:
    folder, model = written
    found, description = read_export(folder)
    assert not found.training
    assert {name: description[name] for name in TOLD} == TOLD
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert sorted(path.name for path in folder.iterdir()) == sorted([DESCRIPTION, WEIGHTS])


def test_export_of_an_earlier_version_has_no_digest(export: Path) -> None:
    content = json.loads((export / DESCRIPTION).read_text())
    del content["weights_sha256"]
    (export / DESCRIPTION).write_text(json.dumps(content))
    read_export(export)


def test_bit_that_flips_in_the_weights_is_noticed(export: Path) -> None:
    content = bytearray((export / WEIGHTS).read_bytes())
    content[-1000] ^= 1
    (export / WEIGHTS).unlink()
    (export / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors is damaged.* export it again"):
        read_export(export)


@pytest.mark.parametrize("length", [0, 7, 8, 500, 5000])
def test_weights_that_are_cut_short_are_refused(export: Path, length: int) -> None:
    content = (export / WEIGHTS).read_bytes()[:length]
    (export / WEIGHTS).unlink()
    (export / WEIGHTS).write_bytes(content)
    for digest in ({}, {"weights_sha256": ""}):
        change(export, **digest)
        with pytest.raises(CheckpointError, match="export it again"):
            read_export(export)


def test_weights_that_are_not_finite_are_refused(export: Path) -> None:
    weights = load_file(export / WEIGHTS)
    weights["stem_s1.bias"][0] = math.nan
    (export / WEIGHTS).unlink()
    save_file(weights, export / WEIGHTS)
    change(export, weights_sha256="")
    with pytest.raises(CheckpointError, match=r"stem_s1\.bias: NaN, infinite"):
        read_export(export)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "both"), ("type", ["joint"]), ("backbone", "resnet11"), ("backbone", "BasicBlock"), ("backbone", 50),
        ("projection_dim", 10**9), ("projection_dim", 0), ("projection_dim", 4.0), ("out_channels", -1),
        ("out_channels", True), ("projection_head", None), ("sensor_norm", "x" * 3000), ("sensor_norm", "per_sensor"),
        ("unknown", 1), ("projection_dim", 5),
    ],
)  # fmt: skip
def test_network_that_cannot_be_or_is_another_is_refused(export: Path, name: str, value: Any) -> None:
    """10**9 channels would take terabytes before the weights are looked at."""
    change(export, encoder={**OPTIONS, name: value})
    with pytest.raises(CheckpointError, match="not a readable export"):
        read_export(export)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "version 9"), ("encoder", ["joint"]), ("feature", "z"), ("fusion", {}), ("class_names", []),
        ("class_names", [1]), ("normalisation", {"VV": [1.0]}), ("normalisation", {"VV": [1.0, 0.0]}),
        ("normalisation", [3]), ("inputs", {"s1": "VV"}), ("weights_sha256", 3),
    ],
)  # fmt: skip
def test_value_that_others_go_by_is_named_where_it_is_wrong(export: Path, name: str, value: Any) -> None:
    change(export, **{name: value})
    with pytest.raises(CheckpointError, match=rf"encoder\.json: {name}: missing or invalid"):
        read_export(export)


@pytest.mark.parametrize("text", ["", "[", "3", "[" * 100_000, '{"format": NaN}', "\udcff"])
def test_description_that_is_no_json_is_refused(export: Path, text: str) -> None:
    (export / DESCRIPTION).write_text(text, errors="surrogateescape")
    with pytest.raises(CheckpointError, match="export it again"):
        read_export(export)
