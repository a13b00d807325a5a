"""The cosine screen on 512-bit registers with AVX512-VNNI against that on 256-bit registers with AVX2, same machine.

    python benchmarks/kernels.py [--rounds 3]

10 nearest of 1,024 queries in 125,866 vectors of 256 numbers, one thread. Each round starts a process for each kind of
kernel in turn; numba is told to leave out AVX512-VNNI for one of them. The results must be equal to the last bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
from hardware import write_results

QUERIES, ARCHIVE, WIDTH, K = 1024, 125_866, 256, 10
KINDS = {"AVX2, 256 bits": "-avx512vnni", "AVX512-VNNI, 512 bits": ""}
"""Names of the kernels, and the features of the processor that numba is told to leave out."""


def measure() -> None:
    """Print the seconds of a search, and a digest of its result, as JSON."""
    from bigearthnet_cbir.search.kernels.int16_dot import has_wide_pair_products
    from bigearthnet_cbir.search.knn import search
    from bigearthnet_cbir.search.shards import PreparedArchive

    generator = np.random.default_rng(0)
    archive = generator.standard_normal((ARCHIVE, WIDTH), dtype=np.float32)
    queries = generator.standard_normal((QUERIES, WIDTH), dtype=np.float32)
    prepared = PreparedArchive(archive, "cosine")
    least = float("inf")
    for _ in range(4):  # the first one compiles
        start = time.perf_counter()
        found = search(queries, prepared, K, "cosine", threads=1)
        least = min(least, time.perf_counter() - start)
    digest = hashlib.sha256(found.indices.tobytes() + found.distances.tobytes()).hexdigest()
    print(json.dumps({"seconds": least, "digest": digest, "wide": has_wide_pair_products()}))


def main() -> None:
    """Measure both kinds and write benchmarks/results/kernels.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure()
        return
    found: dict[str, list[dict[str, object]]] = {name: [] for name in KINDS}
    for _ in range(options.rounds):
        for name, without in KINDS.items():
            environment = {**os.environ, **({"NUMBA_CPU_FEATURES": host_features(without)} if without else {})}
            command = [sys.executable, __file__, "--measure"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    assert len({one["digest"] for some in found.values() for one in some}) == 1, "the results differ"
    if not all(one["wide"] for one in found["AVX512-VNNI, 512 bits"]):
        raise SystemExit("this processor has no AVX512-VNNI")
    assert not any(one["wide"] for one in found["AVX2, 256 bits"])
    seconds = {name: min(float(str(one["seconds"])) for one in some) for name, some in found.items()}
    slow = seconds["AVX2, 256 bits"]
    work = QUERIES * ARCHIVE * WIDTH / 1e9
    rows = [
        {"kernel": name, "s": f"{least:.3f}", "10^9 multiply-adds/s": f"{work / least:.0f}", "x": f"{slow / least:.2f}"}
        for name, least in seconds.items()
    ]
    write_results("kernels", rows)


def host_features(without: str) -> str:
    """Return the features of this processor as numba takes them, without one."""
    import llvmlite.binding as llvm

    features = str(llvm.get_host_cpu_features().flatten()).split(",")
    return ",".join([*(one for one in features if one != f"+{without[1:]}"), without])


if __name__ == "__main__":
    main()
