"""A lock that goes to whoever has waited longest, so that no client waits for others that came later."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """To be held in a `with` block; Python's own lock may go to a thread that has just come."""

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
