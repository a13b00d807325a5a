"""A trained encoder as files that other programs can use: safetensors, a JSON that explains them, and ONNX.

Bands are addressed by name: the JSON says which bands each input wants, in which order and how they are normalised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bigearthnet_cbir.errors import CbirError, CheckpointError
from bigearthnet_cbir.models.dual_encoder import S1_CHANNELS, S2_CHANNELS, DualEncoder

WEIGHTS: Final = "encoder.safetensors"
DESCRIPTION: Final = "encoder.json"
ONNX: Final = "encoder.onnx"
FORMAT: Final = "bigearthnet-cbir encoder, version 1"
PATCH: Final = 120


def write_export(model: DualEncoder, folder: Path, options: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Write encoder.safetensors and encoder.json.

    Args:
        model: in eval mode, on the CPU.
        folder: made where missing.
        options: keyword arguments that DualEncoder was built with.
        description: further plain values for the JSON: bands, normalisation, provenance.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": FORMAT})
    content = {"format": FORMAT, "encoder": dict(options), **description}
    (folder / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_export(folder: Path) -> tuple[DualEncoder, dict[str, Any]]:
    """Return the encoder of an export, in eval mode, and its description.

    Raises:
        CheckpointError: a file is missing, malformed, or the two do not belong together.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        model = DualEncoder(**description["encoder"])
        model.load_state_dict(load_file(folder / WEIGHTS))
    except CbirError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: no readable export ({type(error).__name__}); export it again") from error
    return model.eval(), description


class _Features(nn.Module):
    """The encoder with its four outputs as a plain tuple, which is what ONNX knows."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, s1: Tensor, s2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return h1, h2, z1, z2."""
        output = self.model(s1, s2)
        return output.h1, output.h2, output.z1, output.z2


def write_onnx(model: DualEncoder, folder: Path) -> None:
    """Write encoder.onnx with inputs s1 and s2 (normalised, any batch size) and outputs h1, h2, z1, z2."""
    example = torch.zeros(2, S1_CHANNELS, PATCH, PATCH), torch.zeros(2, S2_CHANNELS, PATCH, PATCH)
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        _Features(model).eval(),
        example,
        folder / ONNX,
        input_names=["s1", "s2"],
        output_names=["h1", "h2", "z1", "z2"],
        dynamic_shapes={"s1": {0: batch}, "s2": {0: batch}},
        external_data=False,
        verbose=False,
    )
