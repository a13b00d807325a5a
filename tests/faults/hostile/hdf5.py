"""Feature files and results: as they are written now, by version 0.1 and by the original scripts."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from tests.faults.hostile.hdf5_edits import edit_hdf5
from tests.faults.hostile.subject import Subject, require

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.errors import ResultsError
from bigearthnet_cbir.pipelines.baselines import find_baselines
from bigearthnet_cbir.results import CurveVariant, DirectionResult, GroupMetrics, RunResults
from bigearthnet_cbir.storage import feature_stamps, features, results
from bigearthnet_cbir.types import Neighbours, PatchPair

RUNS_OF_VERSION_0_1 = Path(__file__).resolve().parents[2] / "fixtures" / "runs_of_version_0_1.tar.xz"
_QUERIES, _ARCHIVE, _DEPTH = 5, 12, 7
_FINGERPRINT = "f" * 64
_CURVES = (
    "precision", "recall", "f1score", "average_precision", "average_cumulative_gains", "weighted_avg_precision",
    "normalized_discounted_cumulative_gains",
)  # fmt: skip
_COUNTED = ("average_cumulative_gains", "weighted_avg_precision")
"""Curves that may be above 1."""


def _pairs(number: int) -> list[PatchPair]:
    return [PatchPair(f"S2A_MSIL2A_20170613T101031_{row}_48", f"S1A_IW_GRDH_{row}_48") for row in range(number)]


def _vectors(rows: int) -> dict[str, Any]:
    generator = np.random.default_rng(rows)
    vectors = generator.normal(size=(rows, 4)).astype(np.float32)
    labels = (generator.random((rows, len(CLASSES))) < 0.2).astype(np.uint8)
    labels[:, 3] = 1
    return {"feature": np.hstack([vectors, -vectors]), "feature_s1": vectors, "feature_s2": -vectors, "label": labels}


def _build_features(folder: Path) -> None:
    for name, rows in (("query.h5", _QUERIES), ("archive.h5", _ARCHIVE)):
        told = {"fingerprint": _FINGERPRINT, "split": "val", "checkpoint": "c" * 64, "configuration": "{}"}
        with features.write_features(folder / name, _pairs(rows), CLASSES, told) as writer:
            columns = _vectors(rows)
            for part in (slice(0, 3), slice(3, rows)):
                writer.append({key: values[part] for key, values in columns.items()})


def _extract(folder: Path, *names: str) -> None:
    """Take files of a run that version 0.1 wrote."""
    with tarfile.open(RUNS_OF_VERSION_0_1) as archive:
        archive.extractall(folder / "all", filter="data")
    for name in names:
        shutil.move(folder / "all" / "runs" / "first" / name, folder / name)
    shutil.rmtree(folder / "all")


class _Lines(logging.Handler):
    """Keeps what is logged: a warning about a file is an answer here, not noise."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        require("\n" not in self.lines[-1] and len(self.lines[-1]) < 1500, f"a warning of many lines: {self.lines[-1]}")


