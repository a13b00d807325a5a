"""The ONNX file gives the network's own outputs, whatever the batch size; needs the optional extra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bigearthnet_cbir.models.dual_encoder import DualEncoder
from bigearthnet_cbir.models.export import ONNX, write_onnx

pytest.importorskip("onnxscript", reason="ONNX export needs the onnx extra: pip install -e '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime (dev extra) runs the exported file")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["joint", "separate"])
def test_onnx_gives_the_outputs_of_the_network(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DualEncoder(type=kind, backbone="resnet10", projection_dim=16).eval()
    write_onnx(model, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / ONNX), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        s1, s2 = torch.randn(batch, 2, 120, 120), torch.randn(batch, 10, 120, 120)
        with torch.no_grad():
            expected = model(s1, s2)
        found = session.run(list(expected._fields), {"s1": s1.numpy(), "s2": s2.numpy()})
        for name, values in zip(expected._fields, found, strict=True):
            np.testing.assert_allclose(values, getattr(expected, name).numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
