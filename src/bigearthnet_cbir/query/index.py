"""The index of a run: embeddings, binary codes, labels and catalogue of its pairs, memory-mapped."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from bigearthnet_cbir.data.catalogue import Catalogue, read_catalogue
from bigearthnet_cbir.data.pair_list import Names
from bigearthnet_cbir.directions import FUSED, S1, S2
from bigearthnet_cbir.errors import DataError, MissingIndexError, QueryError, short
from bigearthnet_cbir.files import release_pages
from bigearthnet_cbir.query.index_files import (
    CATALOGUE,
    LABELS,
    MANIFEST,
    codes_file,
    projection_file,
    thresholds_file,
    vectors_file,
)
from bigearthnet_cbir.query.names import NameIndex
from bigearthnet_cbir.search.shards import PreparedArchive
from bigearthnet_cbir.types import ByteArray, FloatArray, IntArray, PatchPair

INDEX_SCHEMA: Final = 1
"""Version of the format. It increases when older indexes can no longer be read in the same way."""

SIDES: Final = (S1, S2, FUSED)
_CURE: Final = "run project/index.py again"


class Index:
    """The N pairs of an index. Data is read on first access; vectors and codes are memory-mapped.

    Attributes:
        folder: folder of the index.
        manifest: provenance and sizes.
        size: N.
        class_names: of the label columns.
        distance: the distance in the configuration of the run.
        fusion: how the fused vectors were computed: concat, avg, max or sum.
        prepared: (side, distance) -> vectors prepared for search; filled by `prepare`.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.size: int = manifest["size"]
        self.class_names: tuple[str, ...] = tuple(manifest["class_names"])
        self.distance: str = manifest["distance"]
        self.fusion: str = manifest["fusion"]
        self._written = _written(folder)
        self._arrays: dict[str, Any] = {}
        self.prepared: dict[tuple[str, str], PreparedArchive] = {}

    def __len__(self) -> int:
        return self.size

    @cached_property
    def catalogue(self) -> Catalogue:
        """Names, locations, dates, season, country and split of the pairs."""
        self._check_same()
        try:
            found = read_catalogue(self.folder / CATALOGUE)
        except DataError as error:
            raise QueryError(f"{error}; {_CURE}") from error
        if len(found) != self.size:
            raise QueryError(f"{self.folder / CATALOGUE}: {len(found):,} pairs, the index has {self.size:,}; {_CURE}")
        return found

    @property
    def names_s1(self) -> Names:
        """The Sentinel-1 names."""
        return self.catalogue.name_s1

    @property
    def names_s2(self) -> Names:
        """The Sentinel-2 names."""
        return self.catalogue.name_s2

    def pair(self, position: int) -> PatchPair:
        """Return both names of a pair."""
        return PatchPair(self.names_s2[position], self.names_s1[position])

    @cached_property
    def names(self) -> NameIndex:
        """Search by name."""
        return NameIndex(self.names_s1, self.names_s2)

    def position(self, name: str) -> int:
        """Return the position of the pair with a Sentinel-1 or Sentinel-2 name.

        Raises:
            QueryError: there is no such name; the message lists the nearest spellings.
        """
        return self.names.position(name)

    @cached_property
    def labels(self) -> ByteArray:
        """(N, 19) uint8 multi-hot labels; all zero for a pair without labels."""
        found: ByteArray = self._array(LABELS)
        return found

    @cached_property
    def label_bits(self) -> IntArray:
        """(N,) int32 labels as bit masks: bit c is set if the pair has class c."""
        bits = np.zeros(self.size, np.int32)
        for column in range(len(self.class_names)):
            bits |= self.labels[:, column].astype(np.int32) << column
        return bits

    @cached_property
    def has_labels(self) -> bool:
        """Whether any pair has a label."""
        return bool(self.label_bits.any())

    def labels_of(self, position: int) -> tuple[str, ...]:
        """Return the class names of a pair."""
        return tuple(self.class_names[column] for column in np.flatnonzero(self.labels[position]))

    def vectors(self, side: str) -> FloatArray:
        """Return the (N, D) float32 embeddings of a modality (s1, s2 or fused), memory-mapped."""
        found: FloatArray = self._array(vectors_file(check_side(side)))
        return found

    def codes(self, side: str) -> ByteArray:
        """Return the (N, B) uint8 packed codes of a modality, memory-mapped."""
        found: ByteArray = self._array(codes_file(check_side(side)))
        return found

    def thresholds(self, kind: str) -> FloatArray:
        """Return the (bits,) float32 thresholds of the codes of a kind of vectors."""
        found: FloatArray = self._array(thresholds_file(kind))
        return found

    def projection(self, kind: str) -> FloatArray:
        """Return the (D, bits) float32 projection of the codes of a kind of vectors."""
        found: FloatArray = self._array(projection_file(kind))
        return found

    def prepare(self, side: str, distance: str | None = None) -> None:
        """Prepare one modality for many queries, which makes each several times faster. Codes need no preparation.

        The cost is one pass over the vectors and, for cosine, memory of half their size. The memory pages that the pass
        read are released to the system.

        Args:
            side: s1, s2 or fused.
            distance: cosine, euclidean or chi2; None for the distance in the configuration of the run.

        Raises:
            SearchError: the distance is undefined for the vectors.
        """
        wanted = distance or self.distance
        if wanted == "hamming" or (side, wanted) in self.prepared:
            return
        rows = self.vectors(side)
        self.prepared[side, wanted] = PreparedArchive(rows, wanted)
        release_pages(rows)

    def release_pages(self) -> None:
        """Release the memory pages of the vectors to the system. A later query reads them again."""
        for side in SIDES:
            if vectors_file(side) in self._arrays:
                release_pages(self._arrays[vectors_file(side)])

    def _check_same(self) -> None:
        """Raise an error if the index was rebuilt since it was opened."""
        if _written(self.folder) != self._written:
            raise QueryError(f"{self.folder}: was rebuilt after it was opened; open it again")

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = self._mapped(name)
        return self._arrays[name]

    def _mapped(self, name: str) -> Any:
        path = self.folder / name
        self._check_same()
        expected = self.manifest["arrays"].get(name)
        if expected is None:
            known = [side for side in SIDES if vectors_file(side) in self.manifest["arrays"]]
            raise QueryError(f"{self.folder}: has no {name}; use the {', '.join(known)} vectors of this index")
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise QueryError(f"{path}: missing or damaged ({short(str(error))}); {_CURE}") from error
        if [list(found.shape), str(found.dtype)] != expected:
            shape, kind = tuple(expected[0]), expected[1]
            raise QueryError(f"{path}: is {found.shape} {found.dtype}, expected {shape} {kind}; {_CURE}")
        return found


def _written(folder: Path) -> tuple[int, int] | None:
    """Return an identifier of the index currently in a folder, or None without an index; a rebuild changes it."""
    try:
        found = (folder / MANIFEST).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def check_side(side: str) -> str:
    """Return a side; raise QueryError unless it is s1, s2 or fused."""
    if side not in SIDES:
        raise QueryError(f"sensor is {short(side)}; choose one of {', '.join(SIDES)}")
    return side


def open_index(folder: Path | str) -> Index:
    """Open the index of a run folder, or a folder that is an index itself.

    Raises:
        QueryError: there is no index, it is incomplete or damaged, or it has a format of another version.
    """
    place = Path(folder)
    if not (place / MANIFEST).is_file() and (place / "index").is_dir():
        place = place / "index"
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        schema = manifest["schema"]
    except FileNotFoundError as error:
        raise MissingIndexError(f"{place}: there is no index; create it with project/index.py") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise QueryError(f"{place / MANIFEST}: damaged ({short(str(error))}); {_CURE}") from error
    if schema != INDEX_SCHEMA:
        raise QueryError(f"{place}: the index has format {short(schema)}, this version reads {INDEX_SCHEMA}; {_CURE}")
    return Index(place, manifest)
