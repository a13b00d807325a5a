"""From a YAML file to a Config and back: all problems of a file are reported together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict
from pathlib import Path
from typing import Any

import yaml

from bigearthnet_cbir.config.keys import (
    BACKBONE_WIDTHS,
    KEYS,
    LOGGING_KEYS,
    OBSOLETE_KEYS,
    OBSOLETE_LOGGING_KEYS,
    PATH_KEYS,
    Config,
    LoggingParams,
)
from bigearthnet_cbir.config.protocols import settle_protocol
from bigearthnet_cbir.config.rules import RuleError, nearest
from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.provenance import replace_file

logger = logging.getLogger(__name__)


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; here that is an error."""


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for name_node, _ in node.value:
        name = loader.construct_object(name_node)
        if name in seen:
            raise ConfigError(f"line {name_node.start_mark.line + 1}: {name} is given twice; keep one")
        seen.add(name)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def repository_root() -> Path:
    """Return the folder that relative paths in a YAML file start from.

    That is the checkout this package runs from; for a package installed elsewhere it is the current folder.
    """
    root = Path(__file__).resolve().parents[3]
    return root if (root / "project").is_dir() else Path.cwd()


def load_config(path: str | Path, root: Path | None = None) -> Config:
    """Read and validate a YAML file.

    Raises:
        ConfigError: the file cannot be read, or some keys are wrong; every wrong key is named.
    """
    return parse_config(read_mapping(Path(path)), source=Path(path).name, root=root)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the keys of a YAML file, not validated.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds no keys.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text; give a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}: is not valid YAML{where}; check indentation, colons and quotes") from error
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path.name}: holds no keys; start from project/config/args.yaml")
    return dict(values)


def read_value(text: str) -> Any:
    """Return the value that a piece of YAML stands for; text that is not YAML stands for itself."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ConfigError):
        return text


def parse_config(values: Any, source: str = "configuration", root: Path | None = None) -> Config:
    """Validate a mapping of keys and return the frozen configuration.

    Raises:
        ConfigError: names every unknown key, wrong value and missing key, each with its rule.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: holds no keys; start from project/config/args.yaml")
    root = (root or repository_root()).resolve()
    values = dict(values)
    problems: list[str] = []
    logging_values = values.pop("logging_params", {}) or {}
    if not isinstance(logging_values, Mapping):
        problems.append(f"logging_params is {logging_values!r}; give the keys save_dir and name under it")
        logging_values = {"name": "invalid"}
    kept = _check_all(values, KEYS, OBSOLETE_KEYS, "", problems)
    kept_logging = _check_all(logging_values, LOGGING_KEYS, OBSOLETE_LOGGING_KEYS, "logging_params.", problems)
    if not problems:
        _check_together(kept, problems)
        settle_protocol(kept, problems)
    if problems:
        raise ConfigError(f"{source}: " + "; and ".join(problems))
    for name in PATH_KEYS:
        if kept.get(name) is not None:
            kept[name] = _from_root(kept[name], root)
    kept_logging["save_dir"] = _from_root(kept_logging.get("save_dir", "logs"), root)
    return Config(**kept, logging_params=LoggingParams(**kept_logging), source=source)


def _from_root(text: str, root: Path) -> str:
    return str(root / Path(text).expanduser())


def _check_all(
    values: Mapping[Any, Any],
    keys: Mapping[str, Field[Any]],
    obsolete: tuple[str, ...],
    prefix: str,
    problems: list[str],
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name in obsolete:
            logger.warning("%s%s had no effect in the original scripts and has none here", prefix, name)
        elif name not in keys:
            problems.append(f"{prefix}{name} is not a key{nearest(str(name), list(keys)) or '; remove it'}")
        elif value is None and keys[name].metadata["optional"]:
            kept[name] = None
        else:
            try:
                kept[name] = keys[name].metadata["rule"].check(value)
            except RuleError as error:
                problems.append(f"{prefix}{name} is {value!r}; {error}")
    for name, item in keys.items():
        if item.default is MISSING and name not in values:
            words, meaning = item.metadata["rule"].words, item.metadata["meaning"]
            problems.append(f"{prefix}{name} is missing; give {words} ({meaning})")
    return kept


def _check_together(kept: dict[str, Any], problems: list[str]) -> None:
    backbone = kept.get("backbone", KEYS["backbone"].default)
    width = BACKBONE_WIDTHS[backbone]
    if kept.get("n_features") not in (None, width):
        problems.append(f"n_features is {kept['n_features']}; {backbone} gives {width}: write that or leave it out")
    epochs = kept.get("epochs", KEYS["epochs"].default)
    if kept.get("start_epoch", 0) >= epochs:
        problems.append(f"start_epoch is {kept['start_epoch']}; give less than epochs, which is {epochs}")
    if kept.get("contrastive_loss") == "label_aware" and kept.get("memory_size"):
        problems.append(f"memory_size is {kept['memory_size']}; label_aware has no memory, give 0")
    device = kept.get("device", "auto")
    if device not in {"auto", "cpu", "cuda"} and not (device.startswith("cuda:") and device[5:].isdigit()):
        problems.append(f"device is {device!r}; choose one of auto, cpu, cuda, cuda:N")


def write_config(config: Config, path: Path, root: Path | None = None) -> None:
    """Write a configuration as YAML; paths under the repository root are written relative to it."""
    root = (root or repository_root()).resolve()
    values = asdict(config)
    values.pop("source")
    for name in PATH_KEYS:
        values[name] = _relative(values[name], root)
    values["logging_params"]["save_dir"] = _relative(values["logging_params"]["save_dir"], root)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    replace_file(temporary, path)


def _relative(text: str | None, root: Path) -> str | None:
    if text is None or not Path(text).is_relative_to(root):
        return text
    return str(Path(text).relative_to(root))
