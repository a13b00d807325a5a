"""Backbones from timm: a convolutional network and a vision transformer, joint and separate, trained and restored."""

import builtins
import importlib.util
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.conftest import Archive

import bigearthnet_cbir as cbir
from bigearthnet_cbir.config import parse_config
from bigearthnet_cbir.errors import CheckpointError, ConfigError, TrainingError
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.sensor_batchnorm import SensorBatchNorm, select_sensor
from bigearthnet_cbir.models.timm_backbone import TimmBackbone, import_timm
from bigearthnet_cbir.pipelines.builders import build_encoder, start_from_pretrained
from bigearthnet_cbir.training import distributed

pytestmark = pytest.mark.slow

if importlib.util.find_spec("timm") is None:
    pytest.skip("the optional package timm is not installed", allow_module_level=True)
timm = import_timm()  # which imports torchvision the way that works

CONVOLUTIONAL, TRANSFORMER = "timm:test_resnet", "timm:test_vit"


def keys(archive: Archive, folder: Path, **more: object) -> dict[str, object]:
    return {
        "train_csv": f"{archive.parquet}:train", "val_csv": f"{archive.parquet}:test",
        "test_csv": f"{archive.parquet}:train", "bigEarthPthLMDB_S2": str(archive.s2),
        "bigEarthPthLMDB_S1": str(archive.s1), "projection_dim": 8, "out_channels": 4, "batch_size": 3, "epochs": 2,
        "num_workers": 0, "device": "cpu", "precision": "fp32", "name": "timm",
        "logging_params": {"save_dir": str(folder), "name": "run"}, **more,
    }  # fmt: skip


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 120, 120, generator=generator), torch.randn(2, 10, 120, 120, generator=generator)


@pytest.mark.parametrize("kind", ["joint", "separate"])
@pytest.mark.parametrize("backbone", [CONVOLUTIONAL, TRANSFORMER])
def test_a_run_trains_retrieves_and_is_loaded_again(
    archives: dict[str, Archive], tmp_path: Path, backbone: str, kind: str
) -> None:
    config = keys(archives["rico"], tmp_path, backbone=backbone, type=kind)
    folder = cbir.train(config)
    results = cbir.read_results(cbir.retrieve(folder / "parameters.yaml"))
    assert len(results.directions) == 7
    encoder = cbir.load_encoder(folder, device="cpu", precision="fp32")
    assert encoder.identity["backbone"] == backbone
    checkpoint = torch.load(folder / "checkpoints_model_last.pth.tar", weights_only=True)
    assert checkpoint["identity"]["backbone"] == backbone
    start = build_encoder(parse_config(config)).state_dict()
    trained = checkpoint["state_dict"]
    assert start.keys() == trained.keys()
    assert sum(not torch.equal(start[name], trained[name]) for name in start) > len(start) / 2


def test_a_network_of_any_size_sees_the_patch_as_it_is() -> None:
    trunk = TimmBackbone(CONVOLUTIONAL, 10).eval()
    own = timm.create_model("test_resnet", in_chans=10, num_classes=0).eval()
    own.load_state_dict(trunk.network.state_dict())
    _, s2 = images()
    assert trunk.side is None
    assert torch.equal(trunk(s2), own(s2))
    assert trunk.width == trunk(s2).shape[1]


