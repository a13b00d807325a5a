"""The files that docs/architecture.md lists for a key, an embedding and a query result are those that a run passes."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tests.pipelines.test_reuse import World
from tests.pipelines.test_reuse import world as world  # the fixture

import bigearthnet_cbir
from bigearthnet_cbir.cli import show
from bigearthnet_cbir.pipelines.report import write_report
from bigearthnet_cbir.pipelines.retrieve import retrieve
from bigearthnet_cbir.results import DirectionResult, RunResults
from bigearthnet_cbir.types import Neighbours

SOURCE = Path(bigearthnet_cbir.__file__).parent
ROOT = SOURCE.parents[1]
KEY, EMBEDDING, PRINTED, PAGE = range(4)
MOST = {KEY: 4, EMBEDDING: 8, PRINTED: 8, PAGE: 8}
EVERYWHERE = {"compiled.py", "results.py", "storage/hdf5_reading.py", "storage/result_groups.py"}
"""Checks that hand on what they were given (of kernel arguments, of HDF5 files), and the values' own class."""
WIDTHS = {8, 16, 512}
"""Of the projections, the fused vectors and the features of resnet10."""


def listed() -> list[list[str]]:
    """Return the files of each row of the table."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.split("## Files on the path of a value")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| a")]
    return [re.findall(r"`([a-z_0-9/]+\.py)`", row.split("|")[2]) for row in rows]


def test_listed_files_exist_and_are_few() -> None:
    rows = listed()
    assert len(rows) == len(MOST)
    for row, most in MOST.items():
        assert 3 <= len(set(rows[row])) == len(rows[row]) <= most - (row == KEY)  # the README is the fourth of a key
        assert all((SOURCE / name).is_file() for name in rows[row])


def test_a_key_is_named_in_the_listed_files_only() -> None:
    named = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py") if re.search(r"\bweight_decay\b", path.read_text())
    }  # fmt: skip
    assert named == set(listed()[KEY])
    assert "weight_decay" in (ROOT / "README.md").read_text()


def is_embedding(value: Any) -> bool:
    if not isinstance(value, np.ndarray | torch.Tensor | h5py.Dataset) or (
        isinstance(value, h5py.Dataset) and not value
    ):
        return False  # or a dataset of a closed file
    return value.ndim == 2 and value.shape[1] in WIDTHS and "float" in str(value.dtype)


def is_result(value: Any) -> bool:
    return isinstance(value, Neighbours | DirectionResult | RunResults)


def within(value: Any, wanted: Callable[[Any], bool], depth: int = 2) -> bool:
    if wanted(value):
        return True
    parts = list(value.values()) if type(value) is dict else value if type(value) in (tuple, list) else ()
    return depth > 0 and any(within(part, wanted, depth - 1) for part in parts[:4])


@contextmanager
def followed(wanted: Callable[[Any], bool]) -> Iterator[set[str]]:
    """Collect the files of the package in which a function returns or holds a value that is wanted."""
    found: set[str] = set()
    start = f"{SOURCE}/"

    def look(frame: FrameType, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename
        if event != "return" or not file.startswith(start) or (name := file.removeprefix(start)) in found:
            return
        if within(argument, wanted) or any(within(value, wanted, 1) for value in frame.f_locals.values()):
            found.add(name)

    before = sys.getprofile()
    sys.setprofile(look)
    threading.setprofile(look)  # a direction is evaluated in a thread of its own
    try:
        yield found
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
        doors = {"search/knn.py" if name.startswith("search/") else name for name in found}
        found.clear()
        found |= {name for name in doors if not name.startswith("evaluation/")} - EVERYWHERE


def small(world: World) -> World:
    world.config = replace(
        world.config, backbone="resnet10", n_features=512, projection_dim=8, out_channels=4, protocol="custom",
        query_split="val", archive_split="train", top_k=2, precision="fp32",
        extract_backend="torch",
    )  # fmt: skip
    return world


@pytest.mark.slow
def test_an_embedding_passes_the_listed_files(world: World) -> None:
    world = small(world)
    with followed(is_embedding) as passed:
        retrieve(world.config, world.run, baseline="untrained")
    assert passed - {"query/missing_modality.py"} == set(listed()[EMBEDDING])


@pytest.mark.slow
def test_a_query_result_passes_the_listed_files(world: World) -> None:
    world = small(world)
    with followed(is_result) as passed:
        written = retrieve(world.config, world.run, baseline="untrained")
        assert show.main(["--filepath", str(written)]) == 0
    assert passed == set(listed()[PRINTED])
    with followed(is_result) as passed:
        write_report(written)
    # It hands results on without a name of their own.
    assert passed | {"pipelines/report.py"} == set(listed()[PAGE])
