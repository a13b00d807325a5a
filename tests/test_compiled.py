"""Kernels on disk are never older than any source that they hold, wherever they are kept; and what may reach them."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bigearthnet_cbir import compiled, kernel_cache
from bigearthnet_cbir.compiled import kernel_array
from bigearthnet_cbir.kernel_cache import KEPT_FOLDERS, KEPT_SECONDS, PACKAGE, PREFIX, ROOMS, drop_old_folders

pytestmark = pytest.mark.slow

LENGTHS = """
import numpy as np
from bigearthnet_cbir.search.shards import lengths_of
print(lengths_of(np.full((1, 32), 3, np.float32))[0] ** 2)
"""
TIES = """
import numpy as np
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.tie_aware import tie_aware_curves
archive = np.eye(30, 4, dtype=np.uint8) | 1
distances = np.repeat(np.arange(3.0), [8, 12, 10])[None]
ties = tie_aware_curves(GroundTruth.of(archive[:1], archive), np.arange(30)[None], distances)
print(ties.numbers["largest_group"], round(float(ties.curves["normalized_discounted_cumulative_gains"][0]), 6))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package whose sources a test may edit."""
    copy = tmp_path / "lib" / "bigearthnet_cbir"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def run(package: Path, code: str, **environment: str) -> str:
    """Run a program with a copy of the package; bytecode is not kept, so that every edit of a source counts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    settings = {**kept, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def edit(file: Path, old: str, new: str) -> None:
    """Replace a text that stands once, and keep the file's time: a checkout of another commit may do the same."""
    text, state = file.read_text(), file.stat()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def folders(place: Path) -> list[Path]:
    return sorted(place.glob(f"{PREFIX}*"))


def test_search_sees_an_edited_function_of_another_file(package: Path) -> None:
    assert float(run(package, LENGTHS)) == pytest.approx(32 * 9)
    edit(package / "search" / "kernels" / "simd_sums.py", "return builder.fmul(u, v)", "return builder.fadd(u, v)")
    assert float(run(package, LENGTHS)) == pytest.approx(32 * 6)


def test_metrics_see_an_edited_function_and_an_edited_constant_of_other_files(package: Path) -> None:
    largest, gains = run(package, TIES).split()
    assert (largest, float(gains)) == ("12", 1.0)
    edit(package / "evaluation" / "summary.py", "HEADLINE_RANK: Final = 10", "HEADLINE_RANK: Final = 22")
    assert run(package, TIES).split()[0] == "10"
    edit(package / "evaluation" / "kernels.py", "ideal[i] = total + gain *", "ideal[i] = total + 2 * gain *")
    assert run(package, TIES).split() == ["10", "0.5"]


COUNTED = (
    LENGTHS
    + """
from bigearthnet_cbir.search.distances import row_lengths
print(sum(row_lengths.stats.cache_hits.values()))
"""
)


def test_kernels_are_found_again_and_kept_where_they_may_be(package: Path, tmp_path: Path) -> None:
    assert run(package, COUNTED).split()[1] == "0"
    assert run(package, COUNTED).split()[1] == "1"
    assert len(folders(package / "__pycache__")) == 1
    mine = tmp_path / "mine"
    assert run(package, COUNTED, NUMBA_CACHE_DIR=str(mine)).split()[1] == "0"
    assert len(folders(mine)) == 1
    assert not list(package.rglob("*.nbi"))


def test_a_package_that_cannot_be_written_keeps_its_kernels_elsewhere(package: Path, tmp_path: Path) -> None:
    (package / "__pycache__").write_text("not a folder")  # also root, whom no mode stops, cannot write here
    caches, none = tmp_path / "caches", tmp_path / "none"
    none.write_text("not a folder")
    assert run(package, COUNTED, XDG_CACHE_HOME=str(caches)).split()[1] == "0"
    assert run(package, COUNTED, XDG_CACHE_HOME=str(caches)).split()[1] == "1"
    (tmp_path / "scratch").mkdir()
    without_home = {"XDG_CACHE_HOME": str(none), "HOME": str(none), "TMPDIR": str(tmp_path / "scratch")}
    assert run(package, COUNTED, **without_home).split()[1] == "0"
    assert run(package, COUNTED, **without_home).split()[1] == "1"
    private = tmp_path / "scratch" / f"bigearthnet-cbir-{os.getuid()}"
    private.chmod(0o777)  # others may have put something there
    assert run(package, COUNTED, **without_home).split()[1] == "0"
    assert run(package, COUNTED, NUMBA_CACHE_DIR=str(none)).split()[1] == "0"


def test_a_broken_entry_is_compiled_anew(package: Path) -> None:
    run(package, LENGTHS)
    entries = list(folders(package / "__pycache__")[0].iterdir())
    assert entries
    for entry in entries:
        content = entry.read_bytes()
        entry.write_bytes(content[: len(content) // 2])
    for hits in ("0", "1"):
        squared, found = run(package, COUNTED).split()
        assert (float(squared), found) == (pytest.approx(288), hits)


def test_processes_that_start_together_agree(package: Path) -> None:
    settings = {**os.environ, "PYTHONPATH": str(package.parent), "NUMBA_CACHE_DIR": str(package.parent / "cache")}
    started = [
        subprocess.Popen([sys.executable, "-c", LENGTHS], env=settings, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [float(process.communicate()[0]) for process in started] == [pytest.approx(288)] * 3
    assert not [file for file in (package.parent / "cache").rglob("*") if file.name.endswith(".tmp")]


def test_folders_of_other_digests_do_not_grow_for_ever(tmp_path: Path) -> None:
    current = tmp_path / f"{PREFIX}current"
    ages = [1, 2, 3, KEPT_SECONDS - 60, KEPT_SECONDS + 60, *range(10, 14)]
    for age in ages:
        folder = tmp_path / f"{PREFIX}{age}"
        folder.mkdir()
        (folder / "kernel").write_text("code")
        os.utime(folder, (time.time() - age, time.time() - age))
    current.mkdir()
    (tmp_path / "another project").mkdir()
    drop_old_folders(tmp_path, current)
    assert {file.name for file in folders(tmp_path)} == {f"{PREFIX}{name}" for name in ("current", 1, 2, 3)}
    assert KEPT_FOLDERS == 3
    assert (tmp_path / "another project").exists()
    for folder in folders(tmp_path):
        os.utime(folder, (0, 0))
    drop_old_folders(tmp_path, current)
    assert folders(tmp_path) == [current]


def test_every_kernel_stands_where_the_digest_looks() -> None:
    """Kernels are compiled by our decorators, in the folders that the digest covers, from modules of ours there."""
    for file in PACKAGE.rglob("*.py"):
        imported = {
            f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }  # fmt: skip
        place = file.relative_to(PACKAGE).parts[0]
        if any(name.startswith("bigearthnet_cbir.compiled.compiled") for name in imported):
            assert place in ROOMS, file
        if file.name != "compiled.py":
            assert "njit" not in file.read_text(), file
            assert "jit(" not in file.read_text(), file


def test_an_unreadable_source_means_no_cache(tmp_path: Path) -> None:
    assert kernel_cache.sources_digest(tmp_path) is None
    assert len(kernel_cache.sources_digest() or "") == 64


def layouts() -> dict[str, np.ndarray]:
    plain = np.arange(24, dtype=np.float32).reshape(4, 6)
    unaligned = np.frombuffer(b"x" + plain.tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 6)
    return {
        "C": plain, "F": np.asfortranarray(plain), "big-endian": plain.astype(">f4"), "unaligned": unaligned,
        "transposed": plain.T.copy().T, "columns": np.repeat(plain, 2, axis=1)[:, ::2],
        "backwards": plain[::-1, ::-1].copy()[::-1, ::-1], "double": plain.astype(np.float64),
    }  # fmt: skip


@pytest.mark.parametrize("layout", list(layouts()))
def test_kernel_arrays_are_plain_memory(layout: str) -> None:
    given = layouts()[layout]
    found = kernel_array(given, np.float32)
    np.testing.assert_array_equal(found, layouts()["C"])
    assert found.flags.c_contiguous
    assert found.flags.aligned
    assert not found.flags.writeable
    assert found.dtype.isnative
    assert found.dtype == np.float32
    assert given.flags.writeable == (layout != "unaligned")


def test_a_plain_array_is_not_copied() -> None:
    plain = layouts()["C"]
    assert np.shares_memory(kernel_array(plain, np.float32), plain)
    assert kernel_array(plain).dtype == np.float32


def test_an_intrinsic_refuses_memory_that_is_not_contiguous() -> None:
    from bigearthnet_cbir.search.distances import row_lengths

    with pytest.raises(compiled.TypingError, match="convert it with kernel_array"):
        row_lengths(layouts()["F"], np.empty(4))
