"""Commands of the package, run in this process: a script of its own would import torch each time."""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
from collections.abc import Callable


def run_command(main: Callable[..., int], *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the `main` of a module of bigearthnet_cbir.cli and return what its script prints; the log is in stderr."""
    argv = list(map(str, words))
    out, err = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(err)
    package = logging.getLogger("bigearthnet_cbir")
    package.addHandler(handler)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = main(argv=argv)
    finally:
        package.removeHandler(handler)
    assert found == code, f"{argv}\n{out.getvalue()}\n{err.getvalue()}"
    return subprocess.CompletedProcess(argv, found, out.getvalue(), err.getvalue())
