"""Tables as CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from bigearthnet_cbir.report.number_format import MINUS
from bigearthnet_cbir.report.tables import Cell, Estimate, Table

# Own escaping: pandas does not escape arrow, minus, < and >, which LaTeX rejects or prints wrongly.
_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "→": r"$\rightarrow$",
        MINUS: "$-$",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def to_csv(table: Table) -> str:
    """Return a table as CSV with full precision; a column with intervals is followed by their limits."""
    columns: list[tuple[str, list[Any]]] = []
    for column, word in enumerate(table.header):
        columns += _csv_columns(word, [row[column] for row in table.rows])
    # Numbered columns, because two runs may have the same name; object dtype keeps integers beside floats.
    frame = pd.DataFrame({column: values for column, (_, values) in enumerate(columns)}, dtype=object)
    return str(frame.to_csv(index=False, header=[word for word, _ in columns], lineterminator="\n"))


def _csv_columns(word: str, cells: Sequence[Cell]) -> list[tuple[str, list[Any]]]:
    """Return the CSV columns of a table column: its values, and their limits if any has an interval."""
    columns = [(word, [cell.value if isinstance(cell, Estimate) else cell for cell in cells])]
    if any(isinstance(cell, Estimate) and cell.has_interval for cell in cells):
        estimates = [cell if isinstance(cell, Estimate) else Estimate(math.nan) for cell in cells]
        columns.append((f"{word} lower", [cell.lower for cell in estimates]))
        columns.append((f"{word} upper", [cell.upper for cell in estimates]))
    return columns


def to_latex(table: Table) -> str:
    """Return a LaTeX table in booktabs style; its caption is a comment."""
    cells = [[_latex_cell(cell) for cell in row] for row in table.rows]
    frame = pd.DataFrame(cells, columns=[latex_escape(word) for word in table.header])
    alignment = "l" + "r" * (len(table.header) - 1)
    # A line break would end the comment.
    caption = " ".join(table.caption.split())
    return f"% {caption}\n{frame.to_latex(index=False, escape=False, column_format=alignment)}"


def _latex_cell(cell: Cell) -> str:
    if not isinstance(cell, Estimate):
        return latex_escape(str(cell))
    if math.isnan(cell.value):
        return "--"
    sign = "+" if cell.signed else ""
    interval = rf" {{\small [{cell.lower:{sign}.3f}, {cell.upper:{sign}.3f}]}}" if cell.has_interval else ""
    return f"{cell.value:{sign}.3f}{interval}"


def latex_escape(text: str) -> str:
    """Escape all special characters of LaTeX."""
    return text.translate(_LATEX)
