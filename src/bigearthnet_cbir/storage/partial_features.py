"""Files of an unfinished extraction, one per block of rows, which stay readable after a kill at any moment."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from bigearthnet_cbir.files import atomic_write

logger = logging.getLogger(__name__)


class PartialFeatures:
    """Folder .<features>.blocks beside a feature file: a header, and the file of each finished block.

    Blocks have fixed boundaries and are written atomically, in any order, so a file that is there is a finished block.
    """

    def __init__(self, features: Path) -> None:
        """Define the folder; features is the feature file that the blocks will make."""
        self.folder = features.with_name(f".{features.name}.blocks")
        self._header = self.folder / "blocks.json"

    def open(self, fingerprint: str, rows: int, block: int) -> int:
        """Create the folder, or keep what an interrupted extraction of the same left.

        Args:
            fingerprint: fingerprint of all inputs.
            rows: rows of the feature file.
            block: rows per block; the last one may have fewer.

        Returns:
            The number of finished blocks.
        """
        header = {"fingerprint": fingerprint, "rows": rows, "block": block}
        if self._read_header() == header:
            return sum(self.file(number).exists() for number in range(-(-rows // block)))
        if self.folder.exists():
            logger.info("%s: blocks of an interrupted extraction from other inputs; removed", self.folder)
        self.remove()
        self.folder.mkdir(parents=True)
        with atomic_write(self._header) as temporary:
            temporary.write_text(json.dumps(header))
        return 0

    def _read_header(self) -> Any:
        try:
            return json.loads(self._header.read_text())
        except (OSError, ValueError):
            return None

    def file(self, number: int) -> Path:
        """Return the path of the file of a block."""
        return self.folder / f"{number}.npz"

    def remove(self) -> None:
        """Remove the folder with all its blocks."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
