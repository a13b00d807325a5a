"""Take the pictures of the server's page that README.md and docs/serve.md show, in headless Chromium.

    python tools/screenshot_serve.py --filepath logs/demo/default [logs/demo/original]

It starts the server on a free port, asks with a patch, and writes docs/images/*.jpg.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "images"
MOST_BYTES = 300_000
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")

PICTURES = {
    "serve.jpg": (1400, 900, "light", {"like": 1, "unlike": 1, "legend": True}),
    "serve_dark.jpg": (1400, 900, "dark", {"colour": "distance"}),
    "serve_phone.jpg": (390, 844, "light", {}),
}
"""Width, height, colours, and what the page shows."""


def start(folders: list[str]) -> tuple[subprocess.Popen[str], str]:
    """Start the server; return its process and address."""
    command = [sys.executable, str(ROOT / "project" / "serve.py"), "--port", "0", "--filepath", *folders]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "http://" in line:
            return process, "http://" + line.split("http://")[1].split()[0]
    sys.exit("the server did not start")


def ask(address: str, **words: str) -> dict[str, Any]:
    """Return an answer of the API."""
    with urllib.request.urlopen(f"{address}/api/search?{urllib.parse.urlencode(words)}") as answer:
        return json.load(answer)


def picture(driver: webdriver.Chrome, address: str, patch: str, name: str) -> None:
    """Write one picture."""
    width, height, colours, shown = PICTURES[name]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    results = ask(address, patch=patch)["results"]
    state = {"patch": patch, "colour": shown.get("colour", "label")}
    if "like" in shown:
        state |= {"like": results[1]["name_s2"], "unlike": results[4]["name_s2"]}
    driver.get(f"{address}/?{urllib.parse.urlencode(state)}")
    ready = """return document.documentElement.dataset.ready && !document.querySelector('[aria-busy]')
      && [...document.images].filter((i) => i.getBoundingClientRect().top < innerHeight).every((i) => i.complete)"""
    end = time.monotonic() + 60
    while not driver.execute_script(ready):
        if time.monotonic() > end:
            sys.exit("the page was not ready after 60 s")
        time.sleep(0.2)
    if shown.get("legend"):
        driver.execute_script("document.getElementById('legend-box').open = true")
    time.sleep(0.5)
    image = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    path = OUTPUT / name
    image.save(path, quality=86, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")
    if path.stat().st_size > MOST_BYTES:
        sys.exit(f"{path} is larger than {MOST_BYTES:,} bytes")


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filepath", nargs="+", required=True, metavar="RUN")
    parser.add_argument("--patch", help="to ask with (default: one drawn by the server)")
    given = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    process, address = start(given.filepath)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("no chromium here")
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        with urllib.request.urlopen(f"{address}/api/surprise") as drawn:
            patch = given.patch or json.load(drawn)["name_s2"]
        for name in PICTURES:
            picture(driver, address, patch, name)
    finally:
        driver.quit()
        process.terminate()


if __name__ == "__main__":
    main()
