"""A network laid out as the original scripts' key table says, built here, against our encoder with its weights."""

import pytest
import torch
from torch import Tensor, nn

from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.legacy_checkpoint import from_original, is_original
from bigearthnet_cbir.models.resnet import Backbone

OUT_CHANNELS, PROJECTION = 6, 12


class SensorEncoder(nn.Module):
    """conv1 stands beside the sequence that also begins with it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = Backbone("resnet50", channels).encoder
        self.conv1 = self.encoder[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images).flatten(1)


class Stem(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, OUT_CHANNELS, 1)


class JointEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_SAR = Stem(2)
        self.conv_RGB = Stem(10)
        self.encoder = Backbone("resnet50", OUT_CHANNELS).encoder
        self.conv_first = self.encoder[0]

    def forward(self, images: Tensor, stem: Stem) -> Tensor:
        return self.encoder(stem.conv(images)).flatten(1)


class OriginalNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder_s1, self.encoder_s2, self.encoder_joint = SensorEncoder(2), SensorEncoder(10), JointEncoder()
        self.projection_head_s1 = nn.Sequential(nn.Linear(2048, PROJECTION), nn.ReLU())
        self.projection_head_s2 = nn.Sequential(nn.Linear(2048, PROJECTION), nn.ReLU())

    def forward(self, s1: Tensor, s2: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        if kind == "joint":
            joint = self.encoder_joint
            h1, h2 = joint(s1, joint.conv_SAR), joint(s2, joint.conv_RGB)
        else:
            h1, h2 = self.encoder_s1(s1), self.encoder_s2(s2)
        return self.projection_head_s1(h1), self.projection_head_s2(h2)


@pytest.fixture(scope="module")
def original() -> OriginalNetwork:
    torch.manual_seed(0)
    network = OriginalNetwork()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("kind", ["joint", "separate"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_mapped_checkpoint_gives_the_same_projections(original: OriginalNetwork, kind: str, prefix: str) -> None:
    weights = {prefix + name: tensor for name, tensor in original.state_dict().items()}
    assert is_original(weights)
    options, mapped = from_original(weights, kind)
    ours = DualEncoder(backbone="resnet50", **options).eval()
    ours.load_state_dict(mapped)
    s1, s2 = torch.randn(2, 2, 120, 120), torch.randn(2, 10, 120, 120)
    with torch.inference_mode():
        z1, z2 = original(s1, s2, kind)
        output = ours(s1, s2)
    torch.testing.assert_close(output.z1, z1, rtol=1e-4, atol=1e-5 * float(z1.abs().max()))
    torch.testing.assert_close(output.z2, z2, rtol=1e-4, atol=1e-5 * float(z2.abs().max()))
    assert float(z1.abs().max()) > 0


def test_our_own_checkpoints_are_not_taken_for_original_ones() -> None:
    assert not is_original(DualEncoder(backbone="resnet18").state_dict())


def test_disagreeing_first_convolutions_are_refused(original: OriginalNetwork) -> None:
    weights = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    weights["encoder_joint.conv_first.weight"] += 1
    with pytest.raises(CheckpointError, match="conv_first"):
        from_original(weights, "joint")


@pytest.mark.parametrize("odd", [3, torch.zeros(()), torch.zeros(4)])
@pytest.mark.parametrize("mark", ["projection_head_s1.0.weight", "encoder_joint.conv_first.weight"])
def test_marks_of_other_shapes_are_refused(original: OriginalNetwork, mark: str, odd: object) -> None:
    with pytest.raises(CheckpointError, match="unexpected shapes"):
        from_original({**original.state_dict(), mark: odd}, "joint")  # type: ignore[dict-item]
