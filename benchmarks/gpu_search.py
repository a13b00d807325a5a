"""Search on a device: against torch.cdist and topk, against faiss-gpu's published rate, and as retrieval does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from retrieval import write_side

from bigearthnet_cbir.config import Config
from bigearthnet_cbir.pipelines.feature_extractors import FeatureExtractor
from bigearthnet_cbir.pipelines.retrieve import search_and_score
from bigearthnet_cbir.search.torch_backend import search_on_device
from bigearthnet_cbir.storage.run_folder import RunFolder

PUBLISHED = 24_471.6
"""Queries/s of faiss-gpu's brute force (faiss-gpu-bf-batch) in 1,000,000 vectors of 128 values, k = 10, recall 1.0, as
published for SIFT1M by https://ann-benchmarks.com/faiss-gpu-bf-batch-batch.html; the card is an older one."""

BLOCK = 1024
"""Queries per call of torch.cdist."""


def best_seconds(call: Callable[[], Any], device: torch.device, turns: int) -> float:
    """Return the seconds of the fastest of several calls; the first one is not counted."""
    least = float("inf")
    for turn in range(turns + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            least = min(least, time.perf_counter() - start)
    return least


def row(measurement: str, value: str, unit: str, of: str = "", goal: str = "") -> dict[str, Any]:
    """Return a line of the table; `of` compares the value with another line."""
    return {"measurement": measurement, "value": value, "unit": unit, "compared": of, "goal": goal}


def torch_nearest(queries: Any, archive: Any, k: int, device: torch.device) -> Any:
    """Return the (Q, k) nearest rows of unit vectors by torch.cdist and topk."""
    found, rows = [], torch.from_numpy(archive).to(device)
    for part in torch.from_numpy(queries).split(BLOCK):
        found.append(torch.cdist(part.to(device), rows).topk(k, largest=False).indices.cpu())
    return torch.cat(found)


def search_rows(device: torch.device, sizes: Any) -> list[dict[str, Any]]:
    """Exact search on the device: cosine against torch.cdist and topk, codes, and faiss-gpu's published workload."""
    generator = np.random.default_rng(0)
    queries, archive = (generator.standard_normal((n, 256), np.float32) for n in (sizes.queries, sizes.archive))
    for vectors in (queries, archive):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = [np.packbits(vectors > 0, axis=1) for vectors in (queries, archive)]
    work = f"{sizes.queries:,} x {sizes.archive:,}, k = {sizes.k}"
    calls = {
        "cosine": lambda: search_on_device(queries, archive, sizes.k, "cosine", device=str(device)),
        "torch": lambda: torch_nearest(queries, archive, sizes.k, device),
        "hamming": lambda: search_on_device(*codes, sizes.k, "hamming", device=str(device)),
    }
    times = {name: best_seconds(call, device, 1) for name, call in calls.items()}
    few, many = (generator.random((n, 128), np.float32) for n in sizes.published)
    rate = len(few) / best_seconds(lambda: search_on_device(few, many, 10, "euclidean", device=str(device)), device, 1)
    return [
        row(f"cosine search, 256 values, {work}", f"{times['cosine']:.3g}", "s"),
        row(
            "the same by torch.cdist and topk",
            f"{times['torch']:.3g}",
            "s",
            f"{times['torch'] / times['cosine']:.2f} x the time of ours",
        ),
        row(f"Hamming search, 256 bits, {work}", f"{times['hamming']:.3g}", "s"),
        row(f"Euclidean search, 128 values, in {len(many):,}, k = 10", f"{rate:,.0f}", "queries/s"),
        row(
            "published for faiss-gpu in 1,000,000, k = 10",
            f"{PUBLISHED:,.0f}",
            "queries/s",
            f"{PUBLISHED / rate:.2f} x the rate of ours",
        ),
    ]


def retrieval_row(config: Config, folder: RunFolder, sizes: Any) -> dict[str, Any]:
    """Search and metrics of all directions of random features, as retrieval does them."""
    write_side(folder.query, sizes.queries, 1)
    write_side(folder.archive, sizes.archive, 2)
    source = FeatureExtractor({"checkpoint": "none, random features"}, lambda batch: {})
    start = time.perf_counter()
    search_and_score(replace(config, distance="cosine"), folder, source, "benchmark")
    seconds = time.perf_counter() - start
    what = f"search and metrics, {len(source.directions)} directions, cosine, {sizes.queries:,} x {sizes.archive:,}"
    return row(what, f"{seconds:.3g}", "s", "", "below 60")
