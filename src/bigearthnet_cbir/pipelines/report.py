"""The report of one or several runs: reads the run folders and writes the HTML page."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.errors import CbirError, ResultsError
from bigearthnet_cbir.evaluation.bootstrap import Difference
from bigearthnet_cbir.files import atomic_write, folder_lock
from bigearthnet_cbir.pipelines.baselines import find_baselines
from bigearthnet_cbir.pipelines.gallery import collect_gallery
from bigearthnet_cbir.report.compare_runs import compare
from bigearthnet_cbir.report.render import render_page
from bigearthnet_cbir.report.view_model import Gallery, Source, Study
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.storage.training_log import read_training_log

logger = logging.getLogger(__name__)

QUERIES = 8
COMPARISON = "comparison.html"


def write_report(
    paths: Path | str | Sequence[Path | str],
    *,
    output: Path | None = None,
    queries: int = QUERIES,
    seed: int = 0,
    figures: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Write the report of a run, or a comparison of several, and return the path of the page.

    Args:
        paths: one run folder or several, or a file in each (retrieval.h5, parameters.yaml).
        output: the page; by default report.html in the run folder, or comparison.html in the common
            parent folder of the runs.
        queries: number of queries per direction in the gallery.
        seed: seed of the random queries.
        figures: also write curves, gallery rows and tables as files, into figures/ beside the page.
        tensorboard: also write the headline metrics and an embedding projector of each run for TensorBoard.

    Raises:
        LockedError: another process is writing to a run's folder.
        ResultsError: a run has no readable results, or the page cannot be written.
    """
    given = [paths] if isinstance(paths, Path | str) else paths
    folders = [run_folder(Path(path)) for path in given]
    with ExitStack() as locks:
        for folder in folders if len(folders) == 1 or tensorboard else []:
            locks.enter_context(folder_lock(folder.root, "report"))
        return _write(folders, output, queries, seed, figures, tensorboard)


def _write(
    folders: Sequence[RunFolder], output: Path | None, queries: int, seed: int, figures: bool, tensorboard: bool
) -> Path:
    study = collect_study(folders, queries=queries, seed=seed)
    target = output or _default_output(folders)
    content = render_page(study)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            temporary.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{target}: cannot be written ({error.strerror}); choose another --output") from error
    logger.info("wrote %s, %.1f MB", target, len(content) / 1e6)
    if figures:
        from bigearthnet_cbir.report.export_figures import write_figures

        write_figures(study, target.parent / "figures")
    if tensorboard:
        from bigearthnet_cbir.pipelines.tensorboard import write_tensorboard

        for folder in folders:
            write_tensorboard(folder, seed=seed)
    return target


def run_folder(path: Path) -> RunFolder:
    """Return the run folder of a path: the path itself, or the folder of the file."""
    return RunFolder(path if path.is_dir() else path.parent)


def collect_study(folders: Sequence[RunFolder], *, queries: int = QUERIES, seed: int = 0) -> Study:
    """Read the data of a report.

    Raises:
        ResultsError: a run has no readable results, or no run is given.
    """
    if not folders:
        raise ResultsError("no run was given; name at least one run folder")
    names = _names(folders)
    sources = [_source(folder, name) for folder, name in zip(folders, names, strict=True)]
    labels = sources[0].data.class_names(CLASSES)
    paths = tuple(str(folder.root) for folder in folders)
    if len(folders) > 1:
        differences, why_not = _differences(folders, names)
        return Study(
            f"Comparison of {len(names)} runs", tuple(sources), labels,
            folders=paths, differences=differences, no_differences=why_not,
        )  # fmt: skip
    gallery = collect_gallery(folders[0], sources[0].data, labels, queries=queries, seed=seed)
    found, reason = (gallery, "") if isinstance(gallery, Gallery) else (None, gallery)
    title = f"{folders[0].root.resolve().parent.name} / {names[0]}"
    alone = Source("this run", sources[0].data, sources[0].training)
    return Study(title, (alone, *_baselines(folders[0])), labels, found, reason, paths)


def _differences(
    folders: Sequence[RunFolder], names: Sequence[str]
) -> tuple[dict[str, dict[str, dict[str, Difference]]], str]:
    """Return the differences of every run from the first, or the reason why there are none."""
    first = folders[0].retrieval
    try:
        others = zip(folders[1:], names[1:], strict=True)
        return {name: compare(folder.retrieval, first) for folder, name in others}, ""
    except CbirError as error:
        return {}, f"No paired differences. {error}"


def _source(folder: RunFolder, name: str) -> Source:
    return Source(name, read_results(folder.retrieval), read_training_log(folder.curves))


def _baselines(folder: RunFolder) -> list[Source]:
    found = find_baselines(folder.retrieval)
    return [Source(name, read_results(path), is_run=False) for name, path in found.items()]


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """Return each run's name, with as many parent folders as needed to be unique."""
    parts = [folder.root.resolve().parts for folder in folders]
    for depth in range(1, max(len(path) for path in parts) + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    raise ResultsError("the same run was given twice; compare different runs")


def _default_output(folders: Sequence[RunFolder]) -> Path:
    if len(folders) == 1:
        return folders[0].report
    return Path(os.path.commonpath([folder.root.resolve().parent for folder in folders])) / COMPARISON
