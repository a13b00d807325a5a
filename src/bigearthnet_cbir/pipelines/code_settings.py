"""The settings that determine binary codes. Opening an index compares them, so this module does not import torch."""

from __future__ import annotations

from typing import Any, Final

from bigearthnet_cbir.config import Config

DEFAULT_BITS: Final = 64
ONE_BIT_A_FEATURE: Final = ("median", "mean")


def code_bits(config: Config) -> int | None:
    """Return the length of a code in bits; None: one bit for each feature."""
    return None if config.code in ONE_BIT_A_FEATURE else config.code_bits or DEFAULT_BITS


def code_settings(config: Config) -> dict[str, Any]:
    """Return method and length of the codes, as plain values, and the loss of learned ones."""
    settings: dict[str, Any] = {"code": config.code, "code_bits": code_bits(config)}
    return {**settings, "hash_loss": config.hash_loss} if config.code == "learned" else settings
