"""Export of a trained encoder for other programs: safetensors with a JSON description, and ONNX.

The JSON has the band names of each input in order, and their normalisation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.models.dual_encoder import S1_CHANNELS, S2_CHANNELS, DualEncoder
from bigearthnet_cbir.models.fusion import FUSIONS
from bigearthnet_cbir.models.safe_load import check_weights
from bigearthnet_cbir.models.skip_init import SkipInit
from bigearthnet_cbir.provenance import file_digest

WEIGHTS: Final = "encoder.safetensors"
DESCRIPTION: Final = "encoder.json"
ONNX: Final = "encoder.onnx"
FORMAT: Final = "bigearthnet-cbir encoder, version 1"
_DIGEST: Final = "weights_sha256"
_CURE: Final = "export it again"
PATCH: Final = 120


def write_export(model: DualEncoder, folder: Path, options: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Write encoder.safetensors and encoder.json.

    Args:
        model: encoder in eval mode on the CPU.
        folder: created if missing.
        options: keyword arguments of DualEncoder.
        description: further plain values for the JSON: bands, normalisation, provenance.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": FORMAT})
        digest = file_digest(temporary)
    content = {"format": FORMAT, _DIGEST: digest, "encoder": dict(options), **description}
    with atomic_write(folder / DESCRIPTION) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_export(folder: Path) -> tuple[DualEncoder, dict[str, Any]]:
    """Return the encoder of an export, in eval mode, and its description.

    Raises:
        CheckpointError: a file is missing, malformed, or the two are of different exports.
    """
    try:
        description = _read_description(folder / DESCRIPTION)
        if description.get(_DIGEST, "") not in ("", file_digest(folder / WEIGHTS)):
            raise CheckpointError(f"{folder}: {WEIGHTS} is damaged, or does not belong to {DESCRIPTION}; {_CURE}")
        weights = load_file(folder / WEIGHTS)
        with SkipInit():
            model = DualEncoder(**description["encoder"])
        check_weights(weights, model.state_dict(), folder / WEIGHTS)
        model.load_state_dict(weights)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: not a readable export ({type(error).__name__}); {_CURE}") from error
    return model.eval(), description


def _read_description(path: Path) -> dict[str, Any]:
    """Return the description, after validating the required values.

    Raises:
        CheckpointError: a required value is missing or invalid.
        ValueError, TypeError, OSError, RecursionError: the file is missing or not JSON.
    """
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    wrong = [name for name, is_right in _RULES.items() if name in content and not is_right(content[name])]
    wrong += [name for name in _NEEDED if name not in content]
    if wrong:
        raise CheckpointError(f"{path}: {', '.join(wrong)}: missing or invalid; {_CURE}")
    return dict(content)


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _are_statistics(value: Any) -> bool:
    """Return whether a value is band -> [mean, deviation above 0]."""
    return isinstance(value, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(x) in (int, float) and abs(x) < 1e30 for x in pair)
        and pair[1] > 0
        for pair in value.values()
    )  # fmt: skip


_NEEDED: Final = ("format", "encoder")
_RULES: Final[dict[str, Callable[[Any], bool]]] = {
    "format": lambda value: value == FORMAT,
    _DIGEST: lambda value: isinstance(value, str),
    "encoder": lambda value: isinstance(value, dict),
    "inputs": lambda value: isinstance(value, dict) and all(map(_are_names, value.values())),
    "normalisation": _are_statistics,
    "class_names": _are_names,
    "feature": lambda value: value in ("projection", "backbone"),
    "fusion": lambda value: value in FUSIONS,
}
"""Checks of the required values."""


class _Features(nn.Module):
    """The encoder with its four outputs as a plain tuple, as ONNX requires."""

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
