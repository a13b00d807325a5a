"""All metric curves for k = 1..1000: ours against the original scripts' loop over queries, per query, same run.

python benchmarks/metrics.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
from hardware import write_results

from bigearthnet_cbir.evaluation.ground_truth import GroundTruth
from bigearthnet_cbir.evaluation.metrics import mean_curves

QUERIES, ARCHIVE, RANKS, LOOPED = 10_000, 125_866, 1000, 10


def original_loop(query: Any, retrieved: Any) -> list[list[float]]:
    """One query the way of the original scripts: for each k, every metric from the first k items again."""
    shared = (query & retrieved).sum(axis=1)
    best = np.sort(shared)[::-1]
    curves: list[list[float]] = [[] for _ in range(7)]
    for k in range(1, len(retrieved) + 1):
        s, item = shared[:k], retrieved[k - 1]
        hit = s > 0
        count = int(hit.sum())
        precision, recall = s[-1] / max(item.sum(), 1), s[-1] / query.sum()
        ranks = np.arange(1, k + 1)
        gains = np.cumsum(s) / ranks
        discounts = np.log2(1 + ranks)
        ideal = ((2.0 ** best[:k] - 1) / discounts).sum()
        values = (
            precision,
            recall,
            2 * precision * recall / (precision + recall) if precision + recall else 0.0,
            (hit * np.cumsum(hit) / ranks).sum() / count if count else 0.0,
            gains[-1],
            (hit * gains / ranks).sum() / count if count else 0.0,
            ((2.0**s - 1) / discounts).sum() / ideal if ideal else 0.0,
        )
        for curve, value in zip(curves, values, strict=True):
            curve.append(float(value))
    return curves


def main() -> None:
    """Measure and write benchmarks/results/metrics.*."""
    generator = np.random.default_rng(0)
    archive = (generator.random((ARCHIVE, 19)) < 0.15).astype(np.uint8)
    queries = (generator.random((QUERIES, 19)) < 0.15).astype(np.uint8)
    queries[:, 0] = 1
    indices = generator.integers(0, ARCHIVE, (QUERIES, RANKS), dtype=np.int32)
    mean_curves(GroundTruth.of(queries[:2], archive), indices[:2])
    start = time.perf_counter()
    mean_curves(GroundTruth.of(queries, archive), indices)
    ours = (time.perf_counter() - start) / QUERIES
    start = time.perf_counter()
    looped = [original_loop(queries[row], archive[indices[row]]) for row in range(LOOPED)]
    theirs = (time.perf_counter() - start) / LOOPED
    check = mean_curves(GroundTruth.of(queries[:LOOPED], archive), indices[:LOOPED]).original
    for position, name in enumerate(check):
        assert np.allclose(check[name], np.mean([curves[position] for curves in looped], axis=0)), name
    row = {
        "work": f"both conventions, k = 1..{RANKS}, archive {ARCHIVE:,}", "queries": f"{QUERIES:,}",
        "ours us/query": f"{ours * 1e6:.1f}", "original loop us/query": f"{theirs * 1e6:,.0f}",
        "x original": f"{theirs / ours:,.0f}",
    }  # fmt: skip
    write_results("metrics", [row])


if __name__ == "__main__":
    main()
