"""A fair lock: the client that has waited longest acquires it next."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A fair lock for `with` blocks. Python's own lock may go to a thread that arrived last."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._line: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        own = threading.Event()
        with self._guard:
            self._line.append(own)
            if self._line[0] is own:
                own.set()
        own.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._line.popleft()
            if self._line:
                self._line[0].set()
