"""Training curves for TensorBoard."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from bigearthnet_cbir.errors import TrainingError


class TensorBoardCurves:
    """Writes the values of each epoch; a resumed run discards values written after its checkpoint.

    Raises:
        TrainingError: the file system refuses the write (no space, read-only).
    """

    def __init__(self, folder: Path, completed_epochs: int) -> None:
        self._folder = folder
        with self._one_line():
            self._writer = SummaryWriter(str(folder), purge_step=completed_epochs + 1)

    def __enter__(self) -> TensorBoardCurves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._one_line():
                self._writer.close()
        except TrainingError:
            if error is None:  # an error of the training takes precedence
                raise

    def __call__(self, epoch: int, figures: dict[str, float]) -> None:
        """Write all values of an epoch (1-based)."""
        with self._one_line():
            for name, value in figures.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Convert file system errors to one line; TensorBoard's thread would also print a traceback."""
        usual, threading.excepthook = threading.excepthook, _quiet
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{self._folder}: the training curves cannot be written ({error.strerror or error}); the last "
                "checkpoint is kept: free disk space, then run train.py --resume"
            ) from error
        finally:
            threading.excepthook = usual


def _quiet(told: threading.ExceptHookArgs) -> None:
    """Ignore write errors of the thread: the next call of the writer raises the same error."""
    if not issubclass(told.exc_type, OSError):
        threading.__excepthook__(told)
