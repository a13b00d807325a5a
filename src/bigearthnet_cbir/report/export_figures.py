"""Export of a report for papers: curves and gallery rows as PNG, tables as CSV and LaTeX."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.report.display_names import CURVE_NAMES, SENSOR_NAMES, direction_heading, short_class_name
from bigearthnet_cbir.report.rgb import decode_jpeg
from bigearthnet_cbir.report.table_export import to_csv, to_latex
from bigearthnet_cbir.report.tables import (
    Table,
    class_table,
    difference_table,
    headline_table,
    label_count_table,
    variant_table,
)
from bigearthnet_cbir.report.view_model import Example, Gallery, Item, Study, curve_lines

logger = logging.getLogger(__name__)

_DPI = 160
_SIDE = 1.35
"""Width of a patch in a gallery row, in inches."""
_COLOURS = ("#0b6b5d", "#c2570c", "#4b49ac", "#a3195b", "#1b6ca8", "#7a5c1e", "#5a6b12", "#8c2f2a")
_DASHES = ("-", "--", ":", "-.", (0, (8, 2)), (0, (2, 3)), (0, (8, 2, 2, 2, 2, 2)), (0, (5, 2)))


def write_figures(study: Study, folder: Path) -> list[Path]:
    """Write everything into a folder and return the paths, in the order of the directions.

    Raises:
        OSError: a file cannot be written; an existing one is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [path for direction in study.directions for path in _write_direction(study, direction, folder)]
    logger.info("wrote %s files into %s", f"{len(written):,}", folder)
    return written


def _write_direction(study: Study, direction: str, folder: Path) -> Iterator[Path]:
    for table in direction_tables(study, direction):
        for suffix, content in (("csv", to_csv(table)), ("tex", to_latex(table))):
            path = folder / f"{table.name}.{suffix}"
            with atomic_write(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
            yield path
    yield _save(_curves_plot(study, direction), folder / f"curves_{direction}.png")
    if study.gallery is None:
        return
    for number, example in enumerate(study.gallery.examples.get(direction, ()), start=1):
        plot = _example_plot(study.gallery, example)
        yield _save(plot, folder / f"gallery_{direction}_{number:02d}_{example.reason}.png")


def direction_tables(study: Study, direction: str) -> list[Table]:
    """Return all available tables of a direction."""
    title = direction_heading(direction)
    found = [
        headline_table(study, direction, f"{title}, headline metrics"),
        difference_table(study, direction, f"{title}, differences from the first run"),
        class_table(study, direction, f"{title}, by class of the query"),
        label_count_table(study, direction, f"{title}, by number of labels of the query"),
        variant_table(study, direction, f"{title}, tie-aware and with spatial exclusion"),
    ]
    return [table for table in found if table is not None]


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """Return an empty matplotlib figure without window or global state; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported lazily: it takes 0.5 s
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> Path:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
    return path


def _curves_plot(study: Study, direction: str) -> Any:
    """Return a figure of every metric over the ranks, four per row."""
    shown = {name: found for name in CURVE_NAMES if (found := curve_lines(study, direction, name))}
    rows = max(1, -(-len(shown) // 4))
    figure = _figure(12, 2.9 * rows + 0.4)
    for index, (name, found) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(rows, 4, index)
        for line in found:
            axes.plot(range(1, len(line.values) + 1), line.values, label=_plain(line.name), **_drawn(line.style))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda rank, _: f"{rank:g}")
        axes.set_ylim(bottom=0)
        axes.set_title(f"{CURVE_NAMES[name].title}@k", fontsize=10)
        axes.grid(visible=True, linewidth=0.4, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    if shown:
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6), frameon=False)
    figure.suptitle(direction_heading(direction))
    return figure


def _drawn(style: str) -> dict[str, Any]:
    if style == "chance":
        return {"color": "#777777", "linestyle": ":", "linewidth": 1.2}
    kind, number = style.split("-")
    index = int(number)
    if kind == "base":
        return {"color": "#7a8790", "linestyle": ("--", "-.", (0, (8, 2)))[index % 3], "linewidth": 1.2}
    return {"color": _COLOURS[index], "linestyle": _DASHES[index], "linewidth": 2}


def _example_plot(gallery: Gallery, example: Example) -> Any:
    """Return a figure of a query and its results side by side, with labels below; shared labels are ticked."""
    images = [
        *(
            (sensor, key, example.query, f"query, {SENSOR_NAMES[sensor]}")
            for sensor, key in example.query.images.items()
        ),
        *(
            (sensor, key, item, f"{rank}   d = {item.distance:.3g}")
            for rank, item in enumerate(example.results, start=1)
            for sensor, key in item.images.items()
        ),
    ]
    most = max(len(item.labels) for _, _, item, _ in images)
    width, height = _SIDE * len(images), _SIDE + 0.3 + 0.13 * max(most, 1)
    figure = _figure(width, height, layout=None)
    for index, (_, key, item, title) in enumerate(images):
        side = 0.94 * _SIDE
        left, bottom = (index + 0.03) * _SIDE / width, 1 - (_SIDE + 0.18) / height
        axes = figure.add_axes((left, bottom, side / width, side / height))
        axes.imshow(decode_jpeg(gallery.images[key]))
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=8, pad=3)
        axes.set_xlabel(_labels(item), fontsize=6.5, labelpad=3)
    return figure


def _labels(item: Item) -> str:
    return "\n".join(_plain(f"✓ {short_class_name(name)}" if name in item.shared else short_class_name(name))
                     for name in item.labels)  # fmt: skip


def _plain(text: str) -> str:
    """Escape text so that matplotlib does not parse it as a formula."""
    return text.replace("$", r"\$")