@contextmanager
def _logged() -> Iterator[None]:
    logger = logging.getLogger("bigearthnet_cbir")
    handler, before = _Lines(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _read_features(folder: Path) -> list[Any]:
    """Read all that retrieval, comparisons and reports read of features."""
    with _logged():
        return _feature_files(folder)


def _feature_files(folder: Path) -> list[Any]:
    found = []
    for path in sorted(folder.glob("*.h5")):
        names, labels = features.read_names(path), features.read_labels(path)
        fingerprint = feature_stamps.read_fingerprint(path)
        content = features.reusable_digest(path, str(fingerprint))
        told = {"query_content": feature_stamps.stamped_digest(path), "query_fingerprint": fingerprint}
        feature_stamps.check_measured_with(path, "query", told, path)
        vectors = {}
        if content is not None:  # nothing else is searched
            with features.open_features(path) as file:
                vectors = {name: file[name][:] for name in features.FEATURES}
        with h5py.File(path, "r") as file:
            digests = {name: str(file[name].attrs.get("sha256")) for name in ("label", "patch_name")}
        found.append([names, labels, fingerprint, content, vectors, digests])
    return found


def _check_features(found: list[Any]) -> None:
    for names, labels, _, content, vectors, digests in found:
        require(names and all(name and isinstance(name, str) for pair in names for name in pair), "empty names")
        require(labels.ndim == 2 and len(labels) == len(names), f"labels {labels.shape} of {len(names)} pairs")
        require(labels.dtype == np.uint8 and np.isin(labels, (0, 1)).all(), "labels that are not 0 and 1")
        text = "\n".join(f"{pair.s1}\t{pair.s2}" for pair in names).encode()
        for name, stored, written in (("label", labels.tobytes(), digests["label"]), ("patch_name", text, None)):
            own = hashlib.sha256(f"{name}\n".encode() + stored).hexdigest()
            require((written or digests[name]) in ("None", own), f"{name} is not what its digest says")
        require(content is None or set(vectors) == set(features.FEATURES), f"vectors {sorted(vectors)}")
        for name, values in vectors.items():
            require(values.dtype == np.float32 and values.ndim == 2, f"{name} is {values.dtype} {values.shape}")
            require(len(values) == len(names) and np.isfinite(values).all(), f"{name} is {values.shape} or not finite")


def _direction(seed: int) -> DirectionResult:
    """Return drawn values of the shapes and ranges that an evaluation has; computing them would compile kernels."""
    generator = np.random.default_rng(seed)
    classes = np.sort(generator.random((len(CLASSES), 3)))[:, [1, 0, 2]]
    groups = GroupMetrics(np.arange(len(CLASSES)), np.arange(len(CLASSES)), {"F1@10": classes, "mAP@10": classes})
    counts = GroupMetrics(np.array([1, 4]), np.array([3, 2]), {"F1@10": classes[:2]})
    indices = np.argsort(generator.random((_QUERIES, _ARCHIVE)))[:, :_DEPTH].astype(np.int32)
    distances = np.sort(generator.random((_QUERIES, _DEPTH))).astype(np.float32)
    return DirectionResult(
        *({name: generator.random(_DEPTH) for name in _CURVES} for _ in range(3)),
        intervals={"P@10": (0.25, 0.5), "mAP@10": (0.5, 0.75)},
        per_class=groups,
        per_label_count=counts,
        confusion=generator.random((len(CLASSES),) * 2),
        tie_aware=CurveVariant({"average_precision": generator.random(_DEPTH)}, {"mean_group": 1.5, "cut_queries": 0}),
        exclude_within=CurveVariant({"precision": generator.random(_DEPTH - 2)}, {"radius": 3, "dropped_mean": 1.5}),
        neighbours=Neighbours(indices, distances),
        depth=_DEPTH,
    )


def _build_results(folder: Path) -> None:
    directions = {"fused": _direction(1), "s1_s2": _direction(2)}
    told = {
        "queries": _QUERIES, "archive_size": _ARCHIVE, "k": _DEPTH, "distance": "cosine", "class_names": list(CLASSES),
        "configuration": '{"backbone": "resnet18", "seed": 1}', "fingerprint": _FINGERPRINT, "query_split": "val",
        "query_content": "q" * 64,
    }  # fmt: skip
    for place in (folder, folder / "baseline_untrained"):
        place.mkdir(exist_ok=True)
        results.write_results(place / "retrieval.h5", told, directions)


def _build_original_results(folder: Path) -> None:
    """Write what the original scripts write: the neighbours of fused vectors and seven curves, all at the root."""
    generator = np.random.default_rng(1)
    with h5py.File(folder / "retrieval.h5", "w") as file:
        file["retrieval_result"] = np.argsort(generator.random((_QUERIES, _ARCHIVE)))[:, :_DEPTH]
        file["distance"] = np.sort(generator.random((_QUERIES, _DEPTH)))
        for name in _CURVES:
            file[name] = generator.random(_DEPTH)


def _read_results(folder: Path) -> dict[str, Any]:
    """Read all that printing, comparisons, reports and the reuse of results read."""
    with _logged():
        return _results_files(folder)


def _results_files(folder: Path) -> dict[str, Any]:
    path = folder / "retrieval.h5"
    found: dict[str, Any] = {"results": results.read_results(path)}
    data: RunResults = found["results"]
    found["classes"] = data.class_names(CLASSES)
    found["neighbours"] = {}
    for name, direction in data.directions.items():
        if direction.depth:
            found["neighbours"][name] = results.read_neighbours(path, name, direction.depth)
    found["baselines"] = {name: results.read_results(other) for name, other in find_baselines(path).items()}
    if not data.original_only and not results.is_current(path, str(data.attributes.get("fingerprint"))):
        raise ResultsError(f"{path}: its results are computed anew")
    return found


def _check_results(found: dict[str, Any]) -> None:
    for data in (found["results"], *found["baselines"].values()):
        require(data.directions, "no direction")
        for direction in data.directions.values():
            _check_direction(direction, data.attributes)
    require(len(set(found["classes"])) >= 1 and all(isinstance(name, str) for name in found["classes"]), "classes")
    size = found["results"].attributes.get("archive_size", 2**31)
    require(isinstance(size, int) and size > 0, f"archive_size is {size!r}")
    for rows in found["neighbours"].values():
        _check_neighbours(rows, size)


def _check_direction(direction: DirectionResult, attributes: Any) -> None:
    sets = [direction.curves, direction.chance, direction.original]
    lengths = {len(curve) for curves in sets for curve in curves.values()}
    require(len(lengths) <= 1 and lengths <= {direction.depth or next(iter(lengths), 0)}, f"curves of {lengths}")
    require(not direction.depth or attributes.get("k", direction.depth) == direction.depth, "another k")
    variants = [found.curves for found in (direction.tie_aware, direction.exclude_within) if found is not None]
    for curves in (*sets, *variants):
        for name, curve in curves.items():
            most = np.inf if name in _COUNTED else 1.0001
            require(curve.dtype == np.float64 and curve.ndim == 1 and len(curve), f"{name} is {curve.shape}")
            require(not ((curve < -0.0001) | (curve > most) | np.isinf(curve)).any(), f"{name} is {curve}")
    require(all(low <= high or np.isnan([low, high]).any() for low, high in direction.intervals.values()), "interval")
    for groups in (direction.per_class, direction.per_label_count):
        for name, values in {} if groups is None else groups.values.items():
            require(values.shape == (len(groups.keys), 3) and len(groups.queries) == len(groups.keys), f"{name}")
            require(not ((values < -0.0001) | (values > 1.0001)).any(), f"{name} is {values}")
    if direction.confusion is not None and direction.per_class is not None:
        require(direction.confusion.shape == (len(direction.per_class.keys),) * 2, "confusion")


def _check_neighbours(rows: Neighbours, size: int) -> None:
    require(rows.indices.dtype == np.int32 and rows.distances.dtype == np.float32, "types of neighbours")
    require(rows.indices.shape == rows.distances.shape and rows.indices.ndim == 2, "shapes of neighbours")
    require(rows.indices.min() >= 0 and rows.indices.max() < size, "positions outside the archive")
    require(all(len(set(row)) == len(row) for row in rows.indices.tolist()), "a position twice")
    require(np.isfinite(rows.distances).all() and (np.diff(rows.distances) >= 0).all(), "distances")


def _edit_features(folder: Path, random: Random) -> str:
    return edit_hdf5(random.choice(sorted(folder.glob("*.h5"))), random)


def _edit_results(folder: Path, random: Random) -> str:
    return edit_hdf5(random.choice(sorted(folder.rglob("*.h5"))), random)


HDF5 = (
    Subject("features", _build_features, _read_features, _check_features, edit=_edit_features, cost=3),
    Subject(
        "features, version 0.1", lambda folder: _extract(folder, "query.h5", "archive.h5"), _read_features,
        _check_features, edit=_edit_features, cost=3,
    ),
    Subject("results", _build_results, _read_results, _check_results, edit=_edit_results, cost=3),
    Subject(
        "results, version 0.1", lambda folder: _extract(folder, "retrieval.h5"), _read_results, _check_results,
        edit=_edit_results, cost=3,
    ),
    Subject(
        "results, original", _build_original_results, _read_results, _check_results, edit=_edit_results, cost=3,
    ),
)  # fmt: skip
