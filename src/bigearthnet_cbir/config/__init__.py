"""The YAML configuration: read and validated once, then a frozen value."""

from bigearthnet_cbir.config.loader import as_config, load_config, parse_config, write_config
from bigearthnet_cbir.config.schema import BACKBONE_WIDTHS, MODEL_KEYS, Config, LoggingParams

__all__ = [
    "BACKBONE_WIDTHS", "MODEL_KEYS", "Config", "LoggingParams", "as_config", "load_config", "parse_config",
    "write_config",
]  # fmt: skip
