"""Counts what was tried, what ended well and what was lost, across test processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tried:
    """One case.

    Attributes:
        stage: what was disturbed.
        kind: how.
        problem: what was not as it should be; empty where the case ended well.
        lost: whether the same command, run again without the fault, did not end with the undisturbed run's results,
            or did finished work again.
    """

    stage: str
    kind: str
    problem: str = ""
    lost: bool = False


class Tally:
    """A file of cases, one JSON line each; several processes append to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, case: Tried) -> None:
        line = json.dumps(asdict(case)) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def read(self) -> list[Tried]:
        if not self.path.exists():
            return []
        return [Tried(**json.loads(line)) for line in self.path.read_text().splitlines()]


@dataclass(frozen=True)
class Row:
    """The cases of one kind in one stage, counted."""

    kind: str
    stage: str
    tried: int
    ended_well: int
    lost: int


def count(cases: Iterable[Tried]) -> list[Row]:
    """Return a row for each kind and stage, in the order in which they were first seen."""
    groups: dict[tuple[str, str], list[Tried]] = {}
    for case in cases:
        groups.setdefault((case.kind, case.stage), []).append(case)
    return [
        Row(kind, stage, len(group), sum(not case.problem for case in group), sum(case.lost for case in group))
        for (kind, stage), group in groups.items()
    ]


def total(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each kind and stage, with the sums of the rows given."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.kind, row.stage), []).append(row)
    return [
        Row(kind, stage, *(sum(getattr(row, name) for row in group) for name in ("tried", "ended_well", "lost")))
        for (kind, stage), group in groups.items()
    ]


def table(rows: Iterable[Row]) -> str:
    """Return a Markdown table: a line per kind with the number tried in each stage, and the sums."""
    rows = list(rows)
    stages = list(dict.fromkeys(row.stage for row in rows))
    head = ["what happens", *stages, "tried", "ended well", "lost"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for kind in sorted({row.kind for row in rows}):
        tried = {row.stage: row.tried for row in rows if row.kind == kind}
        lines.append([kind, *(str(tried.get(stage, "")) for stage in stages), *_sums(rows, kind)])
    lines.append(["all", *(str(sum(r.tried for r in rows if r.stage == stage)) for stage in stages), *_sums(rows)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _sums(rows: list[Row], kind: str | None = None) -> list[str]:
    of = [row for row in rows if kind in (None, row.kind)]
    return [str(sum(numbers)) for numbers in zip(*((row.tried, row.ended_well, row.lost) for row in of), strict=True)]
