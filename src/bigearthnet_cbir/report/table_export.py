"""Tables as CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math

from bigearthnet_cbir.report.number_format import MINUS
from bigearthnet_cbir.report.tables import Cell, Estimate, Table

_LATEX = {
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


def to_csv(table: Table) -> str:
    """Return a table as CSV with full precision; a column with intervals is followed by its two ends."""
    wide = _columns_with_intervals(table)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header: list[str] = []
    for column, word in enumerate(table.header):
        header += [word, f"{word} lower", f"{word} upper"] if column in wide else [word]
    writer.writerow(header)
    for row in table.rows:
        cells: list[str] = []
        for column, cell in enumerate(row):
            cells += _csv_cells(cell, column in wide)
        writer.writerow(cells)
    return stream.getvalue()


def _csv_cells(cell: Cell, wide: bool) -> list[str]:
    if not isinstance(cell, Estimate):
        return [str(cell), "", ""] if wide else [str(cell)]
    values = (cell.value, cell.lower, cell.upper) if wide else (cell.value,)
    return ["" if math.isnan(value) else repr(value) for value in values]


def _columns_with_intervals(table: Table) -> set[int]:
    return {
        column
        for row in table.rows
        for column, cell in enumerate(row)
        if isinstance(cell, Estimate) and cell.has_interval
    }


def latex_escape(words: str) -> str:
    """Return text with every character that LaTeX gives a meaning escaped."""
    return "".join(_LATEX.get(character, character) for character in words)


def to_latex(table: Table) -> str:
    """Return a table in booktabs style, for a paper that uses the booktabs package."""
    lines = [
        rf"% {table.caption.replace(chr(10), ' ')}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(latex_escape(word) for word in table.header) + r" \\",
        r"\midrule",
        *(" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    if not isinstance(cell, Estimate):
        return latex_escape(str(cell))
    if math.isnan(cell.value):
        return "--"
    sign = "+" if cell.signed else ""
    interval = rf" {{\small [{cell.lower:{sign}.3f}, {cell.upper:{sign}.3f}]}}" if cell.has_interval else ""
    return f"{cell.value:{sign}.3f}{interval}"
