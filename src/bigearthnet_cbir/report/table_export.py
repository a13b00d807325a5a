"""Tables as HTML, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math

from bigearthnet_cbir.report.html import Html, element
from bigearthnet_cbir.report.number_format import MINUS, format_interval, format_value
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


def to_html(table: Table) -> Html:
    """Return a table inside a region that scrolls where the screen is too narrow for it."""
    head = element("tr", *(element("th", word, scope="col", class_="name" if column == 0 else None)
                           for column, word in enumerate(table.header)))  # fmt: skip
    body = [element("tr", *_html_cells(table, row)) for row in table.rows]
    content = element("table", element("thead", head), element("tbody", *body), class_=table.name.split("_")[0])
    return scrolling(table.caption, content)


def scrolling(caption: str, table: Html) -> Html:
    """Return a table below its caption, in a region that the keyboard reaches and that scrolls where it must."""
    region = element("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return element("figure", element("figcaption", caption, class_="caption"), region)


def _html_cells(table: Table, row: tuple[Cell, ...]) -> list[Html]:
    marked = _best(table, row)
    cells = [element("th", str(row[0]), scope="row", class_="name")]
    for column, cell in enumerate(row[1:], start=1):
        if isinstance(cell, Estimate):
            cells.append(_estimate_cell(cell, own=column == 1, best=column == marked))
        else:
            cells.append(element("td", f"{cell:,}" if isinstance(cell, int) else cell))
    return cells


def _estimate_cell(cell: Estimate, *, own: bool, best: bool) -> Html:
    """Return a figure above its interval; differences are bold where that excludes zero, others in the run's column."""
    value: Html | str = format_value(cell.value, signed=cell.signed)
    if best:
        value = element("strong", value, " ▲")
    interval = format_interval(cell.lower, cell.upper, signed=cell.signed) if cell.has_interval else None
    below = None if interval is None else element("small", interval)
    bold = cell.excludes_zero if cell.signed else own
    return element("td", value, below, class_="own" if bold else None)


def _best(table: Table, row: tuple[Cell, ...]) -> int | None:
    found = {column: cell.value for column in table.best if isinstance(cell := row[column], Estimate)}
    known = {column: value for column, value in found.items() if not math.isnan(value)}
    return max(known, key=known.__getitem__) if len(known) > 1 else None


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