def test_a_transformer_of_patches_of_16_gets_resized_images(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bigearthnet_cbir"):
        trunk = TimmBackbone(TRANSFORMER, 10).eval()
    assert "wants images of 160 pixels: patches of 120 are resized" in caplog.text
    _, s2 = images()
    resized = torch.nn.functional.interpolate(s2, size=(160, 160), mode="bicubic", align_corners=False)
    assert torch.equal(trunk(s2), trunk.network(resized))


def test_a_transformer_of_patches_of_8_is_built_for_120_pixels(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bigearthnet_cbir"):
        trunk = TimmBackbone("timm:vit_small_patch8_224", 2).eval()
    assert "built for patches of 120 pixels, 15 tokens a side" in caplog.text
    assert trunk.network.pos_embed.shape[1] == 15 * 15 + 1
    assert trunk(images()[0]).shape == (2, trunk.width) == (2, 384)


def test_each_sensor_has_its_own_batch_norms_and_activations_stay() -> None:
    """timm's batch norms hold the activation; a plain one in their place would lose it."""
    from timm.layers import BatchNormAct2d

    model = DualEncoder(backbone="timm:test_byobnet", out_channels=4, projection_dim=8).eval()
    norms = [child for child in model.modules() if isinstance(child, SensorBatchNorm)]
    assert norms
    assert all(isinstance(norm.norms["s1"], BatchNormAct2d) for norm in norms)
    s1, _ = images()
    own = timm.create_model("test_byobnet", in_chans=4, num_classes=0).eval()
    own.load_state_dict({k.replace(".norms.s1.", "."): v for k, v in model.trunk.network.state_dict().items()
                         if ".norms.s2." not in k})  # fmt: skip
    assert torch.allclose(model.encode_s1(s1), own(model.stem_s1(s1)), atol=1e-6)
    with torch.no_grad():
        norms[0].norms["s2"].weight.mul_(2)
    before = model.encode_s1(s1)
    select_sensor(model.trunk, "s2")
    assert torch.equal(before, model.encode_s1(s1))


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("backbone", [CONVOLUTIONAL, TRANSFORMER])
def test_weights_of_a_local_file(archives: dict[str, Archive], tmp_path: Path, backbone: str, kind: str) -> None:
    """ImageNet weights have three channels, those of the Sentinel-2 trunk get them by band; all else is the file's."""
    torch.manual_seed(3)
    weights = timm.create_model(backbone.removeprefix("timm:"), num_classes=5).state_dict()
    file = tmp_path / f"weights.{kind}"
    if kind == "pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, file)
    else:
        save_file({k: v.contiguous() for k, v in weights.items()}, file)
    config = parse_config(keys(archives["rico"], tmp_path, backbone=backbone, type="separate", init_weights=str(file)))
    model = build_encoder(config)
    start_from_pretrained(config, model)
    own = model.trunk_s2.network.state_dict()
    first = f"{model.trunk_s2.first_convolution}.weight"
    for name, tensor in own.items():
        if name != first:
            assert torch.equal(tensor, weights[name]), name
    assert torch.equal(own[first][:, 2], weights[first][:, 0])  # B04 is the file's red
    assert torch.equal(own[first][:, 0], weights[first][:, 2])  # B02 its blue
    assert torch.allclose(own[first][:, 9], weights[first].mean(dim=1))  # B12 is no band of it


def test_positions_of_another_grid_are_resampled(archives: dict[str, Archive], tmp_path: Path) -> None:
    weights = timm.create_model("vit_small_patch8_224", num_classes=0).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    given = keys(archives["rico"], tmp_path, backbone="timm:vit_small_patch8_224", init_weights=str(tmp_path / "w.pth"))
    config = parse_config(given)
    model = build_encoder(config)
    start_from_pretrained(config, model)
    found = model.trunk.network.pos_embed
    assert found.shape[1] == 226
    assert torch.equal(found[:, 0], weights["pos_embed"][:, 0])
    assert torch.allclose(found.mean(dim=1), weights["pos_embed"].mean(dim=1), atol=5e-3)


def test_weights_of_another_network_are_refused(archives: dict[str, Archive], tmp_path: Path) -> None:
    torch.save(timm.create_model("test_convnext", num_classes=0).state_dict(), tmp_path / "w.pth")
    config = parse_config(
        keys(archives["rico"], tmp_path, backbone=CONVOLUTIONAL, init_weights=str(tmp_path / "w.pth"))
    )
    with pytest.raises(CheckpointError, match="is not of this backbone"):
        start_from_pretrained(config, build_encoder(config))


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("timm:test_resnet.r160_in1k", "names weights, which are not downloaded: write timm:test_resnet"),
        ("timm:tset_resnet", "did you mean test_resnet"),
        ("timm:zzz", "timm.list_models"),
    ],
)
def test_an_unknown_name_is_one_line(backbone: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        DualEncoder(backbone=backbone)
    assert "\n" not in str(error.value)


def test_n_features_must_match(archives: dict[str, Archive], tmp_path: Path) -> None:
    config = parse_config(keys(archives["rico"], tmp_path, backbone=CONVOLUTIONAL, n_features=100))
    with pytest.raises(ConfigError, match="n_features is 100; timm:test_resnet gives 96"):
        build_encoder(config)
    build_encoder(parse_config(keys(archives["rico"], tmp_path, backbone=CONVOLUTIONAL, n_features=96)))


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "timm":
            raise ModuleNotFoundError("No module named 'timm'", name="timm")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install '\.\[timm\]'"):
        DualEncoder(backbone=CONVOLUTIONAL)


def test_a_yaml_file_may_name_it(archives: dict[str, Archive], tmp_path: Path) -> None:
    for wrong in ("timm:", "timm:../x", "tim:resnet18", "timm:hf-hub:a/b"):
        with pytest.raises(ConfigError, match="backbone is"):
            parse_config(keys(archives["rico"], tmp_path, backbone=wrong))


def test_an_export_is_read_back(archives: dict[str, Archive], tmp_path: Path) -> None:
    from bigearthnet_cbir.pipelines.export import export_model

    folder = cbir.train(keys(archives["rico"], tmp_path, backbone=CONVOLUTIONAL, epochs=1))
    config = cbir.load_config(folder / "parameters.yaml")
    export_model(config, folder / "checkpoints_model_best.pth.tar", tmp_path / "out")
    again = cbir.load_encoder(tmp_path / "out", device="cpu", precision="fp32")
    assert again.identity["backbone"] == CONVOLUTIONAL


def test_batch_norms_with_an_activation_are_refused_on_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    cpu = torch.device("cpu")
    with pytest.raises(TrainingError, match=r"BatchNormAct2d.* train it in one process"):
        distributed.convert_sync_batchnorm(DualEncoder(backbone="timm:test_byobnet", out_channels=4), cpu)
    distributed.convert_sync_batchnorm(DualEncoder(backbone=CONVOLUTIONAL, out_channels=4), cpu)
