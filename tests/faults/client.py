"""Asks the warm process for commands, disturbs them, and sees how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
"""No command of the small world may take longer: it hangs."""

COUNT, KILL, KILL_HALFWAY, FAIL = range(4)
"""What the preloaded library does; see preload.c."""


class Watch(NamedTuple):
    """Disturb the `at`-th change of files below a folder."""

    folder: Path
    at: int = 0
    mode: int = COUNT
    error: int = 0
    log: Path | None = None


class Ended(NamedTuple):
    """How a command ended: its exit code (minus the signal, None where it hung and was killed), and what it said."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        """Exit code and last lines, for messages."""
        return f"exit code {self.code}: {' | '.join(self.err.splitlines()[-3:])}"


@dataclass
class Running:
    """A command under way."""

    server: Server
    process: int
    out: Path
    err: Path
    started: float = field(default_factory=time.monotonic)

    def kill(self, what: int = signal.SIGKILL) -> None:
        """Send a signal; the process is not forgotten before `end`, so the number cannot be another's."""
        os.kill(self.process, what)

    def end(self, timeout: float = SECONDS) -> Ended:
        """Wait for the end; a command that hangs is killed with all it started."""
        code = self.server.ask("wait", process=self.process, timeout=timeout)
        seconds = time.monotonic() - self.started
        if code is None:
            try:
                os.killpg(self.process, signal.SIGKILL)
            except ProcessLookupError:  # so early that it had no process group of its own yet
                self.kill()
            self.server.ask("wait", process=self.process, timeout=SECONDS)
        return Ended(code, self.out.read_text(errors="replace"), self.err.read_text(errors="replace"), seconds)


def build_preload(folder: Path) -> Path | None:
    """Compile the library that counts writes, or return None where there is no compiler for it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    library = folder / "preload.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, Path(__file__).with_name("preload.c"), "-ldl"]
    done = subprocess.run(command, capture_output=True, check=False)
    return library if done.returncode == 0 else None


class Server:
    """The warm process of server.py."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._number = 0
        library = build_preload(folder)
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        preload = {"LD_PRELOAD": str(library)} if library else {}
        self._log = (folder / "server.txt").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server"],
            cwd=ROOT, env={**os.environ, **one_thread, **preload, **(environment or {})}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        ready = self._answer()
        self.mounts: bool = ready["mounts"]
        self.watching: bool = ready["watching"]

    def ask(self, do: str, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server died: {(self.folder / 'server.txt').read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["answer"]

    def start(
        self, command: str, arguments: Sequence[object], *, watch: Watch | None = None, **request: Any
    ) -> Running:
        """Start a command: a module of bigearthnet_cbir.cli. Further words of the request: see server.become."""
        self._number += 1
        out, err = (self.folder / f"{self._number}.{name}" for name in ("out", "err"))
        if watch is not None:
            log = None if watch.log is None else str(watch.log)
            request["watch"] = {**watch._asdict(), "folder": str(watch.folder), "log": log}
        process = self.ask(
            "start", command=command, arguments=[str(word) for word in arguments], out=str(out), err=str(err), **request
        )
        return Running(self, process, out, err)

    def run(self, command: str, arguments: Sequence[object], **request: Any) -> Ended:
        return self.start(command, arguments, **request).end()

    def view(self, path: Path) -> Path:
        """Return a path under which this process sees what the server has mounted there."""
        return Path(f"/proc/{self._process.pid}/root") / path.relative_to("/")

    def mount(self, folder: Path, size: int, *, again: bool = False, read_only: bool = False) -> None:
        self.ask("mount", folder=str(folder), size=size, again=again, read_only=read_only)

    def unmount(self, folder: Path) -> None:
        self.ask("unmount", folder=str(folder))

    def close(self) -> None:
        """End the process; it kills what is still running, and its mounts go with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
