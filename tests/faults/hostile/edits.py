"""Seeded edits of plain values: files that are well formed and say something wrong."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**6, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ",
    "\n", "x", "x" * 3000, "\x00", "\u202e", "../..", "é", "-1", "nan", [], {}, [[]], [None], {"": None}, [0] * 50,
)  # fmt: skip
"""Values that a reader may not expect somewhere."""


def edited(value: Any, random: Random) -> tuple[Any, str]:
    """Return a copy of nested lists and dicts with one thing changed, and say what."""
    root = [copy.deepcopy(value)]
    places = list(_places(root, ()))
    container, key, path = random.choice(places)
    told = f"{'/'.join(map(str, path[1:])) or 'all'}"
    action = random.choice(("replace", "replace", "replace", "nearby", "remove", "nest", "rename", "double", "swap"))
    if action == "nearby" and type(container[key]) in (int, float):
        container[key] = random.choice((container[key] + 1, container[key] - 1, -container[key], container[key] * 2))
    elif action == "remove" and len(path) > 1:
        del container[key]
    elif action == "nest":
        container[key] = [container[key]]
    elif action == "rename" and isinstance(container, dict):
        container[random.choice((f"{key}x", str(key).upper(), "__proto__", str(key)[:-1]))] = container.pop(key)
    elif action == "double" and isinstance(container, list) and len(path) > 1:
        container.append(copy.deepcopy(container[key]))
    elif action == "swap" and len(places) > 1:
        other, other_key, _ = random.choice(places)
        container[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(container[key])
    else:
        container[key] = copy.deepcopy(random.choice(ODD))
        action = f"replaced by {container[key]!r:.40}"
    return root[0], f"{told}: {action}"


def _places(container: Any, path: tuple[Any, ...]) -> Any:
    keys = list(container) if isinstance(container, dict) else range(len(container))
    for key in keys:
        yield container, key, (*path, key)
        if isinstance(container[key], dict | list) and container[key]:
            yield from _places(container[key], (*path, key))


def edited_json(content: bytes, random: Random) -> tuple[bytes, str]:
    """Return a JSON with one thing changed: a value, or now and then its form."""
    if random.random() < 0.1:
        changed, told = random.choice(
            (
                (b"[" * 100_000, "nesting without end"),
                (content.replace(b"{", b'{"labels": 3, ', 1), "a key twice"),
                (content.replace(b'"', b"'"), "other quotes"),
                (content.replace(b'"', b'"\xff', 1), "no UTF-8"),
                (b"\xef\xbb\xbf" + content, "a byte order mark"),
                (content.decode().encode("utf-16"), "UTF-16"),
                (content + content, "twice"),
                (b'{"x": ' + b"9" * 10_000 + b"}", "a number of 10,000 digits"),
            )
        )
        return changed, told
    value, told = edited(json.loads(content), random)
    return json.dumps(value).encode(), told
