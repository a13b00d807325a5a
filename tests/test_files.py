"""Atomic writes and folder locks, with real processes."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bigearthnet_cbir.errors import LockedError
from bigearthnet_cbir.files import LOCK_NAME, atomic_write, folder_lock, release_pages, remove_leftovers

HOLD = """
import sys, time, os
from pathlib import Path
from bigearthnet_cbir.files import folder_lock
with folder_lock(Path(sys.argv[1]), "train"):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(60)  # a worker that outlives its parent
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *more], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_second_process_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        with (
            pytest.raises(LockedError, match=rf"train \(process {process.pid} on .+, since \d{{4}}-"),
            folder_lock(tmp_path, "retrieve"),
        ):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


SLOW = HOLD.replace(
    "with folder_lock",
    """from bigearthnet_cbir import files
name_holder = files._name_holder
def late(*arguments):
    print("held", flush=True)
    time.sleep(0.3)
    name_holder(*arguments)
files._name_holder = late
with folder_lock""",
)


def test_a_holder_that_has_just_taken_the_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a lock and its note another command sees an empty note."""
    monkeypatch.setitem(globals(), "HOLD", SLOW)
    process = hold(tmp_path)
    try:
        with pytest.raises(LockedError, match=rf"train \(process {process.pid} on "), folder_lock(tmp_path, "retrieve"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_lock_ends_with_its_process_even_if_a_worker_lives_on(tmp_path: Path) -> None:
    process = hold(tmp_path, "with a worker")
    try:
        process.kill()
        process.wait()
        with folder_lock(tmp_path, "retrieve"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_lock_nests_inside_a_process_and_is_free_afterwards(tmp_path: Path) -> None:
    with folder_lock(tmp_path, "retrieve"), folder_lock(tmp_path, "report"):
        pass
    process = hold(tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_inner_block_does_not_release_the_outer_lock(tmp_path: Path) -> None:
    with folder_lock(tmp_path, "retrieve"):
        with folder_lock(tmp_path, "report"):
            pass
        done = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True, check=False, timeout=30
        )
        assert "LockedError" in done.stderr


def test_file_system_without_locks_is_named_in_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("bigearthnet_cbir.files.fcntl.lockf", refuse)
    with folder_lock(tmp_path, "train"):
        pass
    assert "offers no locks" in caplog.text


def test_atomic_write_replaces_in_one_step_and_keeps_the_old_file_on_error(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        _write_and_fail(temporary)
    assert path.read_text() == "first"
    assert [item.name for item in tmp_path.iterdir()] == ["file.txt"]


def _write_and_fail(path: Path) -> None:
    path.write_text("second")
    raise RuntimeError


def test_two_atomic_writes_of_one_file_do_not_share_a_temporary_name(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_write(path) as one, atomic_write(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"


def test_leftovers_of_a_killed_process_are_removed_and_other_files_kept(tmp_path: Path) -> None:
    script = """
import sys, os, signal
from pathlib import Path
from bigearthnet_cbir.files import atomic_write
with atomic_write(Path(sys.argv[1]) / "query.h5") as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    (tmp_path / ".notes.tmp").write_text("the user's own")
    (tmp_path / ".query.h5.tmp").write_text("left by an earlier version")
    assert len(list(tmp_path.iterdir())) == 3
    with folder_lock(tmp_path, "retrieve"):
        assert {item.name for item in tmp_path.iterdir()} == {".notes.tmp", LOCK_NAME}
    remove_leftovers(tmp_path / "missing")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), folder_lock(tmp_path / "file" / "run", "train"):
        pass


def resident(path: Path) -> int:
    """Return the resident kilobytes of a file's memory maps in this process."""
    parts = Path("/proc/self/smaps").read_text().split("\n")
    starts = [row for row, line in enumerate(parts) if line.endswith(str(path))]
    return sum(int(next(line for line in parts[row:] if line.startswith("Rss:")).split()[1]) for row in starts)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_released_pages_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    np.arange(1 << 20, dtype=np.int32).tofile(path)
    rows = np.memmap(path, np.int32, "r")
    total = int(rows.sum())
    assert resident(path) > 4000
    release_pages(rows)
    assert resident(path) == 0
    assert int(rows.sum()) == total
    release_pages(np.zeros(3))  # an array in memory stays as it is
