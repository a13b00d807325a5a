"""Quality against bytes a patch: codes of every kind and length beside the cosine, on the demo world and on 590,000.

    python benchmarks/codes.py [--train 1000] [--epochs 6] [--seeds 3] [--folder logs/codes]

The demo world is that of benchmarks/ablation.py: 1,000 training pairs, 300 queries in an archive of 600, the
recommended recipe, several seeds. Methods that need no training are fitted on the archive, heads on the training pairs.
The timed vectors are 590,000 blends of pairs of archive vectors with noise. A finished training is not repeated: the
work folder is kept. Writes benchmarks/results/codes.*, codes_difference.*, codes_speed.* and docs/codes.svg.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import h5py
import numpy as np
from ablation import configuration, write_world
from hardware import write_results

from bigearthnet_cbir.pipelines.code_comparison import COSINE_FLOATS, LENGTHS, CodeComparison, compare_codes
from bigearthnet_cbir.pipelines.codes import fit_codes, load_learned
from bigearthnet_cbir.results import CodeQuality
from bigearthnet_cbir.search.binarizers import fit_binarizers
from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.two_stage import recall_curve, rerank_by_cosine
from bigearthnet_cbir.storage.features import FEATURES
from bigearthnet_cbir.storage.run_folder import RunFolder

RECIPE = "recommended, joint (norm, flips)"
DIRECTIONS = ("s1_s2", "s2_s1", "s1_s1", "s2_s2", "fused", "s1_fused", "s2_fused")
PLOTTED = {"s1_s2": "S1 -> S2", "s2_s1": "S2 -> S1", "s1_s1": "S1 -> S1", "fused": "fused -> fused"}
VECTORS = {"projection": "z", "backbone": "h"}
LOSSES = {"projection": ("contrastive", "orthohash"), "backbone": ("orthohash",)}
TIMED, TIMED_QUERIES, CANDIDATES = 590_000, 1000, 100
Figures = dict[tuple[str, str, int, str], list[CodeQuality]]


def measure(folder: Path, seed: int, options: argparse.Namespace) -> Iterable[tuple[str, CodeQuality]]:
    """Yield (vectors, quality) of one seed: train, extract and train heads where that was not done before."""
    from bigearthnet_cbir.pipelines.extract import extract
    from bigearthnet_cbir.pipelines.feature_extractors import checkpoint_extractor
    from bigearthnet_cbir.pipelines.hashing import train_hash_heads
    from bigearthnet_cbir.pipelines.train import train

    base = configuration(folder, RECIPE, seed, options.epochs, options.batch, "auto")
    train(base, resume=True)
    best = RunFolder(base.run_folder).best
    for feature, letter in VECTORS.items():
        run = RunFolder(base.run_folder / feature)
        config = replace(base, feature=feature, state_dict=str(best), distance="hamming")
        source = checkpoint_extractor(config, best)
        extract(config, {run.query: "val", run.archive: "test"}, source)
        for loss in LOSSES[feature]:
            for bits in LENGTHS:
                train_hash_heads(replace(config, code_bits=bits, hash_loss=loss), run, resume=True)
        with h5py.File(run.query) as query, h5py.File(run.archive) as archive:
            comparison = CodeComparison(config, source, query, archive, None)
            yield from ((letter, row) for row in compare_codes(comparison, run))
            for method in ("rotation", "itq"):
                fitted = fit_codes(replace(config, code=method, code_bits=64), source, archive)
                name = f"{method}, rerank {CANDIDATES}"
                yield from ((letter, row) for row in comparison.codes(name, fitted, CANDIDATES))
            for loss in LOSSES[feature]:
                learned = load_learned(run.hash_heads(loss, 64), source)
                name = f"learned, {loss}, rerank {CANDIDATES}"
                yield from ((letter, row) for row in comparison.codes(name, learned, CANDIDATES))


def spread(values: Iterable[float], sign: str = "") -> str:
    """Return mean and sample deviation."""
    found = list(values)
    deviation = f" +- {np.std(found, ddof=1):.3f}" if len(found) > 1 else ""
    return f"{np.mean(found):{sign}.3f}{deviation}"


def table(figures: Figures, tell: Callable[[tuple[str, str, int, str], str], str]) -> list[dict[str, str]]:
    """Return a line for each figure, vectors, method and length, with a cell for each direction."""
    rows = []
    kinds = dict.fromkeys(key[:3] for key in figures)
    for figure in ("f1", "mean_ap"):
        for letter, method, bits in kinds:
            keys = {key[3]: key for key in figures if key[:3] == (letter, method, bits)}
            first = figures[next(iter(keys.values()))][0]
            row = {
                "figure": {"f1": "F1@10", "mean_ap": "mAP@10"}[figure], "vectors": letter, "method": method,
                "bits": str(first.bits), "bytes": str(first.bytes), "seeds": str(len(figures[keys["s1_s2"]])),
            }  # fmt: skip
            rows.append(
                {**row, **{direction: tell(keys[direction], figure) for direction in DIRECTIONS if direction in keys}}
            )
    return rows


def merged(figures: Figures) -> Figures:
    """Return the figures with 0 as the length of methods whose length differs between directions: one bit a feature."""
    found: Figures = {}
    for (letter, method, bits, direction), rows in figures.items():
        found[letter, method, 0 if method in (COSINE_FLOATS, "median", "mean") else bits, direction] = rows
    return found


def synthetic(folder: Path, count: int) -> np.ndarray:
    """Return blends of two archive vectors each, with noise of a tenth of each feature's deviation."""
    with h5py.File(folder / "projection" / "archive.h5") as file:
        base = file[FEATURES[2]][:]
    generator = np.random.default_rng(0)
    one, two = generator.integers(0, len(base), (2, count))
    weight = generator.random((count, 1), dtype=np.float32)
    noise = generator.standard_normal((count, base.shape[1]), dtype=np.float32) * base.std(axis=0) / 10
    return (weight * base[one] + (1 - weight) * base[two] + noise).astype(np.float32)


