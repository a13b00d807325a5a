"""Verdicts on HDF5 files: of a separate process that reads them first, or that this process wrote them itself.

This module imports neither h5py nor NumPy, so that a command can start the other process before it imports them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import subprocess

SOUND: Final = "sound"
"""What the other process prints for a file without faults; for the first file with one it prints the fault."""

UNSOUND: Final = 3
"""Its exit code in that case."""

_PROBE: Final = "bigearthnet_cbir.storage.hdf5_probe"
_MOST: Final = 1024


class FileState(NamedTuple):
    """A file as it is now; another state is another file."""

    path: str
    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path, stat: os.stat_result) -> FileState:
        """Return the state of a path with the result of `os.stat` or `os.fstat`."""
        return cls(os.path.abspath(path), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


class _Probe:
    """A process that validates files one after the other, until the first fault."""

    def __init__(self, states: Sequence[FileState]) -> None:
        self.states = states
        self.process = _start([state.path for state in states])

    def learn(self) -> None:
        """Wait for the end of the process, and remember its verdicts; files after the first fault have none.

        If the process died, only a file that it had for itself is known to be damaged.
        """
        lines = self.process.communicate()[0].splitlines()
        if self.process.returncode == 0 and lines == [SOUND] * len(self.states):
            _verdicts.update(dict.fromkeys(self.states, ""))
        elif self.process.returncode == UNSOUND and lines:
            _verdicts.update(dict.fromkeys(self.states[: len(lines) - 1], ""))
            _verdicts[self.states[len(lines) - 1]] = lines[-1]
        elif len(self.states) == 1:
            _verdicts[self.states[0]] = "damaged"
        while len(_verdicts) > _MOST:
            del _verdicts[next(iter(_verdicts))]


_verdicts: dict[FileState, str] = {}
"""Fault of a file, or an empty text for a sound one."""

_under_way: list[_Probe] = []


def _start(paths: Sequence[str]) -> subprocess.Popen[str]:
    import subprocess  # imported lazily: the other process does not need it

    # One thread: starting those of NumPy's matrix library takes time, and none multiplies matrices.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", _PROBE, *paths],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def fault_of(state: FileState) -> str:
    """Return the fault of a file in the given state, or an empty text."""
    for probe in [probe for probe in _under_way if state in probe.states]:
        with suppress(ValueError):  # another thread was faster
            _under_way.remove(probe)
            probe.learn()
    if state not in _verdicts:
        _Probe([state]).learn()
    return _verdicts[state]


def seal(descriptor: int) -> os.stat_result:
    """Give a file that was written a precise time of modification, and return its state.

    The times of ordinary writes are those of a clock that ticks in milliseconds, so that every later write gives the
    file another time.
    """
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))
    return os.fstat(descriptor)


def trust(path: Path, stat: os.stat_result) -> None:
    """Remember that this process has just written a sealed file, which is sound until another process changes it."""
    _verdicts[FileState.of(path, stat)] = ""


@contextmanager
def early_verdicts(paths: Sequence[Path]) -> Iterator[None]:
    """Validate files in one process while the block imports what reads them; missing files are left out."""
    states = []
    for path in paths:
        with suppress(OSError):
            states.append(FileState.of(path, path.stat()))
    probe = _Probe(states) if states else None
    if probe is not None:
        _under_way.append(probe)
    try:
        yield
    finally:
        if probe is not None and probe in _under_way:
            _under_way.remove(probe)
            probe.process.kill()
            probe.process.communicate()
