"""HTML that is escaped by construction: whatever is not markup made here is text."""

from __future__ import annotations

import html
import json
from typing import Any, TypeAlias

VOID = frozenset({"br", "img", "input", "link", "meta"})


class Html(str):
    """Markup; only `element`, `joined` and `raw` make it."""

    __slots__ = ()


Child: TypeAlias = "Html | str | None"


def text(value: object) -> Html:
    """Return a value as text, with every character that HTML gives a meaning escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def joined(*children: Child) -> Html:
    """Return children one after the other; None stands for nothing."""
    return Html("".join(text(child) for child in children if child is not None))


def element(name: str, /, *children: Child, **attributes: Any) -> Html:
    """Return one element.

    Args:
        name: of the element.
        children: text or markup.
        attributes: `class_` and `for_` lose their underscore, others turn it into a hyphen; True gives a bare
            attribute, False and None leave it out.
    """
    parts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-")
        parts.append(f" {spelled}" if value is True else f' {spelled}="{text(value)}"')
    start = f"<{name}{''.join(parts)}>"
    return Html(start) if name in VOID and not children else Html(f"{start}{joined(*children)}</{name}>")


def svg_element(name: str, /, *children: Child, **attributes: Any) -> Html:
    """Return one SVG element, closed, with attribute names as SVG spells them (viewBox keeps its capital)."""
    parts = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{parts}>{joined(*children)}</{name}>")


def raw(content: str) -> Html:
    """Return content that is markup already: our own style sheet and script."""
    return Html(content)


def json_block(identifier: str, content: object) -> Html:
    """Return data for the page's script; no text in it can end the block."""
    spelled = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    safe = spelled.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Html(f'<script type="application/json" id="{text(identifier)}">{safe}</script>')
