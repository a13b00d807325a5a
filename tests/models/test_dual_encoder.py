import pytest
import torch

from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.fusion import FUSIONS, fuse, fused_width
from bigearthnet_cbir.models.sensor_batchnorm import SensorBatchNorm, select_sensor

S1 = torch.randn(3, 2, 120, 120, generator=torch.Generator().manual_seed(1))
S2 = torch.randn(3, 10, 120, 120, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", ["joint", "separate"])
@pytest.mark.parametrize("head", ["mlp", "original"])
def test_output_shapes(kind: str, head: str) -> None:
    model = DualEncoder(type=kind, backbone="resnet18", projection_dim=16, projection_head=head).eval()
    with torch.inference_mode():
        output = model(S1, S2)
    assert [tuple(part.shape) for part in output] == [(3, 512), (3, 512), (3, 16), (3, 16)]
    assert (bool((output.z1 >= 0).all()), head) in {(True, "original"), (False, "mlp")}


def test_resnet50_has_2048_features() -> None:
    assert DualEncoder(backbone="resnet50").n_features == 2048


def test_only_the_branches_of_the_type_are_built() -> None:
    joint = {name.split(".")[0] for name in DualEncoder(type="joint", backbone="resnet18").state_dict()}
    separate = {name.split(".")[0] for name in DualEncoder(type="separate", backbone="resnet18").state_dict()}
    assert joint == {"stem_s1", "stem_s2", "trunk", "head_s1", "head_s2"}
    assert separate == {"trunk_s1", "trunk_s2", "head_s1", "head_s2"}


def test_joint_type_shares_its_convolutions() -> None:
    model = DualEncoder(type="joint", backbone="resnet18")
    output = model(S1, S2)
    output.z1.sum().backward(retain_graph=True)
    weight = model.trunk.encoder[0].weight
    from_s1 = weight.grad.clone()
    output.z2.sum().backward()
    assert float(from_s1.abs().max()) > 0
    assert not torch.equal(weight.grad, from_s1)


def test_stem_and_first_convolution_in_one_equal_both_in_turn() -> None:
    """Also at the borders, where the stem's bias meets the padding, and in every gradient."""
    torch.manual_seed(0)
    model = DualEncoder(type="joint", backbone="resnet10").double().eval()
    images = S2.double()
    found, gradients = {}, {}
    for way, call in (("one", lambda: model.encode_s2(images)), ("turn", lambda: in_turn(model, images))):
        model.zero_grad()
        found[way] = call()
        found[way].square().sum().backward()
        gradients[way] = [part.grad.clone() for part in (*model.stem_s2.parameters(), model.trunk.encoder[0].weight)]
    torch.testing.assert_close(found["one"], found["turn"])
    for one, turn in zip(gradients["one"], gradients["turn"], strict=True):
        torch.testing.assert_close(one, turn)


def in_turn(model: DualEncoder, images: torch.Tensor) -> torch.Tensor:
    select_sensor(model.trunk, "s2")
    features: torch.Tensor = model.trunk.encoder(model.stem_s2(images))
    return features.flatten(1)


def test_per_sensor_norm_keeps_each_sensors_statistics() -> None:
    """After training passes, eval-mode features of each sensor match its own statistics, not a blend of both."""
    torch.manual_seed(0)
    model = DualEncoder(type="joint", backbone="resnet18", sensor_norm="per_sensor")
    norm = next(module for module in model.modules() if isinstance(module, SensorBatchNorm))
    model.encode_s1(S1)
    only_s1 = {name: value.clone() for name, value in norm.norms["s2"].state_dict().items()}
    assert float(only_s1["running_mean"].abs().max()) == 0
    model.encode_s2(5 * S2)
    assert float(norm.norms["s2"].running_mean.abs().max()) > 0
    assert not torch.equal(norm.norms["s1"].running_mean, norm.norms["s2"].running_mean)


def test_shared_norm_has_one_set_of_statistics() -> None:
    model = DualEncoder(type="joint", backbone="resnet18", sensor_norm="shared")
    assert not [module for module in model.modules() if isinstance(module, SensorBatchNorm)]


def test_eval_mode_features_do_not_depend_on_the_batch() -> None:
    model = DualEncoder(type="joint", backbone="resnet18").eval()
    with torch.inference_mode():
        whole, single = model(S1, S2), model(S1[1:2], S2[1:2])
    assert torch.allclose(whole.z1[1], single.z1[0], atol=1e-5)


@pytest.mark.parametrize("options", [{"type": "both"}, {"projection_head": "linear"}])
def test_unknown_choices_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="choose"):
        DualEncoder(**{"backbone": "resnet18", **options})


def test_fusions_by_hand() -> None:
    z1, z2 = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 4.0]])
    expected = {"concat": [1.0, -2.0, 3.0, 4.0], "avg": [2.0, 1.0], "max": [3.0, 4.0], "sum": [4.0, 2.0]}
    assert set(expected) == set(FUSIONS)
    for how, vector in expected.items():
        assert fuse(z1, z2, how).tolist() == [vector]
        assert fused_width(2, how) == len(vector)


def test_fusion_refuses_unknown_names_and_shapes() -> None:
    with pytest.raises(ValueError, match="choose one of concat, avg, max, sum"):
        fuse(torch.zeros(1, 2), torch.zeros(1, 2), "mean")
    with pytest.raises(ValueError, match="cannot fuse"):
        fuse(torch.zeros(1, 2), torch.zeros(2, 2), "sum")
