"""Training curves for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter


class TensorBoardCurves:
    """Writes the figures of each epoch; a resumed run drops what an interrupted one wrote after its checkpoint."""

    def __init__(self, folder: Path, completed_epochs: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=completed_epochs + 1)

    def __enter__(self) -> TensorBoardCurves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def __call__(self, epoch: int, figures: dict[str, float]) -> None:
        """Write all figures of an epoch (1-based)."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()
