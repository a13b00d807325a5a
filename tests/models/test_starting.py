"""What starting a network costs: torchvision without the rest of torchvision, weights without random numbers."""

import subprocess
import sys

import pytest
import torch

from bigearthnet_cbir.models.dual_encoder import DualEncoder, empty_encoder

ALONE = """
import sys
import torch
torch.manual_seed(3)
from bigearthnet_cbir.models.resnet import Backbone, import_resnet_module, import_torchvision
trunk = Backbone("resnet18", 3)
assert "torch._dynamo" not in sys.modules and "torchvision.ops" not in sys.modules
assert import_resnet_module() is import_resnet_module()
import_torchvision()
from torchvision.models import resnet18
torch.manual_seed(3)
theirs = resnet18(weights=None)
assert type(theirs) is import_resnet_module().ResNet
trunk.eval(), theirs.eval()
theirs.fc = torch.nn.Identity()
images = torch.rand(2, 3, 64, 64)
torch.testing.assert_close(trunk(images), theirs(images), rtol=0, atol=0)
"""

CHANGED = """
import sys
from bigearthnet_cbir.models import resnet
def refuse():
    raise ImportError("a torchvision of another layout")
resnet._import_alone = refuse
assert resnet.import_resnet_module().resnet18 is sys.modules["torchvision"].models.resnet18
"""


@pytest.mark.parametrize("program", [ALONE, CHANGED], ids=["alone", "where that fails"])
def test_torchvision_gives_its_resnets(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["joint", "separate"])
def test_empty_encoder_takes_any_weights(kind: str) -> None:
    options = {"type": kind, "backbone": "resnet10", "projection_dim": 8}
    trained = DualEncoder(**options).eval()
    empty = empty_encoder(**options)
    assert all(value.is_meta for value in empty.state_dict().values())
    empty.load_state_dict(trained.state_dict(), assign=True)
    images = torch.rand(2, 2, 120, 120), torch.rand(2, 10, 120, 120)
    for ours, theirs in zip(empty.eval()(*images), trained(*images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
