"""Rows of an unfinished search, in plain files that stay readable after a kill at any moment."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.types import Neighbours

logger = logging.getLogger(__name__)

_FIELDS: Final = (("indices", np.dtype("<i4")), ("distances", np.dtype("<f4")))


class PartialSearch:
    """Folder .<results>.rows: per direction one file of indices and one of distances, row by row.

    A row is finished if both files contain it completely, so the file sizes give the progress of the search.
    """

    def __init__(self, results: Path) -> None:
        """Define the folder beside the results file of the search."""
        self.folder = results.with_name(f".{results.name}.rows")
        self._header = self.folder / "search.json"
        self._earlier = [results.with_name(f".{results.name}.{end}") for end in ("partial", "progress.json")]
        self._shape = (0, 0)

    def open(self, fingerprint: str, queries: int, k: int, archive: int) -> bool:
        """Create the folder, or keep the rows of an interrupted search with the same fingerprint.

        Args:
            fingerprint: fingerprint of all inputs of the search.
            queries: number of rows of a finished direction.
            k: neighbours per row.
            archive: number of archive items, larger than all indices.

        Returns:
            Whether finished rows were kept.
        """
        self._shape = (queries, k)
        header = {"fingerprint": fingerprint, "queries": queries, "k": k}
        for file in self._earlier:
            if file.exists():
                logger.warning("%s: an unfinished search of an earlier version cannot be continued; removed", file)
                file.unlink()
        if self._read_header() == header:
            return self._keep(archive)
        self.remove()
        self.folder.mkdir(parents=True)
        with atomic_write(self._header) as temporary:
            temporary.write_text(json.dumps(header))
        return False

    def _read_header(self) -> Any:
        try:
            return json.loads(self._header.read_text())
        except (OSError, ValueError):
            return None

    def _keep(self, archive: int) -> bool:
        """Return whether there are finished rows; remove directions with invalid rows."""
        kept = False
        for file in sorted(self.folder.glob("*.indices")):
            direction = file.stem
            rows = self.finished(direction)
            if rows and not _plausible(self._mapped(direction, rows), archive):
                logger.warning("%s: the kept rows of %s are damaged; this direction is searched again", file, direction)
                file.unlink()
            kept |= self.finished(direction) > 0
        return kept

    def finished(self, direction: str) -> int:
        """Return the number of finished queries of a direction."""
        queries, k = self._shape
        sizes = [path.stat().st_size if path.exists() else 0 for path, _ in self._files(direction)]
        return min(queries, min(sizes) // (4 * k))

    def store(self, direction: str, start: int, found: Neighbours) -> None:
        """Append the neighbours of consecutive queries.

        Raises:
            OSError: for example, no space is left; earlier rows are kept.
        """
        offset = start * self._shape[1] * 4
        for (path, dtype), values in zip(self._files(direction), (found.indices, found.distances), strict=True):
            with path.open("r+b" if path.exists() else "xb", buffering=0) as stream:
                stream.seek(offset)
                rest = np.ascontiguousarray(values, dtype).data.cast("B")
                while rest:
                    rest = rest[stream.write(rest) :]

    def neighbours(self, direction: str) -> Neighbours:
        """Return all rows of a finished direction, (Q, k) each, read-only views of the files."""
        return self._mapped(direction, self._shape[0])

    def remove(self) -> None:
        """Remove the folder with all its rows."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _mapped(self, direction: str, rows: int) -> Neighbours:
        arrays: list[npt.NDArray[Any]] = [
            np.memmap(path, dtype, "r", shape=(rows, self._shape[1])) for path, dtype in self._files(direction)
        ]
        return Neighbours(*arrays)

    def _files(self, direction: str) -> list[tuple[Path, np.dtype[Any]]]:
        return [(self.folder / f"{direction}.{name}", dtype) for name, dtype in _FIELDS]


def _plausible(found: Neighbours, archive: int) -> bool:
    """Return whether rows can be neighbours: indices of the archive, no two ends equal, distances in order.

    A power cut can leave blocks of zeros where rows were; an HDF5 file would not have told either.
    """
    first, last = found.indices[:, 0], found.indices[:, -1]
    inside = int(found.indices.min()) >= 0 and int(found.indices.max()) < archive
    apart = found.indices.shape[1] == 1 or bool((first != last).all())
    return inside and apart and bool((found.distances[:, 0] <= found.distances[:, -1]).all())
