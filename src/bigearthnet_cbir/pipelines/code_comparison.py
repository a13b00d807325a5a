"""Comparison of codes of every method and length with the original vectors: quality against bytes per patch."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.evaluation.metrics import retrieval_curves
from bigearthnet_cbir.evaluation.summary import headline
from bigearthnet_cbir.pipelines.code_settings import ONE_BIT_A_FEATURE
from bigearthnet_cbir.pipelines.codes import fit_codes, load_learned
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.query.missing_modality import kinds_of, vectors_of
from bigearthnet_cbir.results import CodeQuality
from bigearthnet_cbir.search.binarizers import Binarizer
from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.rows import Sliceable, batched_ranges
from bigearthnet_cbir.search.two_stage import rerank_by_cosine
from bigearthnet_cbir.storage.features import FEATURES
from bigearthnet_cbir.storage.hdf5_reading import read
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import IntArray

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)

LENGTHS: Final = (16, 32, 64, 128, 256, 512)
"""Lengths in bits of the codes that are compared."""

COMPARED_QUERIES: Final = 1000
COMPARED_PATCHES: Final = 20_000
"""Maximum number of queries and of archive patches, evenly spaced. Methods are fitted and searched on these."""

RANKS: Final = 10
COSINE_FLOATS: Final = "cosine, floats"
_READ_ROWS: Final = 1 << 14
_HEADS: Final = re.compile(r"hash_heads_([a-z]+)_([0-9]+)\.pth\.tar")


class CodeComparison:
    """Evaluates searches with the vectors of one run: by cosine, by codes, and by codes with cosine re-ranking.

    Args:
        config: of the run.
        source: gives the directions, and the encoder that learned heads must belong to.
        query: query.h5, opened; at most COMPARED_QUERIES of its rows are used.
        archive: archive.h5, opened; at most COMPARED_PATCHES of its rows are used.
        exclude: (Q, 1) positions of the queries themselves in the archive, -1 for none; or None.
    """

    def __init__(
        self, config: Config, source: FeatureExtractor, query: h5py.File, archive: h5py.File, exclude: IntArray | None
    ) -> None:
        self.config, self.source = config, source
        asked, searched = _step(query, COMPARED_QUERIES), _step(archive, COMPARED_PATCHES)
        self.archive = _sampled(archive, searched)
        queries = _sampled(query, asked)
        self._labels = queries["label"], self.archive["label"]
        self._queries = queries
        self._exclude = None if exclude is None else np.where(exclude % searched, -1, exclude // searched)[::asked]
        self._most = len(self.archive["label"]) - (0 if exclude is None else 1)
        self._k = min(RANKS, self._most)

    def floats(self) -> Iterator[CodeQuality]:
        """Yield the quality of the exact cosine search in each direction."""
        for direction in self.source.directions:
            queries, vectors = self._vectors(direction)
            found = search(queries, vectors, self._k, "cosine", self._exclude)
            yield self._quality(direction, COSINE_FLOATS, 32 * vectors.shape[1], 4 * vectors.shape[1], found.indices)

    def codes(self, name: str, binarizers: Mapping[str, Binarizer], candidates: int = 0) -> Iterator[CodeQuality]:
        """Yield the quality of a search by codes in each direction.

        Args:
            name: of the method.
            binarizers: of every kind of vectors.
            candidates: number of results by code that are re-ranked by the cosine of the vectors, which are then read
                too; 0: no re-ranking.
        """
        method = next(iter(binarizers.values())).method
        searched = {kinds_of(direction)[1] for direction in self.source.directions}
        archive = {
            kind: binarizers[kind].codes(vectors_of(kind, self.archive, self.config.fusion, method))
            for kind in searched
        }
        for direction in self.source.directions:
            one, other = kinds_of(direction)
            asked = vectors_of(one, self._queries, self.config.fusion, method)
            queries, codes = binarizers[one].codes(asked), archive[other]
            k = max(self._k, min(candidates, self._most))
            found = search(queries, codes, k, "hamming", self._exclude).indices
            if candidates:
                found = rerank_by_cosine(*self._pair(direction, found), self._k).indices
            yield self._quality(direction, name, binarizers[other].bits, codes.shape[1], found)

    def _pair(self, direction: str, found: IntArray) -> tuple[npt.NDArray[Any], IntArray, Sliceable]:
        queries, vectors = self._vectors(direction)
        return queries[0 : len(found)], found, vectors

    def _vectors(self, direction: str) -> tuple[Sliceable, Sliceable]:
        asked, searched = kinds_of(direction)
        fusion = self.config.fusion
        return vectors_of(asked, self._queries, fusion), vectors_of(searched, self.archive, fusion)

    def _quality(self, direction: str, method: str, bits: int, size: int, indices: IntArray) -> CodeQuality:
        curves = retrieval_curves(*self._labels, indices[:, : self._k], self._exclude)
        figures = headline(curves)
        return CodeQuality(direction, method, bits, size, figures["F1@10"], figures["mAP@10"])


def _step(file: h5py.File, most: int) -> int:
    return max(1, -(-len(file["label"]) // most))


def _sampled(file: h5py.File, step: int) -> dict[str, npt.NDArray[Any]]:
    """Return evenly spaced rows of the features and labels of a file, which is read in blocks."""
    return {
        name: np.concatenate([read(file[name], np.s_[a:b])[-a % step :: step] for a, b in _blocks(len(file[name]))])
        for name in (*FEATURES, "label")
        if name in file
    }


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    return batched_ranges(rows, _READ_ROWS)


def compare_codes(comparison: CodeComparison, folder: RunFolder) -> list[CodeQuality]:
    """Return the quality of the vectors, of codes without training, and of all trained heads in a run folder.

    Args:
        comparison: of the run's vectors.
        folder: contains the heads.
    """
    began = time.perf_counter()
    found = list(comparison.floats())
    fitted: list[tuple[str, int | None]] = [(method, None) for method in ONE_BIT_A_FEATURE]
    fitted += [(method, bits) for method in ("rotation", "itq") for bits in LENGTHS]
    for method, bits in fitted:
        config = replace(comparison.config, code=method, code_bits=bits)
        found += comparison.codes(method, fit_codes(config, comparison.source, comparison.archive))
    heads = filter(None, (_HEADS.fullmatch(path.name) for path in folder.root.glob("hash_heads_*")))
    for match in sorted(heads, key=lambda name: (name[1], int(name[2]))):
        try:
            learned = load_learned(folder.root / match[0], comparison.source)
        except CheckpointError as error:
            logger.warning("excluded from the comparison of codes: %s", error)
        else:
            found += comparison.codes(f"learned, {match[1]}", learned)
    logger.info("compared codes of all methods and lengths, %.1f s", time.perf_counter() - began)
    return found