def seconds(call: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Return the least seconds of several calls after the first, and what it returned."""
    found, taken = call(), []
    for _ in range(repeats):
        start = time.perf_counter()
        found = call()
        taken.append(time.perf_counter() - start)
    return min(taken), found


def speed(folder: Path) -> list[dict[str, str]]:
    """Return search times on many vectors, and how much of the exact lists reranked candidates hold."""
    from bigearthnet_cbir.search.shards import PreparedArchive

    vectors = synthetic(folder, TIMED + TIMED_QUERIES)
    queries, archive = vectors[TIMED:], vectors[:TIMED]
    prepared = PreparedArchive(archive, "cosine")
    taken, exact = seconds(lambda: search(queries, prepared, 10, "cosine"))
    rows = [speed_row(COSINE_FLOATS, 4 * archive.shape[1], taken, 1.0, 0.0)]
    for bits in LENGTHS:
        start = time.perf_counter()
        binarizer = fit_binarizers("itq", {"s2": archive}, bits)["s2"]
        codes = binarizer.codes(archive)
        made = time.perf_counter() - start
        asked, ready = binarizer.codes(queries), PreparedArchive(codes, "hamming")
        taken, found = seconds(lambda asked=asked, ready=ready: search(asked, ready, 10, "hamming"))
        recall = recall_of(found.indices, exact.indices)
        rows.append(speed_row(f"itq {bits}", codes.shape[1], taken, recall, made))
        for candidates in (100, 1000):
            taken, found = seconds(
                lambda asked=asked, ready=ready, n=candidates: rerank_by_cosine(
                    queries, search(asked, ready, n, "hamming").indices, archive, 10
                )
            )
            recall = float(recall_curve(found.indices, exact.indices)[9])
            rows.append(speed_row(f"itq {bits}, rerank {candidates:,}", codes.shape[1], taken, recall, made))
    return rows


def recall_of(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the mean share of the exact ten that are among the found ten."""
    return float(
        np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found.tolist(), exact.tolist(), strict=True)])
    )


