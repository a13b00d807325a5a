"""Run folders with external vectors, computed outside this project."""

from __future__ import annotations

from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.storage.feature_stamps import read_attribute
from bigearthnet_cbir.storage.features import OUTSIDE
from bigearthnet_cbir.storage.run_folder import RunFolder


def is_outside(folder: RunFolder) -> bool:
    """Return whether the vectors of a run folder are external."""
    return read_attribute(folder.query, "vectors") == OUTSIDE


def refuse_outside(folder: RunFolder) -> None:
    """Raise ResultsError if the vectors of a run folder are external: no network here can compute them."""
    if is_outside(folder) and not folder.best.exists():
        files = read_attribute(folder.query, "query_files")
        raise ResultsError(
            f"{folder.root}: its vectors were {OUTSIDE}, no network here can make more of them; those of the "
            f"queries are from {files}: measure files by project/evaluate.py"
        )
