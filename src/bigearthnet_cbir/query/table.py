"""An answer as a table for a terminal, with two lines per pair."""

from __future__ import annotations

import textwrap
from typing import Final

from bigearthnet_cbir.query.answer import Answer, Hit

_INDENT: Final = " " * 14
LEAST_WIDTH: Final = 60


def answer_table(answer: Answer, width: int = 80) -> str:
    """Return lines of at most `width` characters, except for patch names, which are never broken.

    Args:
        answer: to be printed.
        width: of the terminal, in characters.
    """
    width = max(width, LEAST_WIDTH)
    head = textwrap.wrap(_headline(answer), width)
    if answer.labels:
        head += textwrap.wrap(f"query: {'; '.join(answer.labels)}", width, subsequent_indent="       ")
    lines = [*head, "", f"{'rank':>4} {'distance':>8} patch; date, location, labels (* shared with the query)"]
    for hit in answer.hits:
        name = hit.name_s1 if answer.archive == "s1" else hit.name_s2
        lines.append(f"{hit.rank:>4} {hit.distance:>8.4g} {name}")
        lines += textwrap.wrap(_details(hit, answer.archive), width, initial_indent=_INDENT, subsequent_indent=_INDENT)
    if not answer.hits:
        lines.append("no patch passes the filters; remove a filter")
    return "\n".join(lines)


def _headline(answer: Answer) -> str:
    some = answer.kept + len(answer.asked) < answer.size
    share = f", {answer.kept:,} pass the filters" if some else ""
    return f"{answer.question}; {answer.query} -> {answer.archive}, {answer.distance}, {answer.size:,} patches{share}"


def _details(hit: Hit, archive: str) -> str:
    labels = "; ".join(f"{'*' if label in hit.shared else ''}{label}" for label in hit.labels) or "no labels"
    date = hit.date_s1 if archive == "s1" else hit.date_s2
    place = "" if hit.longitude is None or hit.latitude is None else _degrees(hit.longitude, hit.latitude)
    return "  ".join(part for part in (date, f"{place} {hit.country}".strip(), labels) if part)


def _degrees(longitude: float, latitude: float) -> str:
    east, north = "E" if longitude >= 0 else "W", "N" if latitude >= 0 else "S"
    return f"{abs(latitude):.3f}{north} {abs(longitude):.3f}{east}"
