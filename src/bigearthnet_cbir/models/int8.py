"""Networks in 8 bits for ONNX Runtime: weights per output channel, activations by their range on training patches.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
https://arxiv.org/abs/1712.05877; here without training.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

LEAST_COSINE: Final = 0.99
"""Lowest accepted cosine between the vector of a calibration patch in 8 bits and in float32."""

_QUANTIZED: Final = ["Conv", "Add", "Relu", "MaxPool"]
"""The global average and the projection head stay in float32: they take no time, and cost most accuracy in 8 bits."""

CALIBRATION_BATCH: Final = 16
"""Images of each sensor in memory, with all their activations, at a time."""


def has_full_range() -> bool:
    """Return whether this processor multiplies 8-bit numbers without saturation (VNNI).

    On others the sums of two products saturate at 16 bits, so that weights have 7 bits.
    """
    return bool(torch.cpu._is_vnni_supported())


def quantize(graph: bytes, s1: Tensor, s2: Tensor) -> bytes:
    """Return an ONNX model with inputs s1 and s2 in 8 bits.

    Args:
        graph: the ONNX model in float32.
        s1: (N, 2, H, W) normalised images, from which the ranges of the activations are taken.
        s2: (N, 10, H, W).
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as temporary, _quiet():
        given, prepared, found = (Path(temporary) / name for name in ("given.onnx", "prepared.onnx", "found.onnx"))
        given.write_bytes(graph)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, found, _Images(s1, s2), quant_format=QuantFormat.QDQ, op_types_to_quantize=_QUANTIZED,
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax, reduce_range=not has_full_range(),
        )  # fmt: skip
        return found.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the messages of the quantiser, which uses the root logger, out of the log.

    Without a handler there, the functions of `logging` would install one, and every later message of this package would
    appear twice.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _Images:
    """The images in batches, as the calibration of ONNX Runtime asks for them."""

    def __init__(self, s1: Tensor, s2: Tensor) -> None:
        self._batches: Iterator[tuple[Tensor, Tensor]] = zip(
            torch.split(s1, CALIBRATION_BATCH), torch.split(s2, CALIBRATION_BATCH), strict=True
        )

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None after the last one."""
        batch = next(self._batches, None)
        return None if batch is None else dict(zip(("s1", "s2"), (images.numpy() for images in batch), strict=True))
