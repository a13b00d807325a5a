"""Runs a function over numbered cases in child processes with limits, and says how each case ended.

A case that crashes, hangs or takes too much memory ends its child; the next child goes on with the case after it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

from bigearthnet_cbir.errors import CbirError

SECONDS: Final = 10
"""A case that takes more of a processor's time hangs; on a machine with other work the clock says little."""
_SECONDS_IN_ALL: Final = 90
_EXTRA_ADDRESSES: Final = 3 << 30
_EXTRA_MEMORY: Final = 400 << 20
"""Bytes that a case may take above what the process has before it."""

_TIMERS: Final = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}

REFUSED, SAME, OTHER, FAILED = "refused", "same", "other", "failed"


class Ending(NamedTuple):
    """How a case ended: refused, same, other or failed, and what it said."""

    case: int
    end: str
    why: str = ""


class InvalidValueError(Exception):
    """A reader returned what its format could have told to be wrong."""


def run_cases(cases: Sequence[int], one: Callable[[int], str]) -> Iterator[Ending]:
    """Yield how each case ended, in their order.

    Args:
        cases: their numbers.
        one: runs a case and returns SAME or OTHER; whatever it raises is judged here.
    """
    left = list(cases)
    while left:
        done = 0
        for ending in _in_child(left, one):
            yield ending
            done += 1
        left = left[done:]


def _in_child(cases: Sequence[int], one: Callable[[int], str]) -> Iterator[Ending]:
    """Yield the endings of one child's cases; the last may be the child's own."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile("w+b") as noise:
        process = os.fork()
        if process == 0:
            os.close(reading)
            _child(cases, one, writing, noise)
        os.close(writing)
        begun = ended = 0
        with os.fdopen(reading, "r", encoding="utf-8") as lines:
            for line in lines:
                if line == "begin\n":
                    begun += 1
                elif line.endswith("\n"):
                    ended += 1
                    yield Ending(*json.loads(line))
        _, status = os.waitpid(process, 0)
        if begun > ended:
            yield Ending(cases[ended], FAILED, f"{_death(status)}: {_tail(noise)}")
        elif ended < len(cases):
            raise RuntimeError(f"a child ended between two cases ({_death(status)}): {_tail(noise)}")


def _death(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"the process ended with {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    return f"no answer in {SECONDS} s" if number in _TIMERS.values() else signal.Signals(number).name


def _tail(noise: IO[bytes]) -> str:
    noise.seek(0)
    return noise.read()[-3000:].decode(errors="replace")


def _child(cases: Sequence[int], one: Callable[[int], str], writing: int, noise: IO[bytes]) -> None:
    """Run the cases and leave the process without its parent's clean-up."""
    code = 1
    try:
        for descriptor in (1, 2):
            os.dup2(noise.fileno(), descriptor)
        _limit()
        with os.fdopen(writing, "w", encoding="utf-8") as answers:
            for case in cases:
                answers.write("begin\n")
                answers.flush()
                ending = _judged(case, one, noise)
                answers.write(json.dumps(ending) + "\n")
                answers.flush()
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def _limit() -> None:
    """Bound the address space, leave no core files, let the alarm end the process, make every warning visible."""
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 (pytest has put its own there)
    faulthandler.enable(sys.stderr)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _EXTRA_ADDRESSES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in _TIMERS.values():
        signal.signal(number, signal.SIG_DFL)
    warnings.simplefilter("always")
    for category in (DeprecationWarning, PendingDeprecationWarning):  # users do not see them
        warnings.simplefilter("ignore", category)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)  # the parent's pool of threads did not come along


def _judged(case: int, one: Callable[[int], str], noise: IO[bytes]) -> Ending:
    memory, told = _peak_memory(), noise.seek(0, os.SEEK_END)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS_IN_ALL)
    end, why = FAILED, ""
    try:
        end = one(case)
    except CbirError as error:
        why = str(error)
        end = REFUSED if _is_one_line(why) else FAILED
    except InvalidValueError as error:
        why = f"passed as good: {error}"
    except Exception:
        why = traceback.format_exc()
    finally:
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
    sys.stderr.flush()
    noise.seek(told)
    printed = noise.read().decode(errors="replace")
    if printed.strip():
        end, why = FAILED, f"printed: {printed[-2000:]} {why}"
    grown = _peak_memory() - memory
    if grown > _EXTRA_MEMORY:
        end, why = FAILED, f"took {grown >> 20} MB of memory {why}"
    return Ending(case, end, why)


def _is_one_line(message: str) -> bool:
    return bool(message.strip()) and "\n" not in message and len(message) < 1500


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