def speed_row(method: str, size: int, taken: float, recall: float, made: float) -> dict[str, str]:
    return {
        "search": method, "bytes searched a patch": str(size), "archive MB": f"{size * TIMED / 1e6:.0f}",
        "ms a query": f"{1e3 * taken / TIMED_QUERIES:.3f}", "recall@10 of cosine": f"{recall:.3f}",
        "fit and codes, s": f"{made:.1f}" if made else "-",
    }  # fmt: skip


def plot(figures: Figures, path: Path) -> None:
    """Draw F1@10 against bytes a patch, mean and range over seeds, one panel a direction."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 9, "svg.hashsalt": "codes", "svg.fonttype": "none"})
    from matplotlib import pyplot

    drawn = {
        ("z", COSINE_FLOATS): ("cosine of z, floats", "#333333", "--"),
        ("z", "median"): ("median, one bit a feature", "#8c2f2a", "s"),
        ("z", "rotation"): ("rotation", "#1b6ca8", "-"),
        ("z", "itq"): ("ITQ", "#c2570c", "-"),
        ("z", "learned, contrastive"): ("learned, no labels", "#0b6b5d", "-"),
        ("z", "learned, orthohash"): ("learned, with labels", "#a3195b", "-"),
        ("h", "learned, orthohash"): ("learned on h, with labels", "#4b49ac", ":"),
    }
    figure, panels = pyplot.subplots(2, 2, figsize=(8.6, 6.4), sharex=True, layout="constrained")
    for (direction, title), axes in zip(PLOTTED.items(), panels.flat, strict=True):
        for (letter, method), (label, colour, style) in drawn.items():
            keys = sorted(key for key in figures if key[:2] == (letter, method) and key[3] == direction)
            sizes = [figures[key][0].bytes for key in keys]
            values = np.array([[row.f1 for row in figures[key]] for key in keys])
            mean = values.mean(axis=1)
            if method == COSINE_FLOATS:
                axes.axhline(mean[0], color=colour, linestyle=style, linewidth=1, label=label)
                axes.axhspan(values.min(), values.max(), color=colour, alpha=0.08, linewidth=0)
                continue
            if style == "s":
                axes.errorbar(sizes, mean, yerr=[mean - values.min(axis=1), values.max(axis=1) - mean], color=colour,
                              fmt="s", markersize=4, label=label)  # fmt: skip
                continue
            axes.plot(sizes, mean, color=colour, linestyle=style, marker="o", markersize=3, linewidth=1.5, label=label)
            axes.fill_between(sizes, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.12, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks([bits // 8 for bits in LENGTHS], [str(bits // 8) for bits in LENGTHS])
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.25, linewidth=0.5)
    for axes in panels[1]:
        axes.set_xlabel("bytes a patch")
    for axes in panels[:, 0]:
        axes.set_ylabel("F1@10")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--val", type=int, default=300)
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("logs/codes"))
    parser.add_argument("--only", choices=("quality", "speed"), help="leave the other part out")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = options.folder.resolve()
    write_world(folder, {"test": options.test, "val": options.val, "train": options.train})
    if options.only != "speed":
        quality(folder, options)
    if options.only != "quality":
        base = configuration(folder, RECIPE, 0, options.epochs, options.batch, "auto")
        write_results("codes_speed", speed(Path(base.run_folder)))


def quality(folder: Path, options: argparse.Namespace) -> None:
    """Measure every seed; write the tables and the plot."""
    measured: Figures = {}
    for seed in range(options.seeds):
        for letter, row in measure(folder, seed, options):
            measured.setdefault((letter, row.method, row.bits, row.direction), []).append(row)
    figures = merged(measured)

    def level(key: tuple[str, str, int, str], figure: str) -> str:
        return spread(getattr(row, figure) for row in figures[key])

    def difference(key: tuple[str, str, int, str], figure: str) -> str:
        reference = figures["z", COSINE_FLOATS, 0, key[3]]
        pairs = zip(figures[key], reference, strict=True)
        return spread((getattr(row, figure) - getattr(other, figure) for row, other in pairs), "+")

    write_results("codes", table(figures, level))
    write_results("codes_difference", table(figures, difference))
    plot(figures, Path(__file__).resolve().parents[1] / "docs" / "codes.svg")


if __name__ == "__main__":
    main()
