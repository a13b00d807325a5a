"""Choice of the arithmetic: float32, or bfloat16 if the hardware supports it."""

from __future__ import annotations

import logging

import torch

from bigearthnet_cbir.errors import ConfigError

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16")


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the autocast dtype for auto, fp32 or bf16, and log the reason; float32 products on a GPU may then be TF32.

    TF32 keeps float32's range and ten bits of its mantissa, more than bf16 has. The search disables it.

    Raises:
        ConfigError: the precision is another word.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        return torch.bfloat16
    native, reason = _native_bf16(device)
    logger.info("precision auto: %s, because %s", "bf16" if native else "fp32", reason)
    return torch.bfloat16 if native else torch.float32


def _native_bf16(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return native, f"this GPU has {'' if native else 'no '}bf16 units"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return native, f"this CPU has {'AVX512-BF16 or AMX' if native else 'neither AVX512-BF16 nor AMX'}"
