"""Networks without initial weights: nothing is drawn, and every weight is loaded afterwards."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.skip_init import SkipInit
from bigearthnet_cbir.training.checkpoints import load_weights

OPTIONS = [
    {"type": "joint", "backbone": "resnet18", "sensor_norm": "per_sensor"},
    {"type": "separate", "backbone": "resnet10", "projection_head": "mlp"},
    {"type": "joint", "backbone": "timm:test_vit", "out_channels": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options["backbone"])
def test_nothing_is_drawn_and_every_weight_is_loaded(options: dict[str, object]) -> None:
    if str(options["backbone"]).startswith("timm:") and find_spec("timm") is None:
        pytest.skip("the optional package timm is not installed")
    torch.manual_seed(1)
    saved = DualEncoder(projection_dim=8, **options).eval()
    before = torch.get_rng_state()
    with SkipInit():
        model = DualEncoder(projection_dim=8, **options).eval()
    assert torch.equal(torch.get_rng_state(), before)
    load_weights(model, saved.state_dict(), Path("checkpoint"))
    s1, s2 = torch.randn(2, 2, 120, 120), torch.randn(2, 10, 120, 120)
    with torch.inference_mode():
        assert all(map(torch.equal, model(s1, s2), saved(s1, s2)))
    assert all(map(torch.equal, model.state_dict().values(), saved.state_dict().values()))


def test_draws_are_as_before_outside_the_block() -> None:
    with SkipInit():
        torch.nn.Linear(3, 4)
    torch.manual_seed(2)
    first = torch.nn.Linear(3, 4).weight
    torch.manual_seed(2)
    assert torch.equal(torch.nn.Linear(3, 4).weight, first)
    assert float(first.detach().std()) > 0
