"""590,000 dots on a map in headless Chromium: the page's own canvas, plotly's scattergl, Bokeh's WebGL.

What decided how serve/ draws its map (docs/serve.md). `pip install plotly bokeh selenium`; what is missing is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hardware import write_results
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ASSETS = Path(__file__).resolve().parents[1] / "src" / "bigearthnet_cbir" / "serve" / "assets"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage")
STEPS = 9
"""Frames: two moved, the third zoomed."""

PATIENCE = 180
"""Seconds for one way."""


SHARED = """
let seed = 1;
const random = () => (seed = (seed * 1664525 + 1013904223) >>> 0) / 4294967296;
const size = COUNT, lon = new Float32Array(size), lat = new Float32Array(size), kind = new Uint8Array(size);
for (let i = 0; i < size; i++) { lon[i] = -10 + 40 * random(); lat[i] = 36 + 33 * random(); kind[i] = 1 + (i % 19); }
const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
async function measure(move) {
  await frame();
  const first = performance.now(), times = [];
  document.title = JSON.stringify([first]);
  for (let i = 0; i < STEPS; i++) {
    const before = performance.now();
    await move(i);
    await frame();
    times.push(performance.now() - before);
    document.title = JSON.stringify([first, ...times]);
  }
}
"""

OWN = """
import { DotMap } from "/map.js";
const map = new DotMap(document.getElementById("map"), {});
map.setPoints(lon, lat);
map.setColours(kind, Uint32Array.from({ length: 20 }, (_, i) => 0xff000000 | (i * 800000)));
map.setOutlines(await (await fetch("/outlines.json")).json());
measure((i) => (i % 3 === 2 ? map.zoom(i % 2 ? 1.3 : 0.8) : map.pan(15, 5)));
"""

PLOTLY = """
const axes = { xaxis: { range: [-10, 30] }, yaxis: { range: [36, 69] }, width: 700, height: 700 };
const trace = { type: "scattergl", mode: "markers", x: lon, y: lat,
  marker: { size: 2, color: kind, colorscale: "Viridis" }, hoverinfo: "none" };
await Plotly.newPlot("map", [trace], axes);
measure((i) => Plotly.relayout("map", i % 3 === 2
  ? { "xaxis.range": [-10 + i / 3, 30 - i / 3], "yaxis.range": [36 + i / 4, 69 - i / 4] }
  : { "xaxis.range": [-10 + i / 5, 30 + i / 5], "yaxis.range": [36, 69] }));
"""

BOKEH = """
const x_range = new Bokeh.Range1d({ start: -10, end: 30 }), y_range = new Bokeh.Range1d({ start: 36, end: 69 });
const plot = Bokeh.Plotting.figure({ width: 700, height: 700, x_range, y_range, output_backend: "webgl" });
const colours = Array.from({ length: 20 }, (_, i) => "#" + (0x1000000 + i * 800000).toString(16).slice(1));
const fill = Array.from(kind, (k) => colours[k]);
plot.scatter({ x: Array.from(lon), y: Array.from(lat), size: 2, fill_color: fill, line_color: null });
await Bokeh.Plotting.show(plot, "#map");
measure((i) => {
  if (i % 3 === 2) {
    x_range.setv({ start: -10 + i / 3, end: 30 - i / 3 });
    y_range.setv({ start: 36 + i / 4, end: 69 - i / 4 });
  } else x_range.setv({ start: -10 + i / 5, end: 30 + i / 5 });
});
"""

PAGE = """<!doctype html><meta charset="utf-8">
<style>#map {{ width: 700px; height: 700px; position: relative }}
#map > * {{ position: absolute; inset: 0; width: 100%; height: 100% }}
#map > svg {{ background: #e8edf0; fill: #fbfaf7; stroke: #c9ccc8 }} #map path {{ vector-effect: non-scaling-stroke }}
</style><div id="map"></div>{scripts}<script type="module">{shared}{body}</script>"""


def pages() -> Iterator[tuple[str, str, list[Path]]]:
    """Yield name, script and library files of everything that is installed."""
    yield "own canvas", OWN, [ASSETS / name for name in ("map.js", "points.js", "pointer.js", "dom.js")]
    plotly, bokeh = (importlib.util.find_spec(name) for name in ("plotly", "bokeh"))
    if plotly and plotly.origin:
        yield "plotly scattergl", PLOTLY, [Path(plotly.origin).parent / "package_data" / "plotly.min.js"]
    if bokeh and bokeh.origin:
        folder = Path(bokeh.origin).parent / "server" / "static" / "js"
        yield "bokeh webgl", BOKEH, [folder / f"bokeh{part}.min.js" for part in ("", "-gl", "-api")]


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: str) -> Iterator[str]:
    """Serve a folder on the loopback interface; give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Give a headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("no chromium here")
    options.page_load_strategy = "none"
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def wait_for_title(driver: webdriver.Chrome) -> list[float]:
    """Return what the page writes into its title: when the first picture stood, then each frame, in milliseconds."""
    found: list[float] = []
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and len(found) < STEPS + 1:
        time.sleep(0.2)
        if driver.title.startswith("["):
            found = json.loads(driver.title)
    return found


def measured(name: str, body: str, files: list[Path], count: int) -> dict[str, Any]:
    """Return the row of one way to draw."""
    shared = SHARED.replace("COUNT", str(count)).replace("STEPS", str(STEPS))
    with tempfile.TemporaryDirectory() as folder, served(folder) as address, chromium() as driver:
        for path in [*files, ASSETS / "outlines.json"]:
            shutil.copy(path, folder)
        scripts = "".join(f'<script src="/{path.name}"></script>' for path in files if ".min." in path.name)
        Path(folder, "index.html").write_text(PAGE.format(scripts=scripts, shared=shared, body=body), encoding="utf-8")
        driver.get(f"{address}/index.html")
        found = wait_for_title(driver)
    size = sum(path.stat().st_size for path in files) / 1000
    late = f"> {PATIENCE:,} s in all"
    return {
        "way": name, "dots": f"{count:,}", "JavaScript, KB": f"{size:,.0f}",
        "first picture, ms": f"{found[0]:,.0f}" if found else late,
        "a frame, ms (median)": f"{statistics.median(found[1:]):,.0f}" if len(found) > 1 else late,
        "slowest frame, ms": f"{max(found[1:]):,.0f}" if len(found) > STEPS else late,
        "load of the machine": f"{os.getloadavg()[0]:.1f}",
    }  # fmt: skip


def main() -> None:
    """Measure every way and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=590_000)
    given = parser.parse_args()
    rows = []
    for page in pages():
        rows.append(measured(*page, given.count))
        print(rows[-1], file=sys.stderr)
    write_results("map_dots", rows)


if __name__ == "__main__":
    main()
