"""benchmarks/gpu.py on CPU tensors, for machines without a GPU: it starts, fills its table, and detects differences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bigearthnet_cbir.types import Neighbours

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MEASURED = (
    "matrix product in bf16", "loader alone", "training steps, batch in memory", "training with the loader",
    "training with the loader / in memory", "the same in a process group of one, gloo", "extraction with the loader",
    "cosine search", "the same by torch.cdist and topk", "Hamming search", "Euclidean search",
    "published for faiss-gpu", "search and metrics, 7 directions",
)  # fmt: skip
COMPARED = ("cosine", "euclidean", "chi2", "hamming", "float32", "gradients", "process group", "bf16")


@pytest.mark.slow
def test_the_gpu_benchmark_starts_and_all_results_are_equal() -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--small"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in ended.stdout.splitlines() if "|" in line]
    names = [cells[0] for cells in rows]
    for name in MEASURED:
        assert any(known.startswith(name) for known in names), name
    equal = {cells[0]: cells[1] for cells in rows if cells[0].startswith("equal on cpu")}
    assert len(equal) == len(COMPARED)
    assert set(equal.values()) == {"yes"}
    for word in COMPARED:
        assert any(word in name for name in equal), word


def test_results_that_differ_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_equality

    right = gpu_equality.search_on_device

    def wrong(*given: object) -> Neighbours:
        found = right(*given)
        return Neighbours(found.indices, np.nextafter(found.distances, np.float32(9)))

    assert gpu_equality.same_search("cosine", torch.device("cpu"))
    monkeypatch.setattr(gpu_equality, "search_on_device", wrong)
    assert not gpu_equality.same_search("cosine", torch.device("cpu"))
    gradient = torch.ones(4)
    assert gpu_equality.agree((1.0, gradient), (1.0, gradient * 1.0005))
    assert not gpu_equality.agree((1.0, gradient), (1.0, gradient * 1.01))
    assert not gpu_equality.agree((1.0, gradient), (1.01, gradient))
