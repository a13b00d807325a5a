"""The command line: argument parsing, logging set-up, and errors as one line with an exit code."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bigearthnet_cbir.checkout import is_checkout
from bigearthnet_cbir.errors import CbirError, MissingConfigError
from bigearthnet_cbir.messages import brief_path, plain

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

_FREE_SPACE = "free space there, then run the same command again; finished work is kept"
_WRITABLE = "choose a place that this user can read and write"
_CURES = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: _FREE_SPACE,
    errno.EROFS: _WRITABLE,
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.ESTALE: "the network file system lost this file; mount it again, then run the same command again",
    errno.ENOENT: "it was moved or removed; restore it, then run the same command again",
}

logger = logging.getLogger(__name__)


def configure_logging(verbose: bool = False) -> None:
    """Send log messages to stderr, unless logging is already configured, as in tests and notebooks."""
    root = logging.getLogger("bigearthnet_cbir")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not root.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S"))
        root.addHandler(handler)


def run(command: Callable[[], int | None], *, verbose: bool = False) -> int:
    """Run one command and return its exit code.

    Errors that the user can resolve (CbirError, file system errors such as no space or a missing file) give one line on
    stderr and exit code 2. Ctrl-C gives 130. Any other exception is a bug and keeps its traceback.
    """
    configure_logging(verbose)
    try:
        code = command() or 0
        sys.stdout.flush()
    except CbirError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted; finished work is kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) ended; redirect stdout so that the interpreter exits silently.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        logger.debug("file system error", exc_info=True)
        print(f"error: {describe_os_error(error)}", file=sys.stderr)
        return EXIT_USER_ERROR
    except MemoryError:
        logger.debug("out of memory", exc_info=True)
        print("error: not enough memory; close other programs or use smaller settings", file=sys.stderr)
        return EXIT_USER_ERROR
    return code


def describe_os_error(error: OSError) -> str:
    """Return one line for a file system error: file, reason and remedy."""
    where = f"{error.filename}: " if error.filename else ""
    reason = " ".join(str(error.strerror or error).split())
    cure = _CURES.get(error.errno or 0, "check the file and its disk, then run the same command again")
    return f"{where}{reason}; {cure}"


def find_file(given: str, root: Path, option: str = "--filepath") -> Path:
    """Resolve the file or folder of --filepath (or another option).

    A relative path is resolved against the current folder, else against project/ if `root` is a checkout.

    Raises:
        MissingConfigError: it is in neither place; the message has both.
    """
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:
        raise MissingConfigError(f"{option} {plain(given)}: no such home folder; write the path in full") from error
    candidates = [path] if path.is_absolute() else [Path.cwd() / path]
    if not path.is_absolute() and is_checkout(root):
        candidates.append(root / "project" / path)
    for candidate in candidates:
        with suppress(OSError, ValueError):  # invalid name: too long, or with a NUL byte
            if candidate.exists():
                return candidate
    tried = " nor at ".join(brief_path(candidate) for candidate in dict.fromkeys(candidates))
    raise MissingConfigError(f"{option} {plain(given)}: not found at {tried}; give a path that exists")
