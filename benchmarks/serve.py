"""The server on an index of 590,000 x 256: start-up, answers, memory, 50 clients at once, the page.

    python benchmarks/serve.py [--size 590000]

The server is the command that a user starts; this process asks it over the loopback interface. The page is opened in
headless Chromium where one is installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import httpx
import numpy as np
import psutil
from hardware import write_results
from query import SHARES, make_index

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.query.index import Index

K: Final = 100
UNCOUNTED: Final = 3
CLIENTS: Final = 50
ASKS: Final = 3
"""Questions of each of the clients that ask at once."""


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """Start the command; give its address, its process, and the seconds until it says where it serves."""
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "project" / "serve.py"), "--filepath", str(folder), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if "http://" in line), "")
            address = line.split("  ")[0].rpartition(": ")[2].strip()
            yield address, process, time.perf_counter() - start
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def milliseconds(ask: Callable[[int], Any], repeats: int) -> list[float]:
    """Return how long each call took; the first few are not counted."""
    taken = []
    for turn in range(repeats + UNCOUNTED):
        start = time.perf_counter()
        ask(turn)
        taken.append(1000 * (time.perf_counter() - start))
    return taken[UNCOUNTED:]


def memory(process: subprocess.Popen[str], index: Index) -> str:
    """Return the server's resident memory beside the size of its index."""
    size = sum(path.stat().st_size for path in index.folder.iterdir())
    resident = psutil.Process(process.pid).memory_info().rss
    return f"{resident / 1e6:,.0f} MB, {resident / size:.2f} x the index of {size / 1e6:,.0f} MB"


def together(address: str, questions: list[dict[str, Any]]) -> tuple[int, float, float]:
    """Have CLIENTS ask at once; return answers that differ from those got alone, the median wait and the longest."""
    with httpx.Client(base_url=address, timeout=60) as client:
        alone = [client.post("/api/search", json=question).json()["results"] for question in questions]
    barrier, waits = threading.Barrier(CLIENTS), []

    def client_of(number: int) -> int:
        wrong = 0
        with httpx.Client(base_url=address, timeout=60) as client:
            barrier.wait()
            for turn in range(ASKS):
                which = (number * ASKS + turn) % len(questions)
                start = time.perf_counter()
                found = client.post("/api/search", json=questions[which])
                waits.append(time.perf_counter() - start)
                wrong += found.status_code != 200 or found.json()["results"] != alone[which]
        return wrong

    with ThreadPoolExecutor(CLIENTS) as pool:
        wrong = sum(pool.map(client_of, range(CLIENTS)))
    return wrong, float(np.median(waits)), max(waits)


def page_ready(address: str) -> list[float]:
    """Return the milliseconds from opening the page until the map shows all patches, of three visits."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(flag)
    found = []
    for _ in range(3):  # a browser each: nothing is in its cache
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            driver.get(address)
            for _ in range(600):
                if ready := driver.execute_script("return document.documentElement.dataset.ready"):
                    found.append(float(ready))
                    break
                time.sleep(0.05)
        finally:
            driver.quit()
    return found


def measure(folder: Path, index: Index, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table."""
    rng = np.random.default_rng(2)
    names = [index.names_s2[int(position)] for position in rng.integers(index.size, size=repeats + UNCOUNTED)]
    rare = {"labels": [CLASSES[0]]}
    with started(folder) as (address, process, seconds), httpx.Client(base_url=address, timeout=600) as client:
        server = psutil.Process(process.pid)

        def row(what: str, value: str, goal: str) -> dict[str, Any]:
            print(f"{what}: {value}", file=sys.stderr, flush=True)
            return {"what": what, "measured": value, "goal": goal, "load of the machine": f"{os.getloadavg()[0]:.1f}"}

        def asked(**question: Any) -> str:
            def ask(turn: int) -> None:
                client.post("/api/search", json={"patch": names[turn], "k": K, **question}).raise_for_status()

            before = sum(server.cpu_times()[:2])
            taken = milliseconds(ask, repeats)
            work = 1000 * (sum(server.cpu_times()[:2]) - before) / (repeats + UNCOUNTED)
            return f"{np.median(taken):.1f} ms (best {min(taken):.1f}; {work:.0f} ms of processor time)"

        yield row("start until it serves", f"{seconds:.1f} s", "< 10 s")
        start = time.perf_counter()
        client.post("/api/search", json={"patch": names[0], "k": K}).raise_for_status()
        yield row("and until the first answer", f"{time.perf_counter() - start:.1f} s", "")
        yield row(f"answer, k = {K}, p50", asked(), "< 60 ms")
        yield row(f"answer, filter that keeps {SHARES[0]:.0%}, p50", asked(filters=rare), "< 20 ms")
        yield row("answer, Hamming, p50", asked(distance="hamming"), "")
        yield row("answer, S1 -> S2, p50", asked(direction="s1_s2"), "")
        wrong, median, longest = together(address, [{"patch": name, "k": K} for name in names[:30]])
        yield row(f"{CLIENTS} clients at once, {ASKS} questions each: wrong or lost", str(wrong), "0")
        yield row("their median and longest wait", f"{median:.2f} s, {longest:.2f} s", "< 5 s")
        yield row("memory", memory(process, index), "< 1.3 x")
        if shutil.which("chromium"):
            yield row("page ready", f"{np.median(page_ready(address)):,.0f} ms", "< 1,500 ms")


def main() -> None:
    """Measure, and write benchmarks/results/serve.*."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=590_000, help="pairs (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=31, help="questions of each kind (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep the index here, for another time")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    try:
        from bigearthnet_cbir.query.index import open_index

        index = open_index(folder) if (folder / "index").is_dir() else make_index(folder, given.size)
        write_results("serve", list(measure(folder, index, given.repeats)))
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
