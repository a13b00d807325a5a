"""A made-up run for the report's tests: figures without training, patches from the six real pairs."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from bigearthnet_cbir.data.labels import CLASSES, N_CLASSES
from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.metrics import retrieval_curves
from bigearthnet_cbir.evaluation.random_ranking import chance_curves
from bigearthnet_cbir.evaluation.summary import HEADLINES
from bigearthnet_cbir.report.rgb import encode_jpeg
from bigearthnet_cbir.report.view_model import Example, Gallery, Item, Source, Study
from bigearthnet_cbir.storage.results import read_results
from bigearthnet_cbir.storage.training_log import Scalar
from bigearthnet_cbir.types import PatchPair

HOSTILE = "<script>alert('x')</script>"
DIRECTIONS = ("fused", "s1_s1", "s2_s2", "s1_s2", "s2_s1")


def write_run(
    folder: Path,
    *,
    queries: list[PatchPair] | None = None,
    archive: list[PatchPair] | None = None,
    store: Path = Path("/nowhere/patches.lmdb"),
    statistics: bool = True,
    seed: int = 0,
) -> Path:
    """Write query.h5, archive.h5 and retrieval.h5 of a search whose neighbours are drawn at random."""
    rng = np.random.default_rng(seed)
    asked = queries or [PatchPair(f"S2_q{i}", f"S1_q{i}") for i in range(30)]
    held = archive or [PatchPair(f"S2_a{i}", f"S1_a{i}") for i in range(60)]
    labels = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in (("query", asked), ("archive", held)):
        labels[name] = (rng.random((len(pairs), N_CLASSES)) < 0.15).astype(np.uint8)
        labels[name][:, 2] |= labels[name].sum(axis=1) == 0
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["feature"] = rng.normal(size=(len(pairs), 8)).astype("f4")
            file["label"] = labels[name]
            names = np.array([[pair.s1, pair.s2] for pair in pairs], dtype=object)
            file.create_dataset("patch_name", data=names, dtype=h5py.string_dtype())
    with h5py.File(folder / "retrieval.h5", "w") as file:
        file.attrs.update(
            query_split="val", archive_split="test", queries=len(asked), archive_size=len(held), k=len(held),
            distance="cosine", feature_kind="projection", class_names=list(CLASSES),
            configuration=json.dumps({"name": HOSTILE, "bigEarthPthLMDB_S1": str(store),
                                      "bigEarthPthLMDB_S2": str(store), "seed": seed}),
        )  # fmt: skip
        for direction in DIRECTIONS:
            _direction(file.create_group(direction), labels["query"], labels["archive"], rng, statistics=statistics)
    return folder


def _direction(group, asked, held, rng, *, statistics: bool) -> None:
    near = np.stack([rng.permutation(len(held)) for _ in asked]).astype("i4")
    group["retrieval_result"] = near
    group["distance"] = np.sort(rng.random(near.shape), axis=1).astype("f4")
    curves = retrieval_curves(asked, held, near)
    for name, values in curves.items():
        group[name] = values
    for name, values in chance_curves(GroundTruth.of(asked, held), len(held)).items():
        group[f"chance/{name}"] = values
    if not statistics:
        return
    for name, curve, rank in HEADLINES:
        value = curves[curve][min(rank, len(held)) - 1]
        group[f"intervals/{name}"] = np.array([value - 0.03, value + 0.04])
    counts = asked.sum(axis=0).astype("i8")
    for part, size in (("per_class", N_CLASSES), ("per_label_count", 4)):
        group[f"{part}/queries"] = counts if part == "per_class" else np.arange(1, 5)
        for name in ("F1@10", "mAP@10", "NDCG@10"):
            figures = np.stack([np.full(size, 0.4), np.full(size, 0.3), np.full(size, 0.5)], axis=1)
            figures[np.asarray(group[f"{part}/queries"]) == 0] = np.nan
            group[f"{part}/{name}"] = figures
    group["per_label_count/labels"] = np.arange(1, 5)
    group["per_class/confusion"] = rng.random((N_CLASSES, N_CLASSES))
    dropped = group.create_group("exclude_within")
    dropped.attrs.update(radius=3, dropped_mean=1.5, dropped_queries=7)
    for name, values in curves.items():
        dropped[name] = values * 0.9


def small_study(folder: Path, *, title: str = "demo / separate", name: str = "this run") -> Study:
    """Return a study with a gallery of drawn pictures, its run written into a folder."""
    data = read_results(write_run(folder) / "retrieval.h5")
    other = read_results(write_run(folder / "baseline_untrained", seed=1, statistics=False) / "retrieval.h5")
    training = {
        "loss/training": Scalar((1, 2, 3), (4.0, 3.0, 2.5)),
        "loss/validation": Scalar((1, 2, 3), (4.5, 3.9, 3.8)),
        "learning_rate": Scalar((1, 2, 3), (1e-3, 5e-4, 1e-5)),
    }
    sources = (Source(name, data, training), Source("untrained", other, is_run=False))
    return Study(title, sources, CLASSES, small_gallery(), folders=(str(folder),))


def small_gallery() -> Gallery:
    """Return a gallery in which the same eleven pictures stand for every sensor and direction."""
    rng = np.random.default_rng(0)
    images = {f"s2-{i}": encode_jpeg(rng.integers(0, 255, (120, 120, 3), np.uint8)) for i in range(11)}
    longest = max(CLASSES, key=len)
    query = Item({"s2": "s2-0"}, ("Arable land", longest), frozenset(), "S2_query")
    results = tuple(
        Item({"s2": f"s2-{i}"}, ("Arable land", "Pastures"), frozenset({"Arable land"}), f"S2_result_{i}", 0.01 * i)
        for i in range(1, 11)
    )
    examples = tuple(Example(reason, 0.5, query, results) for reason in ("best", "median", "worst", "random"))
    return Gallery(dict.fromkeys(DIRECTIONS, examples), images, "F1@5")
