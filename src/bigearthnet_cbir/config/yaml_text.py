"""Conversion of YAML text to plain values (text, numbers, lists, mappings); anything else is an error.

PyYAML's composer parses the text. Values are built here, because a configuration needs more than the safe loader
offers: numbers that keep their notation, an error for duplicate keys, and limits for malicious text.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import yaml

from bigearthnet_cbir.errors import ConfigError
from bigearthnet_cbir.messages import brief, plain

MOST_LEVELS: Final = 20
MOST_MERGED: Final = 100_000
"""Limit of the keys that all merges of a text copy; nested aliases could otherwise fill the memory."""

LONGEST_NUMBER: Final = 1000
"""Limit in characters; PyYAML needs quadratic time for base-60 numbers."""

_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = _TAG + "merge"
_AS_WRITTEN: Final = (_TAG + "str", _TAG + "timestamp", _TAG + "value")
"""No configuration key is a date, so 2024-01-01 stays text."""


class WrittenInt(int):
    """An integer that keeps its notation: 010 is 8."""

    written: str


class WrittenFloat(float):
    """A float that keeps its notation: 1.10 is 1.1."""

    written: str


class _Composer(yaml.SafeLoader):
    """Refuses deeply nested text before Python's recursion limit is reached."""

    level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.level += 1
        if self.level > MOST_LEVELS:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise ConfigError(
                f"{_line(event)}is nested more than {MOST_LEVELS} levels deep; configuration keys are flat"
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self.level -= 1
        return node


def plain_values(text: str, keys: Collection[str] = ()) -> Any:
    """Return the values of a YAML document; None if it is empty.

    A top-level mapping that `<<` merges is a template and is omitted, unless its name is in `keys`.

    Args:
        text: one YAML document.
        keys: names that are kept although their mapping is merged.

    Raises:
        ConfigError: it is not YAML, a key is given twice, it has a tag, or its nesting is recursive.
    """
    try:
        composer = _Composer(text)
        try:
            root = composer.get_single_node()
            return None if root is None else _Values(composer, keys).document(root)
        finally:
            composer.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"is not valid YAML{where}; check indentation, colons and quotes") from error


class _Values:
    """Builds the value of each node once; aliases share it, so that repeated aliases need no memory."""

    def __init__(self, composer: _Composer, keys: Collection[str]) -> None:
        self._composer = composer
        self._keys = keys
        self._built: dict[int, Any] = {}
        self._open: set[int] = set()
        self._templates: set[int] = set()
        self._merges = 0

    def document(self, root: yaml.Node) -> Any:
        value = self._value(root)
        if not isinstance(root, yaml.MappingNode):
            return value
        dropped = {
            name.value
            for name, node in root.value
            if id(node) in self._templates and name.tag != _MERGE and name.value not in self._keys
        }
        return {name: kept for name, kept in value.items() if name not in dropped}

    def _value(self, node: yaml.Node) -> Any:
        if id(node) in self._built:
            return self._built[id(node)]
        if id(node) in self._open:
            raise ConfigError(f"{_line(node)}an alias is inside the value that it names; write the value out")
        self._open.add(id(node))
        value = self._built[id(node)] = self._build(node)
        self._open.discard(id(node))
        return value

    def _build(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag == _TAG + "map" and isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if node.tag == _TAG + "seq":
            return [self._value(item) for item in node.value]
        raise _tagged(node)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: set[str] = set()
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise ConfigError(f"{_line(name)}a key is a list or a mapping; give a word")
            word = name.value
            if word in seen:
                cure = "write <<: [*one, *other]" if name.tag == _MERGE else "keep one"
                raise ConfigError(f"{_line(name)}{plain(word)} is given twice; {cure}")
            seen.add(word)
            if name.tag == _MERGE:
                merged = self._merged(value)
            else:
                own[word] = self._value(value)
        return {**merged, **own}

    def _merged(self, node: yaml.Node) -> dict[str, Any]:
        """Return the keys of the mapping, or of the list of mappings, after `<<`; earlier ones take precedence."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Any] = {}
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise ConfigError(
                    f"{_line(source)}<< merges mappings; give *name of a mapping, or a list of such names"
                )
            self._templates.add(id(source))
            values = self._value(source)
            self._merges += len(values)
            if self._merges > MOST_MERGED:
                raise ConfigError(f"{_line(source)}its merges repeat over {MOST_MERGED:,} keys; write the keys out")
            found = {**values, **found}
        return found

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if node.tag in _AS_WRITTEN or node.tag == _MERGE:
            return text
        kind = node.tag.removeprefix(_TAG)
        if kind not in {"int", "float", "bool", "null"}:
            raise _tagged(node)
        if len(text) > LONGEST_NUMBER:
            raise ConfigError(f"{_line(node)}a number of {len(text):,} characters, which is too long")
        try:
            value = self._composer.construct_object(node)
        except (ValueError, KeyError, OverflowError, IndexError) as error:
            raise ConfigError(f"{_line(node)}{brief(text)} cannot be read as {kind}; check the value") from error
        if kind in {"int", "float"}:
            number = WrittenInt(value) if kind == "int" else WrittenFloat(value)
            number.written = text
            return number
        return value


def _tagged(node: yaml.Node) -> ConfigError:
    tag = plain(node.tag.replace(_TAG, "!!"))
    return ConfigError(f"{_line(node)}the tag {tag} is not supported; remove it")


def _line(marked: Any) -> str:
    return f"line {marked.start_mark.line + 1}: "
