"""torchvision's ResNets are imported without the rest of torchvision."""

import subprocess
import sys

import pytest

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


@pytest.mark.slow
@pytest.mark.parametrize("program", [ALONE, CHANGED], ids=["alone", "where that fails"])
def test_torchvision_gives_its_resnets(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
