"""Export of a run's embeddings and codes as GeoParquet and .npz, for vector databases, maps and scripts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bigearthnet_cbir.data.bands import BAND_STATISTICS, MODEL_S2_BANDS, S1_BANDS
from bigearthnet_cbir.data.embedding_columns import ATTRIBUTES
from bigearthnet_cbir.data.geoparquet import Categories, label_lists, write_points
from bigearthnet_cbir.data.pair_list import PairList
from bigearthnet_cbir.data.positions import acquisition_dates, positions_of
from bigearthnet_cbir.data.splits import SPLITS
from bigearthnet_cbir.files import atomic_write, folder_lock
from bigearthnet_cbir.pipelines.codes import Coder
from bigearthnet_cbir.pipelines.outside_runs import told_fusion
from bigearthnet_cbir.pipelines.stored_codes import stored_codes
from bigearthnet_cbir.provenance import stamp
from bigearthnet_cbir.storage.features import DATASETS, FEATURES, OUTSIDE, open_features, read_names
from bigearthnet_cbir.storage.run_folder import RunFolder
from bigearthnet_cbir.types import ByteArray

logger = logging.getLogger(__name__)

GROUP_ROWS: Final = 1 << 16
"""Rows of a row group, the unit in which readers fetch and filter and vector databases load in parallel."""

CODES: Final = {"feature": "code", "feature_s1": "code_s1", "feature_s2": "code_s2"}
"""Column of vectors -> column of their binary codes."""


def export_embeddings(run: Path | str, output: Path | str | None = None) -> list[Path]:
    """Write the vectors that retrieval computed for a run as query.parquet, archive.parquet, query.npz and archive.npz.

    Columns: name_s1, name_s2, split, date_s1, date_s2, labels; the vectors feature, feature_s1, feature_s2 that the run
    has; and their codes, made by the configured `code` and `code_bits` as in retrieval, with the most significant bit
    first. docs/embeddings.md describes the columns. `evaluate_files` computes the same results from either format.

    Args:
        run: run folder with query.h5 and archive.h5.
        output: folder to write, by default embeddings/ in the run folder.

    Returns:
        The files.

    Raises:
        ResultsError: the run has no readable features.
        CheckpointError: code is learned, and there are no trained hash heads.
        LockedError: another process is writing to the run folder.

    Example (`run` is a run folder that retrieval has been through):
        >>> import bigearthnet_cbir as cbir
        >>> [path.name for path in cbir.export_embeddings(run, folder / "vectors")]
        ['query.parquet', 'query.npz', 'archive.parquet', 'archive.npz']
    """
    folder = RunFolder(Path(run))
    target = Path(output) if output is not None else folder.root / "embeddings"
    with folder_lock(folder.root, "export"):
        with open_features(folder.archive) as file:
            coder = stored_codes(folder, file)
        target.mkdir(parents=True, exist_ok=True)
        written = []
        for path in (folder.query, folder.archive):
            written += _export(path, target, coder, folder.root.resolve().name)
    return written


def _export(path: Path, target: Path, coder: Coder, run: str) -> list[Path]:
    with open_features(path) as file:
        known = [side for side, name in DATASETS.items() if name in file and side in coder.binarizers]
        codes = {CODES[DATASETS[side]]: coder.codes(side, file) for side in known}
        vectors = {name: np.asarray(file[name][:], np.float32) for name in FEATURES if name in file}
        labels = np.asarray(file["label"][:], np.uint8)
        attributes = dict(file.attrs)
    pairs = PairList.of(read_names(path))
    split = str(attributes.get("split", attributes.get(f"{path.stem}_split", "")))
    classes = [str(name) for name in attributes["class_names"]]
    columns: dict[str, Any] = {
        "name_s1": pairs.s1,
        "name_s2": pairs.s2,
        "split": Categories.of([split if split in SPLITS else ""] * len(pairs)),
        "date_s1": acquisition_dates(pairs.s1),
        "date_s2": acquisition_dates(pairs.s2),
    }
    told = {**describe_vectors(attributes, run), "codes": _describe_codes(coder)}
    return [
        _write_parquet(target / f"{path.stem}.parquet", pairs, {**columns, **vectors, **codes}, labels, classes, told),
        _write_npz(target / f"{path.stem}.npz", pairs, {**columns, **vectors, **codes}, labels, classes, told),
    ]


def describe_vectors(attributes: Mapping[str, Any], run: str) -> dict[str, Any]:
    """Return the metadata that apply to all rows of an embedding file.

    Args:
        attributes: of the run's feature file.
        run: its name, used if the model has no other.
    """
    configuration = json.loads(attributes.get("configuration", "{}"))
    outside = attributes.get("vectors") == OUTSIDE
    foreign = json.loads(attributes["encoder"]) if "encoder" in attributes else None
    own: dict[str, Any] = {
        "inputs": {"s1": list(S1_BANDS), "s2": list(MODEL_S2_BANDS)},
        "units": {"s1": "dB", "s2": "reflectance x 10 000"},
        "normalisation": {band: list(BAND_STATISTICS[band]) for band in (*S1_BANDS, *MODEL_S2_BANDS)},
    }
    return {
        "model": str(attributes.get("model", run)),
        "checkpoint_sha256": str(attributes.get("checkpoint", "unknown")),
        "fusion": told_fusion(attributes),
        "distance": configuration.get("distance"),
        "feature": None if outside or foreign else configuration.get("feature"),
        **({"vectors": OUTSIDE} if outside else {"encoder": foreign} if foreign else own),
        **stamp(),
    }


def _describe_codes(coder: Coder) -> str:
    binarizer = next(iter(coder.binarizers.values()))
    made = "trained" if binarizer.method == "learned" else "fitted on the archive"
    rule = "; a bit is 1 above the median of its feature" if binarizer.method == "median" else ""
    lengths = ", ".join(f"{CODES[DATASETS[side]]} {coder.binarizers[side].bits} bits" for side in DATASETS
                        if side in coder.binarizers)  # fmt: skip
    return f"{binarizer.method}, {made}{rule}; {lengths}; eight bits per byte, the most significant first"


def _write_parquet(
    path: Path, pairs: PairList, columns: Mapping[str, Any], labels: ByteArray, classes: list[str], told: dict[str, Any]
) -> Path:
    places = positions_of(pairs)
    written = {**columns, "labels": label_lists(labels, classes)}
    write_points(
        path, written, places.longitude, places.latitude,
        metadata={ATTRIBUTES: json.dumps({**told, "class_names": classes})}, group_rows=GROUP_ROWS,
    )  # fmt: skip
    logger.info("wrote %s, %s rows", path, f"{len(pairs):,}")
    return path


def _write_npz(
    path: Path, pairs: PairList, columns: Mapping[str, Any], labels: ByteArray, classes: list[str], told: dict[str, Any]
) -> Path:
    places = positions_of(pairs)
    arrays: dict[str, npt.NDArray[Any]] = {name: _as_array(values) for name, values in columns.items()}
    arrays |= {"label": labels, "class_names": np.array(classes)}
    arrays |= {"longitude": places.longitude, "latitude": places.latitude}
    texts = {name: np.array(text if isinstance(text, str) else json.dumps(text)) for name, text in told.items()}
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **{**texts, **arrays})
    logger.info("wrote %s, %s rows", path, f"{len(pairs):,}")
    return path


def _as_array(values: Any) -> npt.NDArray[Any]:
    return values if isinstance(values, np.ndarray) else np.array(list(values), dtype=str)
