"""Evaluation protocols: query split and archive split."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

CUSTOM: Final = "custom"
DEFAULT: Final = "csmae"

PROTOCOLS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "original": {"query_split": "train", "archive_split": "test"},
        "csmae": {"query_split": "val", "archive_split": "test"},
    }
)
"""original: protocol of the original scripts. csmae: https://arxiv.org/abs/2401.07782, whose queries are unseen."""


def resolve_protocol(kept: dict[str, Any], problems: list[str]) -> None:
    """Fill in protocol, query_split and archive_split from the given ones; report contradictions.

    Without a named protocol, splits that differ from the default make it "custom". A named protocol other than custom
    determines the splits; explicitly given splits must agree with it.

    Args:
        kept: the given keys, each validated; changed in place.
        problems: messages are appended here.
    """
    given = {name: kept[name] for name in PROTOCOLS[DEFAULT] if name in kept}
    splits = {**PROTOCOLS[DEFAULT], **given}
    protocol = kept.get("protocol") or (DEFAULT if splits == PROTOCOLS[DEFAULT] else CUSTOM)
    if protocol != CUSTOM:
        splits = {**PROTOCOLS[protocol]}
        problems += [
            f"{name} is {split!r}, but protocol {protocol} has {splits[name]}; remove it or give protocol: custom"
            for name, split in given.items()
            if split != splits[name]
        ]
    kept.update(splits, protocol=protocol)
