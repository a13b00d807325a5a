"""Writing an index. Blocks of embeddings are appended in a temporary folder that replaces the index when complete.

An interruption loses at most the blocks since the last progress record, and never the previous index. Arrays are plain
.npy files written by appending, because a full disk then raises an error, where a memory map would end in a bus error.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.catalogue import Catalogue, write_catalogue
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.files import atomic_write
from bigearthnet_cbir.provenance import stamp
from bigearthnet_cbir.query.index import INDEX_SCHEMA, SIDES
from bigearthnet_cbir.query.index_files import (
    CATALOGUE,
    LABELS,
    MANIFEST,
    codes_file,
    projection_file,
    thresholds_file,
    vectors_file,
)
from bigearthnet_cbir.query.missing_modality import vectors_of
from bigearthnet_cbir.search.binarizers import Binarizer
from bigearthnet_cbir.storage.features import DATASETS

PROGRESS: Final = "progress.json"
RECORD_ROWS: Final = 4096
"""Number of rows between progress records: one or two seconds of work on a GPU."""


class IndexWriter:
    """Writes the arrays of an index and resumes an interrupted run of the same fingerprint.

    Attributes:
        rows: number of rows written so far.
    """

    def __init__(self, final: Path, fingerprint: str, size: int, *, resume: bool = True) -> None:
        """Start a new index, or resume from what an interrupted run left.

        Args:
            final: folder of the index.
            fingerprint: hash of everything that determines the rows.
            size: final number of rows, N.
            resume: keep the rows of an interrupted run with the same fingerprint.
        """
        self._final = final
        self._part = final.with_name(f".{final.name}.part")
        self._fingerprint, self._size = fingerprint, size
        self._widths: dict[str, tuple[int, str]] = {}
        self.rows = 0
        self._recorded = 0
        self._restore(self._progress() if resume else {})

    def _progress(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self._part / PROGRESS).read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}

    def _restore(self, found: Mapping[str, Any]) -> None:
        if found.get("fingerprint") != self._fingerprint or found.get("size") != self._size:
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir(parents=True)
            return
        self._widths = {name: (int(width), str(kind)) for name, (width, kind) in found["widths"].items()}
        self.rows = self._recorded = int(found["rows"])
        for name in self._widths:
            with (self._part / name).open("r+b") as stream:
                stream.truncate(self._start(name, self.rows))

    def append(self, vectors: Mapping[str, npt.NDArray[np.float32]], labels: npt.NDArray[np.uint8]) -> None:
        """Append a block of rows: the labels, and those embeddings of s1, s2 and fused that the encoder provides.

        Raises:
            ResultsError: an embedding is not finite.
            OSError: for example, the disk is full; the rows up to the last progress record are kept.
        """
        for side, values in vectors.items():
            if not np.isfinite(values).all():
                raise ResultsError(
                    f"the {side} embeddings of pairs {self.rows:,} to {self.rows + len(values) - 1:,} are not finite; "
                    "the checkpoint is damaged, or bfloat16 overflowed: use another checkpoint or precision: fp32"
                )
        for name, block in {**{vectors_file(side): vectors[side] for side in vectors}, LABELS: labels}.items():
            self._write(name, np.ascontiguousarray(block))
        self.rows += len(labels)
        if self.rows - self._recorded >= RECORD_ROWS or self.rows == self._size:
            self._record()

    def _write(self, name: str, block: npt.NDArray[Any]) -> None:
        path = self._part / name
        first = name not in self._widths
        if first:
            self._widths[name] = block.shape[1], block.dtype.str
        with path.open("wb" if first else "r+b") as stream:
            if first:
                stream.write(self._header(name))
            stream.seek(self._start(name, self.rows))
            stream.write(block.data)

    def _header(self, name: str) -> bytes:
        width, kind = self._widths[name]
        stream = io.BytesIO()
        header = {"descr": kind, "fortran_order": False, "shape": (self._size, width)}
        np.lib.format.write_array_header_1_0(stream, header)
        return stream.getvalue()

    def _start(self, name: str, row: int) -> int:
        width, kind = self._widths[name]
        return len(self._header(name)) + row * width * np.dtype(kind).itemsize

    def _record(self) -> None:
        """Flush all rows to the disk, then write the progress record."""
        for name in self._widths:
            with (self._part / name).open("rb") as stream:
                os.fsync(stream.fileno())
        record = {
            "fingerprint": self._fingerprint, "size": self._size, "rows": self.rows, "widths": self._widths,
        }  # fmt: skip
        with atomic_write(self._part / PROGRESS) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")
        self._recorded = self.rows

    def vectors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the (N, D) embeddings written so far by dataset name of feature files, memory-mapped."""
        sides = (side for side in SIDES if vectors_file(side) in self._widths)
        return {DATASETS[side]: np.load(self._part / vectors_file(side), mmap_mode="r") for side in sides}

    def finish(
        self,
        catalogue: Catalogue,
        class_names: tuple[str, ...],
        details: Mapping[str, Any],
        binarizers: Mapping[str, Binarizer],
    ) -> None:
        """Write codes, catalogue and manifest, then move the folder to the place of the index.

        Args:
            catalogue: of the same N pairs.
            class_names: of the label columns.
            details: further entries of the manifest; `fusion` is required.
            binarizers: kind of vectors -> its binarizer; at least of each modality that is to have codes.

        Raises:
            ResultsError: rows are missing.
        """
        if self.rows != self._size:
            raise ResultsError(f"the index has {self.rows:,} of {self._size:,} pairs; run project/index.py again")
        self._write_codes(binarizers, details["fusion"])
        labels = np.load(self._part / LABELS, mmap_mode="r")
        write_catalogue(self._part / CATALOGUE, catalogue, labels, class_names)
        manifest = {
            **stamp(), "schema": INDEX_SCHEMA, "fingerprint": self._fingerprint, "size": self._size,
            "class_names": class_names, "arrays": self._arrays(), **details,
            "codes": {
                kind: {"method": one.method, "unit": one.unit, "has_projection": one.projection is not None}
                for kind, one in binarizers.items()
            },
        }  # fmt: skip
        with atomic_write(self._part / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        (self._part / PROGRESS).unlink()
        self._publish()

    def _write_codes(self, binarizers: Mapping[str, Binarizer], fusion: str) -> None:
        for kind, binarizer in binarizers.items():
            self._save(thresholds_file(kind), binarizer.thresholds)
            if binarizer.projection is not None:
                self._save(projection_file(kind), binarizer.projection)
        rows = self.vectors()
        for side in (side for side in SIDES if side in binarizers and DATASETS[side] in rows):
            vectors = vectors_of(side, rows, fusion, binarizers[side].method)
            self._save(codes_file(side), binarizers[side].codes(vectors))

    def _save(self, name: str, values: npt.NDArray[Any]) -> None:
        with atomic_write(self._part / name) as temporary, temporary.open("wb") as stream:
            np.save(stream, values)

    def _arrays(self) -> dict[str, Any]:
        found = {}
        for path in sorted(self._part.glob("*.npy")):
            array = np.load(path, mmap_mode="r")
            found[path.name] = [list(array.shape), str(array.dtype)]
        return found

    def _publish(self) -> None:
        """Replace the old folder by the new one. Between the two renames, only the complete new folder exists."""
        earlier = self._final.with_name(f".{self._final.name}.earlier")
        shutil.rmtree(earlier, ignore_errors=True)
        if self._final.exists():
            self._final.rename(earlier)
        self._part.rename(self._final)
        shutil.rmtree(earlier, ignore_errors=True)


def finished_part(final: Path, fingerprint: str) -> bool:
    """Return whether a complete index of this fingerprint exists; move it into place if that was interrupted."""
    part = final.with_name(f".{final.name}.part")
    for place in (final, part):
        try:
            found = json.loads((place / MANIFEST).read_bytes())
        except (OSError, ValueError):
            continue
        if found.get("fingerprint") == fingerprint and found.get("schema") == INDEX_SCHEMA:
            if place == part:
                shutil.rmtree(final, ignore_errors=True)
                part.rename(final)
            return True
    return False
