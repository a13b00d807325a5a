"""Encoders in ONNX Runtime, which computes a convolutional network on a CPU faster than PyTorch: float32, or 8 bits."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.models.dual_encoder import S1_CHANNELS, S2_CHANNELS, DualEncoder
from bigearthnet_cbir.models.export import PATCH
from bigearthnet_cbir.models.int8 import CALIBRATION_BATCH, LEAST_COSINE, quantize

logger = logging.getLogger(__name__)

Images = tuple[Tensor, Tensor]
"""Normalised images of both sensors, (B, 2, 120, 120) and (B, 10, 120, 120)."""

TOLERANCE: Final = 1e-4
"""Largest accepted distance between the vectors of both programs, as a share of the vector's length."""

_CURE: Final = "use extract_backend: torch"
_FLOAT: Final = "use precision: auto"


def has_onnx_runtime() -> bool:
    """Return whether the extra `onnxruntime` is installed, without importing it."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnx"))


class OnnxEncoder:
    """The vectors of a network, computed by ONNX Runtime on the CPU with as many threads as PyTorch uses here.

    The network is converted in memory at the first call, or when the object is pickled for another process.
    """

    def __init__(self, model: DualEncoder, feature: str, calibration: Callable[[], Images] | None = None) -> None:
        """Keep the network.

        Args:
            model: the network.
            feature: "projection" for z1 and z2, "backbone" for h1 and h2.
            calibration: returns images of training patches, for a network in 8 bits; None for float32.
        """
        self._model: _Vectors | None = _Vectors(model.cpu(), feature).eval()
        self._calibration = calibration
        self._graph = b""
        self._session: Any = None

    def __call__(self, s1: Tensor, s2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (B, D) float32 vectors of normalised images, (B, 2, 120, 120) and (B, 10, 120, 120).

        Raises:
            ConfigError: the network cannot be converted, or its conversion gives other vectors.
        """
        if self._session is None:
            self._session = _start(self._converted())
        one, two = _run(self._session, s1, s2)
        return one, two

    def __getstate__(self) -> dict[str, Any]:
        return {"_model": None, "_calibration": None, "_graph": self._converted(), "_session": None}

    def _converted(self) -> bytes:
        if self._model is not None:
            self._graph = _convert(self._model)
            _check(self._model, self._graph)
            if self._calibration is not None:
                self._graph = _in_8_bits(self._graph, self._calibration())
            self._model = self._calibration = None
        return self._graph


class _Vectors(nn.Module):
    """The two vectors of an encoder that are searched with, as ONNX needs them: plain tensors."""

    def __init__(self, model: DualEncoder, feature: str) -> None:
        super().__init__()
        self.model, self.feature = model, feature

    def forward(self, s1: Tensor, s2: Tensor) -> tuple[Tensor, Tensor]:
        """Return z1 and z2, or h1 and h2."""
        output = self.model(s1, s2)
        return (output.z1, output.z2) if self.feature == "projection" else (output.h1, output.h2)


def _convert(network: _Vectors) -> bytes:
    """Return the network as an ONNX model.

    By tracing: the exporter that export.write_onnx uses takes ten times as long (6 s instead of 0.5 s for resnet10)
    and needs onnxscript.
    """
    stream = io.BytesIO()
    names = ["s1", "s2", "one", "two"]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # it is to be replaced in some version of PyTorch
            torch.onnx.export(
                network, _images(2), stream,  # type: ignore[arg-type]  # the tracing exporter takes a stream
                input_names=names[:2], output_names=names[2:], dynamo=False, opset_version=17,
                dynamic_axes={name: {0: "batch"} for name in names},
            )  # fmt: skip
    except (RuntimeError, TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"extract_backend: this network cannot be converted to ONNX ({reason}); {_CURE}") from error
    return stream.getvalue()


def _check(network: _Vectors, graph: bytes) -> None:
    """Raise ConfigError unless ONNX Runtime gives the vectors of PyTorch for some images."""
    images = _images(3)
    with torch.inference_mode():
        expected = network(*images)
    for found, wanted in zip(_run(_start(graph), *images), expected, strict=True):
        error = (found - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-12)
        if found.shape != wanted.shape or not float(error.max()) <= TOLERANCE:
            raise ConfigError(
                f"extract_backend: ONNX Runtime's vectors of this network differ from PyTorch's by {error.max():.1g} "
                f"of their length, more than {TOLERANCE:g}; {_CURE}"
            )


def _in_8_bits(graph: bytes, images: Images) -> bytes:
    """Return the network in 8 bits; raise ConfigError if its vectors of these images are far from those in float32."""
    try:
        found = quantize(graph, *images)
        lowest = _lowest_cosine(_start(found), _start(graph), images)
    except Exception as error:  # the quantiser raises many types, and plain Exception
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"precision is int8: this network cannot be quantised ({reason}); {_FLOAT}") from error
    if not lowest >= LEAST_COSINE:
        raise ConfigError(
            f"precision is int8: the cosine between a vector in 8 bits and in float32 is {lowest:.4f}, lower than "
            f"{LEAST_COSINE}; {_FLOAT}"
        )
    logger.info("precision int8: cosine to the vectors in float32 of %d training pairs >= %.5f", len(images[0]), lowest)
    return found


def _lowest_cosine(one: Any, other: Any, images: Images) -> float:
    """Return the lowest cosine between the vectors of two sessions; that of equal vectors, also of zeros, is 1."""
    found = []
    for batch in zip(*(torch.split(part, CALIBRATION_BATCH) for part in images), strict=True):
        for u, v in zip(_run(one, *batch), _run(other, *batch), strict=True):
            found.append(torch.cosine_similarity(u, v).masked_fill((u == v).all(dim=1), 1.0))
    return float(torch.cat(found).min())


def _images(count: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(count, bands, PATCH, PATCH, generator=generator) for bands in (S1_CHANNELS, S2_CHANNELS))
    return one, two


def _start(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _run(session: Any, s1: Tensor, s2: Tensor) -> list[Tensor]:
    outputs = session.run(None, {"s1": s1.contiguous().numpy(), "s2": s2.contiguous().numpy()})
    return [torch.from_numpy(values) for values in outputs]
