"""Binary codes of a run's vectors: the binarizer of each kind of vectors, and the codes that a direction compares."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.directions import FUSED, S1, S2
from bigearthnet_cbir.errors import CheckpointError
from bigearthnet_cbir.pipelines.code_settings import DEFAULT_BITS, code_bits
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.provenance import file_digest, fingerprint
from bigearthnet_cbir.query.missing_modality import STAND_INS, kinds_of, vectors_of
from bigearthnet_cbir.search.binarizers import Binarizer, constant_bits, fit_binarizers
from bigearthnet_cbir.storage.code_arrays import read_code_arrays, write_code_arrays
from bigearthnet_cbir.storage.feature_stamps import stamped_digest
from bigearthnet_cbir.storage.run_folder import BASELINE_PREFIX, RunFolder
from bigearthnet_cbir.types import ByteArray

if TYPE_CHECKING:
    import h5py

    from bigearthnet_cbir.models.hash_heads import HashHeads

logger = logging.getLogger(__name__)


@dataclass
class Coder:
    """Computes the codes of the vectors in feature files.

    Attributes:
        config: determines how a single sensor replaces fused vectors.
        binarizers: kind of vectors -> its binarizer.
    """

    config: Config
    binarizers: dict[str, Binarizer]
    _made: dict[tuple[str, str], ByteArray] = field(default_factory=dict)

    def codes(self, kind: str, file: h5py.File) -> ByteArray:
        """Return the (N, B) packed codes of one kind of vectors of a file; computed once and cached."""
        key = kind, file.filename
        if key not in self._made:
            binarizer = self.binarizers[kind]
            self._made[key] = binarizer.codes(vectors_of(kind, file, self.config.fusion, binarizer.method))
        return self._made[key]

    def sides(self, direction: str, query: h5py.File, archive: h5py.File) -> tuple[ByteArray, ByteArray]:
        """Return the codes of the queries and of the archive that a direction compares."""
        asked, searched = kinds_of(direction)
        return self.codes(asked, query), self.codes(searched, archive)

    def describe(self, archive: h5py.File) -> dict[str, Any]:
        """Return what results record: method, bits, and number of bits that are constant over the archive; log it."""
        method = self.config.code
        # In one order, whether the binarizers were fitted now or read from codes.h5.
        counts = {
            kind: constant_bits(self.codes(kind, archive), self.binarizers[kind].bits)
            for kind in (S1, S2, FUSED)
            if kind in self.binarizers
        }
        told = ", ".join(f"{kind} {count} of {self.binarizers[kind].bits}" for kind, count in counts.items())
        made = "by trained heads" if method == "learned" else "fitted on the archive"
        logger.info("codes: %s, %s; constant bits over the archive: %s", method, made, told)
        if method == "median":
            zeros = {kind: int((self.binarizers[kind].thresholds == 0).sum()) for kind in counts}
            if any(zeros.values()):
                logger.info(
                    "features with a median of 0 (outputs of a ReLU; their bit is 1 if the feature is above 0): %s",
                    ", ".join(f"{kind} {count}" for kind, count in zeros.items()),
                )  # fmt: skip
        bits = self.binarizers[next(iter(counts))].bits
        return {"code": method, "code_bits": bits, "constant_bits": [f"{kind} {n}" for kind, n in counts.items()]}


def code_identity(config: Config, folder: RunFolder) -> dict[str, Any]:
    """Return what determines the codes besides the archive's vectors, as plain values; empty if no codes are computed.

    Raises:
        CheckpointError: there are no learned hash heads.
    """
    return codes_made_from(config, folder) if config.distance == "hamming" else {}


def codes_made_from(config: Config, folder: RunFolder) -> dict[str, Any]:
    """Return the same as `code_identity` for a run with any distance, whose index has codes too."""
    identity = {"code": config.code, "code_bits": code_bits(config), "seed": config.seed}
    if config.code == "learned":
        return {**identity, "heads": file_digest(_heads_path(config, folder))}
    return identity


def prepare_codes(config: Config, folder: RunFolder, source: FeatureExtractor, archive: h5py.File) -> Coder:
    """Return the coder of a run: read from codes.h5 if it matches, or else fitted on the archive and written there.

    A resumed search uses exactly the same codes, even if a fit on another machine would differ in the last digits.

    Args:
        config: gives method, length and seed.
        folder: contains archive.h5, codes.h5 and the learned hash heads.
        source: gives the directions, and the encoder that learned heads must belong to.
        archive: archive.h5, opened.

    Raises:
        SearchError: the method is undefined for the vectors.
        CheckpointError: there are no learned heads for this encoder.
    """
    kept = _kept_binarizers(config, folder, source)
    if kept is not None:
        return Coder(config, kept)
    binarizers = make_binarizers(config, folder, source, archive)
    arrays = {kind: binarizer.arrays() for kind, binarizer in binarizers.items()}
    write_code_arrays(folder.codes, _fingerprint(config, folder, source), arrays)
    return Coder(config, binarizers)


def run_codes(config: Config, folder: RunFolder, source: FeatureExtractor, archive: h5py.File) -> Coder:
    """Return the same coder as `prepare_codes`, also for a run with another distance, without writing codes.h5."""
    kept = _kept_binarizers(config, folder, source) if config.distance == "hamming" else None
    return Coder(config, make_binarizers(config, folder, source, archive) if kept is None else kept)


def make_binarizers(
    config: Config, folder: RunFolder, source: FeatureExtractor, archive: Mapping[str, Any]
) -> dict[str, Binarizer]:
    """Return the binarizers of the configured method, fitted on an archive or, if learned, read from the heads.

    Args:
        config: gives method, length and seed.
        folder: contains the learned hash heads.
        source: gives the directions, and the encoder that learned heads must belong to.
        archive: archive.h5, opened; or arrays by the names of its datasets.

    Raises:
        SearchError: the method is undefined for the vectors.
        CheckpointError: there are no learned heads for this encoder.
    """
    if config.code == "learned":
        return load_learned(_heads_path(config, folder), source)
    return fit_codes(config, source, archive)


def _fingerprint(config: Config, folder: RunFolder, source: FeatureExtractor) -> str:
    return fingerprint({
        **code_identity(config, folder), "archive": stamped_digest(folder.archive), "fusion": config.fusion,
        "directions": source.directions,
    })  # fmt: skip


def _kept_binarizers(config: Config, folder: RunFolder, source: FeatureExtractor) -> dict[str, Binarizer] | None:
    kept = read_code_arrays(folder.codes, _fingerprint(config, folder, source))
    return None if kept is None else {kind: Binarizer.from_arrays(arrays) for kind, arrays in kept.items()}


def fit_codes(config: Config, source: FeatureExtractor, archive: Mapping[str, Any]) -> dict[str, Binarizer]:
    """Fit each vector space: one for both sensors if they are compared with each other, and one for the fused vectors.

    Args:
        config: gives a method without training, length and seed.
        source: gives the directions.
        archive: archive.h5, opened; or arrays by the names of its datasets.
    """
    needed = {kind for direction in source.directions for kind in kinds_of(direction)}
    sensors = [kind for kind in (S1, S2) if kind in needed]
    together = [sensors] if {"s1_s2", "s2_s1"} & set(source.directions) else [[kind] for kind in sensors]
    spaces: list[tuple[list[str], list[str]]] = [(kinds, []) for kinds in together]
    if FUSED in needed:
        spaces.append(([FUSED], [kind for kind in STAND_INS.values() if kind in needed]))
    found: dict[str, Binarizer] = {}
    for fitted, others in spaces:
        vectors = {kind: vectors_of(kind, archive, config.fusion) for kind in (*fitted, *others)}
        found |= fit_binarizers(
            config.code, {kind: vectors[kind] for kind in fitted}, code_bits(config), config.seed,
            {kind: vectors[kind] for kind in others},
        )  # fmt: skip
    return found


def load_learned(path: Path, source: FeatureExtractor) -> dict[str, Binarizer]:
    """Return the binarizers of trained hash heads; raises CheckpointError as hashing.load_heads does."""
    from bigearthnet_cbir.pipelines.hashing import load_heads

    return learned_binarizers(load_heads(path, source))


def learned_binarizers(heads: HashHeads) -> dict[str, Binarizer]:
    """Return the binarizers of hash heads for every kind of vectors. All their codes are comparable."""
    one, two = heads.as_bits()
    found = {
        kind: Binarizer("learned", head.thresholds, head.projection, unit=True)
        for kind, head in ((S1, one), (STAND_INS[S1], one), (S2, two), (STAND_INS[S2], two))
    }
    joined = np.concatenate([one.projection, two.projection])
    return {**found, FUSED: Binarizer("learned", one.thresholds + two.thresholds, joined)}


def _heads_path(config: Config, folder: RunFolder) -> Path:
    path = folder.hash_heads(config.hash_loss, code_bits(config) or DEFAULT_BITS)
    if folder.root.name.startswith(BASELINE_PREFIX):
        raise CheckpointError(
            f"{folder.root}: code is learned, but a baseline has no hash heads; use code: itq or distance: cosine for "
            "run and baseline"
        )
    if not path.exists():
        raise CheckpointError(
            f"{path}: code: learned needs these hash heads, which are missing; train them with project/train.py --hash "
            f"{folder.root}"
        )
    return path
