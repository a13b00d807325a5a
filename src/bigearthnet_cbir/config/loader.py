"""Reading and writing of YAML configurations; all problems of a file are reported together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict
from pathlib import Path
from typing import Any, Final

import yaml

from bigearthnet_cbir.checkout import checkout_around, own_checkout, repository_root
from bigearthnet_cbir.config.protocols import resolve_protocol
from bigearthnet_cbir.config.schema import (
    KEYS,
    LOGGING_KEYS,
    OBSOLETE_KEYS,
    OBSOLETE_LOGGING_KEYS,
    PATH_KEYS,
    Config,
    LoggingParams,
)
from bigearthnet_cbir.config.together import check_together
from bigearthnet_cbir.config.validators import RuleError, nearest
from bigearthnet_cbir.config.yaml_text import plain_values
from bigearthnet_cbir.errors import ConfigError, MissingConfigError
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.messages import brief, brief_path, plain

logger = logging.getLogger(__name__)

MOST_BYTES: Final = 1 << 20
MOST_PROBLEMS: Final = 20


def load_config(path: str | Path, root: Path | None = None) -> Config:
    """Read and validate a YAML file.

    Raises:
        ConfigError: the file cannot be read, or keys are invalid; the message has all invalid keys.
    """
    path = Path(path)
    values = read_mapping(path)
    if values.get("encoder") is not None and values.get("encoder_path") is None:
        values["encoder_path"] = str(path.resolve().parent)
    return parse_config(values, source=plain(path.name), root=root or repository_root(path))


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the keys of a YAML file, not validated; mappings that `<<` merges are templates and are omitted.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has no keys.
    """
    text = _read_text(path)
    try:
        values = plain_values(text, (*KEYS, "logging_params"))
    except ConfigError as error:
        raise ConfigError(f"{plain(path.name)}: {error}") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"{plain(path.name)}: has no keys; start from project/config/args.yaml")
    return dict(values)


def as_config(given: Config | Mapping[str, Any] | Path | str) -> Config:
    """Return a Config unchanged, or the configuration of a mapping of keys or a YAML file.

    Raises:
        ConfigError: as load_config does.
    """
    if isinstance(given, Config):
        return given
    return parse_config(given) if isinstance(given, Mapping) else load_config(given)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ConfigError(f"{path}: is larger than {MOST_BYTES:,} bytes; give a YAML file of keys")
        return content.decode("utf-8")
    except ConfigError:
        raise
    except FileNotFoundError as error:
        where = brief_path(path)
        raise MissingConfigError(f"{where}: cannot be read (there is no such file); give a YAML file") from error
    except OSError as error:
        raise ConfigError(f"{brief_path(path)}: cannot be read ({error.strerror}); give a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text; give a YAML file") from error
    except ValueError as error:  # the path has a NUL byte
        raise ConfigError(f"{brief_path(path)}: cannot be read ({error}); give a YAML file") from error


def read_value(text: str) -> Any:
    """Parse a YAML value; text that is not YAML is returned unchanged."""
    try:
        return plain_values(text)
    except ConfigError:
        return text


def parse_config(values: Any, source: str = "configuration", root: Path | None = None) -> Config:
    """Validate a mapping of keys and return the frozen configuration.

    Raises:
        ConfigError: the message has every unknown key, invalid value and missing key, each with its rule.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: has no keys; start from project/config/args.yaml")
    root = (root or repository_root()).resolve()
    values = dict(values)
    problems: list[str] = []
    logging_values = values.pop("logging_params", {}) or {}
    if not isinstance(logging_values, Mapping):
        problems.append(f"logging_params is {brief(logging_values)}; give the keys save_dir and name under it")
        logging_values = {"name": "invalid"}
    kept = _check_all(values, KEYS, OBSOLETE_KEYS, "", problems)
    kept_logging = _check_all(logging_values, LOGGING_KEYS, OBSOLETE_LOGGING_KEYS, "logging_params.", problems)
    if not problems:
        check_together(kept, problems)
        resolve_protocol(kept, problems)
        kept_logging.setdefault("save_dir", LOGGING_KEYS["save_dir"].default)
        _resolve(kept, PATH_KEYS, "", root, problems)
        _resolve(kept_logging, ("save_dir",), "logging_params.", root, problems)
    if problems:
        raise ConfigError(f"{source}: " + "; and ".join(_first(problems)))
    return Config(**kept, logging_params=LoggingParams(**kept_logging), source=source)


def _first(problems: list[str]) -> list[str]:
    left = len(problems) - MOST_PROBLEMS
    return problems if left <= 0 else [*problems[:MOST_PROBLEMS], f"{left:,} further problems"]


def _resolve(kept: dict[str, Any], names: tuple[str, ...], prefix: str, root: Path, problems: list[str]) -> None:
    """Make paths absolute in place: relative to the root, with ~ as the home folder."""
    for name in names:
        if kept.get(name) is None:
            continue
        try:
            kept[name] = str(root / Path(kept[name]).expanduser())
        except RuntimeError:
            problems.append(f"{prefix}{name} is {brief(kept[name])}; no such home folder, write the path in full")


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
            hint = nearest(str(name), list(keys)) or "; remove it"
            problems.append(f"{prefix}{plain(str(name))} is not a key{hint}")
        elif value is None and keys[name].metadata["optional"]:
            kept[name] = None
        else:
            try:
                kept[name] = keys[name].metadata["rule"].check(value)
            except RuleError as error:
                problems.append(f"{prefix}{name} is {brief(value)}; {error}")
    for name, item in keys.items():
        if item.default is MISSING and name not in values:
            words, meaning = item.metadata["rule"].words, item.metadata["meaning"]
            problems.append(f"{prefix}{name} is missing; give {words} ({meaning})")
    return kept


def write_config(config: Config, path: Path, root: Path | None = None) -> None:
    """Write a configuration as YAML, atomically; paths under the repository root are written relative to it.

    Without a repository paths are absolute, so that the file does not depend on the current folder.
    """
    root = root or own_checkout() or checkout_around(path.resolve())
    values = asdict(config)
    values.pop("source")
    if root is not None:
        for name in PATH_KEYS:
            values[name] = _relative(values[name], root.resolve())
        values["logging_params"]["save_dir"] = _relative(values["logging_params"]["save_dir"], root.resolve())
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _relative(text: str | None, root: Path) -> str | None:
    if text is None or not Path(text).is_relative_to(root):
        return text
    return str(Path(text).relative_to(root))
