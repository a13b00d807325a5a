"""The machine a benchmark ran on, in words, and tables of its results."""

from __future__ import annotations

import json
import os
import platform
import resource
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def hardware() -> str:
    """Return processor, cores, memory and Python."""
    model, flags = platform.processor(), ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
        elif line.startswith("flags"):
            flags = line
            break
    widest = next((name for name in ("avx512_vpopcntdq", "avx512f", "avx2") if f" {name}" in flags), "no AVX")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{model} ({widest}), {cores} cores, {pages:.0f} GiB, Python {platform.python_version()}"


def peak_memory() -> str:
    """Return this process's highest resident memory so far."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def write_results(name: str, rows: list[dict[str, Any]], *, keep: bool = True) -> None:
    """Print the rows as a table and, if `keep`, write them with the hardware to results/."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    text = f"{hardware()}; peak memory {peak_memory()}\n\n" + "\n".join(lines) + "\n"
    print(text)
    if not keep:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.json").write_text(json.dumps({"hardware": hardware(), "rows": rows}, indent=1) + "\n")
