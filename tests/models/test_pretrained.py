import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bigearthnet_cbir.config import parse_config
from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.pretrained import CHANNELS, load_backbone_weights, random_layers, read_pretrained
from bigearthnet_cbir.models.resnet import Backbone
from bigearthnet_cbir.pipelines.builders import build_encoder, start_from_pretrained

NAMES = ["conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4"]


def published(channels: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """A random ResNet-18 under torchvision's names."""
    torch.manual_seed(channels)
    weights = {}
    for name, tensor in Backbone("resnet18", channels).state_dict().items():
        _, layer, rest = name.split(".", 2)
        weights[f"{prefix}{NAMES[int(layer)]}.{rest}"] = tensor
    return {**weights, f"{prefix}fc.weight": torch.zeros(5, 512)}


def test_sentinel_2_channels_are_found_by_band_name(tmp_path: Path) -> None:
    source = published(13)
    torch.save({"state_dict": published(13, "module.encoder_q.")}, tmp_path / "moco.pth")
    trunk = Backbone("resnet18", 10)
    load_backbone_weights(trunk, read_pretrained(tmp_path / "moco.pth"), CHANNELS[10], "moco.pth")
    for channel, band in enumerate(CHANNELS[10]):
        assert torch.equal(trunk.encoder[0].weight[:, channel], source["conv1.weight"][:, CHANNELS[13].index(band)])
    assert torch.equal(trunk.state_dict()["encoder.7.1.conv2.weight"], source["layer4.1.conv2.weight"])


def test_bands_that_the_file_lacks_start_as_the_mean(tmp_path: Path) -> None:
    torch.save(published(3), tmp_path / "imagenet.pth")
    trunk = Backbone("resnet18", 10)
    load_backbone_weights(trunk, read_pretrained(tmp_path / "imagenet.pth"), CHANNELS[10], "x")
    kernel = published(3)["conv1.weight"]
    assert torch.equal(trunk.encoder[0].weight[:, 2], kernel[:, 0])
    assert torch.equal(trunk.encoder[0].weight[:, 9], kernel.mean(1))


def test_joint_trunk_takes_all_but_the_first_convolution_for_both_sensors_norms() -> None:
    model = DualEncoder(type="joint", backbone="resnet18", sensor_norm="per_sensor")
    before = model.trunk.encoder[0].weight.clone()
    weights = {name: tensor for name, tensor in published(2).items() if not name.startswith("fc")}
    weights["bn1.running_mean"] = torch.full((64,), 3.0)
    load_backbone_weights(model.trunk, weights, None, "x")
    assert torch.equal(model.trunk.encoder[0].weight, before)
    assert float(model.trunk.encoder[1].norms["s1"].running_mean[0]) == 3.0
    assert float(model.trunk.encoder[1].norms["s2"].running_mean[0]) == 3.0


def test_weights_of_another_resnet_are_refused() -> None:
    weights = {name: tensor for name, tensor in published(2).items() if not name.startswith("fc")}
    with pytest.raises(CheckpointError, match="does not fit this backbone"):
        load_backbone_weights(Backbone("resnet50", 2), weights, CHANNELS[2], "x")


FLAT = {"conv1.weight": torch.zeros(3), "layer4.0.conv1.weight": torch.zeros(3)}


@pytest.mark.parametrize("content", [None, b"junk", {"weight": torch.zeros(1)}, FLAT])
def test_files_without_a_resnet_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match="init_weights"):
        read_pretrained(path)


def test_layers_that_stay_random_are_named() -> None:
    joint = DualEncoder(type="joint", backbone="resnet18", sensor_norm="per_sensor")
    weights = {name: tensor for name, tensor in published(2).items() if not name.startswith("fc")}
    filled = {f"trunk.{name}" for name in load_backbone_weights(joint.trunk, weights, None, "x")}
    assert random_layers(joint, filled) == ["stem_s1", "stem_s2", "trunk.encoder.0", "head_s1", "head_s2"]
    separate = DualEncoder(type="separate", backbone="resnet18")
    filled = {f"trunk_s1.{name}" for name in load_backbone_weights(separate.trunk_s1, weights, CHANNELS[2], "x")}
    assert random_layers(separate, filled) == ["trunk_s2", "head_s1", "head_s2"]


@pytest.mark.parametrize("bands", [CHANNELS[2], None])
def test_a_first_convolution_that_shares_no_band_stays_random(bands: tuple[str, ...] | None) -> None:
    trunk = Backbone("resnet18", 2)
    before = trunk.first.weight.clone()
    weights = {name: tensor for name, tensor in published(13).items() if not name.startswith("fc")}
    assert "encoder.0.weight" not in load_backbone_weights(trunk, weights, bands, "x")
    assert torch.equal(trunk.first.weight, before)


def test_the_log_says_what_init_weights_left_random(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(published(13), tmp_path / "s2.pth")
    config = parse_config(
        {
            **dict.fromkeys(("train_csv", "val_csv", "test_csv", "bigEarthPthLMDB_S2", "bigEarthPthLMDB_S1"), "x"),
            "name": "g", "logging_params": {"name": "r"}, "type": "separate", "backbone": "resnet18",
            "init_weights": str(tmp_path / "s2.pth"),
        }
    )  # fmt: skip
    with caplog.at_level("INFO"):
        start_from_pretrained(config, build_encoder(config))
    assert "randomly initialised layers: trunk_s1.encoder.0, head_s1, head_s2" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "has no state_dict"),
        ("weights", "has no state_dict"),
        ({"state_dict": {3: 4}}, "has no ResNet"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        read_pretrained(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["conv1.weight", "layer1.0.conv1.weight"])
@pytest.mark.parametrize(
    ("change", "message"),
    [(torch.Tensor.long, r"not float|data type differs"), (lambda weight: weight * math.nan, "NaN, infinite")],
    ids=["whole numbers", "NaN"],
)
def test_starting_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    weights = published(10)
    weights[name] = change(weights[name])
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load_backbone_weights(
            Backbone("resnet18", 10), read_pretrained(tmp_path / "weights.pth"), CHANNELS[10], "weights.pth"
        )
