"""The YAML configuration: one frozen value, read once and validated once."""

from bigearthnet_cbir.config.loader import as_config, load_config, parse_config, write_config
from bigearthnet_cbir.config.schema import BACKBONE_WIDTHS, MODEL_KEYS, Config, LoggingParams

__all__ = [
    "BACKBONE_WIDTHS", "MODEL_KEYS", "Config", "LoggingParams", "as_config", "load_config", "parse_config",
    "write_config",
]  # fmt: skip
