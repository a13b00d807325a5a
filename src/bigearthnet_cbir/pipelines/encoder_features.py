"""Vectors of batches of pairs: of a network in PyTorch or ONNX Runtime, or plain band statistics.

Objects of these classes can be pickled for Ray workers; they then use the first device of the same type there.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from bigearthnet_cbir.data.dataset import PairBatch
from bigearthnet_cbir.data.transforms import BatchTransform
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.models.dual_encoder import DualEncoder, rebuild_encoder
from bigearthnet_cbir.models.fusion import fuse
from bigearthnet_cbir.models.onnx_runtime import OnnxEncoder, has_onnx_runtime
from bigearthnet_cbir.storage.features import FUSED_FEATURE, S1_FEATURE, S2_FEATURE
from bigearthnet_cbir.training.precision import choose_precision

logger = logging.getLogger(__name__)


def choose_arithmetic(precision: str, backend: str, device: torch.device, backbone: str) -> tuple[torch.dtype, str]:
    """Return the data type and the program, torch or onnxruntime, that compute the vectors of a network.

    `auto` is onnxruntime for a torchvision ResNet in float32 on a CPU, if it is installed. bfloat16, where the
    processor has it, is faster in PyTorch than float32 in either.

    int8 is computed by onnxruntime only, on a CPU.

    Args:
        precision: auto, fp32, bf16 or int8.
        backend: auto, torch or onnxruntime.
        device: device of the computation.
        backbone: name of the backbone.

    Raises:
        ConfigError: onnxruntime is needed, but is not installed, or does not fit the device or the precision.
    """
    if precision == "int8":
        _require_onnx_runtime("precision is int8, and onnxruntime", "another precision")
        if device.type != "cpu" or backend == "torch":
            found = f"on {device}" if device.type != "cpu" else "with extract_backend: torch"
            raise ConfigError(f"precision is int8, which is for onnxruntime on a CPU, not {found}; use bf16 or fp32")
        return torch.int8, "onnxruntime"
    if backend == "onnxruntime":
        _require_onnx_runtime("extract_backend is onnxruntime, which", "torch")
        if device.type != "cpu" or precision == "bf16":
            found = f"on {device}" if device.type != "cpu" else "with precision: bf16"
            raise ConfigError(f"extract_backend is onnxruntime, which is for float32 on a CPU, not {found}; use torch")
        return torch.float32, backend
    kind = choose_precision(precision, device)
    fits = device.type == "cpu" and kind == torch.float32 and not backbone.startswith("timm:")
    if backend == "torch" or not fits or not has_onnx_runtime():
        return kind, "torch"
    logger.info("extract_backend auto: onnxruntime, because it is installed and this is float32 on a CPU")
    return kind, "onnxruntime"


def _require_onnx_runtime(what: str, instead: str) -> None:
    if not has_onnx_runtime():
        raise ConfigError(f"{what} is not installed; use {instead}, or pip install 'bigearthnet-cbir[onnxruntime]'")


class EncoderFeatures:
    """The vectors of a network of this project."""

    def __init__(
        self, model: DualEncoder, device: torch.device, precision: torch.dtype, feature: str, fusion: str
    ) -> None:
        self._model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._transform = BatchTransform(device)
        self._chosen = device, precision, feature, fusion

    @torch.inference_mode()
    def __call__(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the fused vectors and those of each sensor, (B, D) float32 on the CPU."""
        device, precision, feature, fusion = self._chosen
        s1, s2 = (images.contiguous(memory_format=torch.channels_last) for images in self._transform(batch))
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            output = self._model(s1, s2)
        chosen = (output.z1, output.z2) if feature == "projection" else (output.h1, output.h2)
        one, two = (vectors.float() for vectors in chosen)
        return {FUSED_FEATURE: fuse(one, two, fusion).cpu(), S1_FEATURE: one.cpu(), S2_FEATURE: two.cpu()}

    def __reduce__(self) -> tuple[Any, ...]:
        device, *others = self._chosen
        weights = {name: weight.cpu() for name, weight in self._model.state_dict().items()}
        return _rebuilt, (self._model.settings, weights, device.type, *others)


def _rebuilt(settings: dict[str, Any], weights: dict[str, Tensor], device: str, *others: Any) -> EncoderFeatures:
    return EncoderFeatures(rebuild_encoder(settings, weights), torch.device(device), *others)


class OnnxFeatures:
    """The vectors of a network in ONNX Runtime; normalisation, resampling and fusion are those of PyTorch."""

    def __init__(self, encoder: OnnxEncoder, fusion: str) -> None:
        self._encoder, self._fusion = encoder, fusion
        self._transform = BatchTransform()

    @torch.inference_mode()
    def __call__(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the fused vectors and those of each sensor, (B, D) float32 on the CPU."""
        one, two = self._encoder(*self._transform(batch))
        return {FUSED_FEATURE: fuse(one, two, self._fusion), S1_FEATURE: one, S2_FEATURE: two}


class BandStatistics:
    """Mean and standard deviation of each normalised band: 4 numbers of Sentinel-1, 20 of Sentinel-2."""

    def __init__(self, device: torch.device) -> None:
        self._transform = BatchTransform(device)

    def __reduce__(self) -> tuple[Any, ...]:
        return BandStatistics, (torch.device(self._transform.device.type),)

    @torch.inference_mode()
    def __call__(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the fused vectors and those of each sensor, (B, D) float32 on the CPU."""
        one, two = (
            torch.cat((images.mean((2, 3)), images.std((2, 3))), dim=1).cpu() for images in self._transform(batch)
        )
        return {FUSED_FEATURE: torch.cat((one, two), dim=1), S1_FEATURE: one, S2_FEATURE: two}
