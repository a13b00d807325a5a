"""Plan larger archives from measured rates: memory, time and network of n machines like this one.

    python benchmarks/scale.py

Measured: a shard of 1,000,000 codes (Hamming, 256 bits) and of 500,000 vectors (cosine, 256 floats), searched by a
batch of queries and by a single one, and the merge of n sorted lists. The table multiplies these; archives of 10^8
and 10^9 are not searched here. Every machine is taken to be like this one and to hold an equal share.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
from hardware import write_results

from bigearthnet_cbir.search.kernels.merge import merge
from bigearthnet_cbir.search.knn import search
from bigearthnet_cbir.search.shards import PreparedArchive
from bigearthnet_cbir.types import Neighbours

K = 100
BATCH = 512
SHARDS = {"hamming": 1_000_000, "cosine": 500_000}
STORED = {"hamming": 32, "cosine": 256 * (4 + 2)}
"""Bytes of a row while it is searched: codes as bit planes; floats, and the integers that screen them."""


def seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """Return the least seconds of several calls after the first."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def rates(distance: str) -> tuple[float, float]:
    """Return pairs a second for a batch of queries, and for one query alone."""
    generator = np.random.default_rng(0)
    size = SHARDS[distance]
    if distance == "hamming":
        rows = generator.integers(0, 256, (size, 32), dtype=np.uint8)
    else:
        rows = generator.standard_normal((size, 256), dtype=np.float32)
    archive = PreparedArchive(rows, distance)
    return tuple(  # type: ignore[return-value]
        count * size / seconds(lambda count=count: search(rows[:count], archive, K, distance))  # type: ignore[misc]
        for count in (BATCH, 1)
    )


def merge_seconds(machines: int) -> float:
    """Return the seconds that merging one query's lists of n machines takes."""
    generator = np.random.default_rng(0)
    parts = [
        Neighbours(
            np.arange(BATCH * K, dtype=np.int32).reshape(BATCH, K) + i,
            np.sort(generator.random((BATCH, K), dtype=np.float32), axis=1),
        )
        for i in range(machines)
    ]
    return seconds(lambda: merge(parts)) / BATCH if machines > 1 else 0.0


def main() -> None:
    """Measure and write benchmarks/results/scale.*."""
    rows = []
    merging = {machines: merge_seconds(machines) for machines in (1, 4, 16, 64)}
    for distance in SHARDS:
        batched, alone = rates(distance)
        for size in (10**7, 10**8, 10**9):
            for machines, merged in merging.items():
                share = size / machines
                rows.append({
                    "distance": distance, "archive": f"10^{len(str(size)) - 1}", "machines": machines,
                    "GB a machine": f"{share * STORED[distance] / 1e9:.2f}",
                    "ms a query, in batches": f"{1e3 * (share / batched + merged):.2f}",
                    "ms a query, alone": f"{1e3 * (share / alone + merged):.1f}",
                    "of it merging, ms": f"{1e3 * merged:.3f}",
                    "KB a query over the network": f"{(machines > 1) * machines * K * 8 / 1e3:.1f}",
                })  # fmt: skip
        print(f"{distance}: {batched:.3g} pairs/s in batches, {alone:.3g} alone", file=sys.stderr)
    write_results("scale", rows)


if __name__ == "__main__":
    main()
