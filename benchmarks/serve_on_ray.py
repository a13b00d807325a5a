"""An index of 590,000 x 256 kept in Ray actors on three nodes: same results, and what a lost actor or node costs.

    python benchmarks/serve_on_ray.py [--size 590000]

The three nodes are processes of this machine (ray.cluster_utils.Cluster), so they share its cores: the figures show
that it works and what Ray adds, not how it speeds up.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import psutil
from hardware import write_results
from query import SHARES, make_index

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.query.filters import Filters
from bigearthnet_cbir.query.find import Found, Nearest, find, query_vector
from bigearthnet_cbir.query.index import Index, open_index
from bigearthnet_cbir.search.parallel_session import ray_session
from bigearthnet_cbir.serve.on_ray import held_on_ray

NODES: Final = 3
K: Final = 100


def ask(index: Index, position: int, filters: Filters, nearest: Nearest | None) -> tuple[Found, float]:
    """Return what is found, and the milliseconds that it took."""
    start = time.perf_counter()
    vector = query_vector(index, position, "fused", "fused")
    found = find(index, vector, k=K, filters=filters, asked=position, nearest=nearest)
    return found, 1000 * (time.perf_counter() - start)


def same(one: Found, other: Found) -> bool:
    """Return whether two answers are equal, to the last index and bit."""
    return np.array_equal(one.indices, other.indices) and np.array_equal(one.distances, other.distances)


def measure(index: Index, repeats: int) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(NODES - 1)]
    rows: list[dict[str, Any]] = []

    def note(what: str, value: str) -> None:
        rows.append({"what": what, "measured": value, "load of the machine": f"{os.getloadavg()[0]:.1f}"})
        print(rows[-1], file=sys.stderr)

    try:
        with ray_session(0, 0, cluster.address):
            held, nearest = held_on_ray(index)
            start = time.perf_counter()
            ask(index, 0, Filters(), nearest)
            note(f"sending {index.vectors('fused').nbytes / 1e6:,.0f} MB to {len(held.actors)} actors, first answer",
                 f"{time.perf_counter() - start:.1f} s")  # fmt: skip
            ids = [ray.get(actor.process.remote()) for actor in held.actors]
            sizes = [psutil.Process(number).memory_info().rss / 1e6 for number in ids]
            note("resident memory of the actors", ", ".join(f"{size:,.0f}" for size in sizes) + " MB")
            positions = np.random.default_rng(1).integers(index.size, size=repeats).tolist()
            for what, filters in (("all", Filters()), (f"{SHARES[0]:.0%}", Filters(labels=(CLASSES[0],)))):
                pairs = [(ask(index, p, filters, nearest), ask(index, p, filters, None)) for p in positions]
                equal = sum(same(one[0], other[0]) for one, other in pairs)
                note(f"filter keeps {what}: equal answers", f"{equal} of {repeats}")
                there, here = (np.median([pair[i][1] for pair in pairs]) for i in (0, 1))
                note(f"filter keeps {what}: p50 on Ray, in this process", f"{there:.1f} ms, {here:.1f} ms")
            expected, _ = ask(index, positions[0], Filters(), None)
            os.kill(ids[1], signal.SIGKILL)
            found, taken = ask(index, positions[0], Filters(), nearest)
            note("an actor was killed: the next answer", f"{taken / 1000:.1f} s, {_verdict(same(found, expected))}")
            cluster.remove_node(nodes[0], allow_graceful=False)
            found, taken = ask(index, positions[0], Filters(), nearest)
            note("a node was killed: the next answer", f"{taken / 1000:.1f} s, {_verdict(same(found, expected))}")
    finally:
        cluster.shutdown()
    return rows


def _verdict(equal: bool) -> str:
    return "right" if equal else "WRONG"


def main() -> None:
    """Measure, and write benchmarks/results/serve_on_ray.*."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=590_000, help="pairs (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=21, help="questions of each kind (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="an index is there, or is kept there")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    try:
        index = open_index(folder) if (folder / "index").is_dir() else make_index(folder, given.size)
        write_results("serve_on_ray", measure(index, given.repeats))
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
