"""Tables for the templates: every cell as text, with its highlighting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bigearthnet_cbir.report.number_format import format_interval, format_value
from bigearthnet_cbir.report.tables import Cell, Estimate, Table


class CellView(NamedTuple):
    """A cell below the header.

    Attributes:
        text: value of the cell.
        interval: interval below the value, if there is one.
        is_bold: a value of the run, or a difference whose interval excludes zero.
        is_best: the highest value of a row in a comparison.
    """

    text: str
    interval: str | None = None
    is_bold: bool = False
    is_best: bool = False


class RowView(NamedTuple):
    """A row: its name, then its cells."""

    name: str
    cells: tuple[CellView, ...]


@dataclass(frozen=True)
class TableView:
    """A table.

    Attributes:
        caption: caption.
        kind: CSS class.
        header: one word per column.
        rows: rows below the header.
    """

    caption: str
    kind: str
    header: tuple[str, ...]
    rows: tuple[RowView, ...]


def table_view(table: Table) -> TableView:
    """Return the view of a table of estimates."""
    rows = tuple(RowView(str(row[0]), _cells(table, row)) for row in table.rows)
    return TableView(table.caption, table.name.split("_")[0], table.header, rows)


def text_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> TableView:
    """Return a table of text, which wraps inside the cells."""
    views = tuple(RowView(name, tuple(map(CellView, cells))) for name, *cells in rows)
    return TableView(caption, "wraps", tuple(header), views)


def _cells(table: Table, row: tuple[Cell, ...]) -> tuple[CellView, ...]:
    best = _best_column(table, row)
    return tuple(_cell(cell, column, best) for column, cell in enumerate(row[1:], start=1))


def _cell(cell: Cell, column: int, best: int | None) -> CellView:
    if not isinstance(cell, Estimate):
        return CellView(f"{cell:,}" if isinstance(cell, int) else cell)
    interval = format_interval(cell.lower, cell.upper, signed=cell.signed) if cell.has_interval else None
    is_bold = cell.excludes_zero if cell.signed else column == 1
    return CellView(format_value(cell.value, signed=cell.signed), interval, is_bold, column == best)


def _best_column(table: Table, row: tuple[Cell, ...]) -> int | None:
    found = {column: cell.value for column in table.best if isinstance(cell := row[column], Estimate)}
    known = {column: value for column, value in found.items() if not math.isnan(value)}
    return max(known, key=known.__getitem__) if len(known) > 1 else None
