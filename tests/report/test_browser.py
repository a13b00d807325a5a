"""The page in a real headless Chromium, opened from the disk."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.report.samples import DIRECTIONS, HOSTILE, small_study

from bigearthnet_cbir.report.render import render_page

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium with chromedriver here (Debian: chromium, chromium-driver)", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install '.[dev]')")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion",  # the page then jumps instead of gliding, so that a click meets its button
)  # fmt: skip

TOO_WIDE = """
const style = (node) => getComputedStyle(node);
const scrolls = (node) => node && (/(auto|scroll)/.test(style(node).overflowX) || scrolls(node.parentElement));
const judged = (node) => node.checkVisibility() && style(node).display !== "inline" && style(node).clipPath === "none"
  && !node.closest("svg, .plot") && !scrolls(node);
return [...document.querySelectorAll("body *")]
  .filter((node) => node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 1 && judged(node))
  .map((node) => `${node.tagName}.${node.className}: ${node.scrollWidth} > ${node.clientWidth}`);
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(render_page(small_study(folder / "run", title=f"{HOSTILE} " + "long_name" * 12)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["webdriver.Chrome"]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: "webdriver.Chrome", written: Path) -> "webdriver.Chrome":
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    return visit(browser, written)


def visit(browser: "webdriver.Chrome", written: Path) -> "webdriver.Chrome":
    """Open the page and wait for its script: on a busy machine the driver can come back before it has run."""
    browser.get(written.as_uri())
    ready = "return document.readyState === 'complete' && document.querySelector('.panel.shown') !== null"
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(ready))
    return browser


def at_width(browser: "webdriver.Chrome", width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def shown_direction(browser: "webdriver.Chrome") -> set[str | None]:
    panels = browser.find_elements(By.CSS_SELECTOR, ".panel")
    return {panel.get_attribute("data-direction") for panel in panels if panel.is_displayed()}


def test_opens_from_disk_without_an_error_or_a_request(opened, written: Path) -> None:
    assert [entry for entry in opened.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}] == []
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert written.as_uri() in asked
    assert [url for url in asked if url != written.as_uri() and not url.startswith("data:")] == []


def test_a_hostile_name_is_shown_and_not_run(opened) -> None:
    assert opened.find_element(By.TAG_NAME, "h1").text.startswith(HOSTILE)


def test_the_gallery_shows_its_pictures(opened) -> None:
    pictures = [found for found in opened.find_elements(By.CSS_SELECTOR, "#gallery img") if found.is_displayed()]
    assert len(pictures) == 4 * 11
    opened.execute_async_script(
        "const done = arguments[0]; Promise.all([...document.querySelectorAll('.shown img')].map((i) => i.decode()))"
        ".then(() => done())"
    )
    assert all(found.get_property("naturalWidth") == 120 for found in pictures)


def test_direction_switches_by_mouse(opened) -> None:
    assert shown_direction(opened) == {"fused"}
    opened.find_element(By.CSS_SELECTOR, 'label[for="direction-s1_s2"]').click()
    assert shown_direction(opened) == {"s1_s2"}


def test_direction_switches_by_keyboard(opened) -> None:
    focused = opened.switch_to.active_element
    for _ in range(10):
        focused.send_keys(Keys.TAB)
        focused = opened.switch_to.active_element
        if focused.get_attribute("name") == "direction":
            break
    for direction in (*DIRECTIONS[1:], DIRECTIONS[0]):
        opened.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
        assert shown_direction(opened) == {direction}
    opened.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert shown_direction(opened) == {DIRECTIONS[-1]}
    label = opened.find_element(By.CSS_SELECTOR, f'label[for="direction-{DIRECTIONS[-1]}"]')
    assert label.value_of_css_property("outline-style") == "solid"


def test_curves_switch_and_read_out(opened) -> None:
    opened.find_element(By.CSS_SELECTOR, 'label[for="metric-recall"]').click()
    charts = [found for found in opened.find_elements(By.CSS_SELECTOR, ".metric") if found.is_displayed()]
    assert [found.get_attribute("data-metric") for found in charts] == ["recall"]
    value = opened.find_element(By.CSS_SELECTOR, '[data-line="this run"]')
    before = value.text
    assert float(before) > 0
    slider = opened.find_element(By.ID, "rank")
    slider.send_keys(Keys.END)
    assert value.text != before
    assert opened.find_element(By.ID, "rank-out").text == "60"


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("direction", ["fused", "s2_s1"])
def test_no_text_overflows(opened, width: int, direction: str) -> None:
    at_width(opened, width)
    opened.execute_script("document.querySelectorAll('details').forEach((found) => { found.open = true; })")
    opened.execute_script(f"document.getElementById('direction-{direction}').click()")
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    assert opened.execute_script(TOO_WIDE) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_follow_the_system_and_the_button(opened, written: Path, theme: str) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    opened.execute_script("localStorage.clear()")
    opened.get("about:blank")
    visit(opened, written)
    assert is_dark(opened) == (theme == "dark")
    opened.find_element(By.ID, "theme").click()
    assert is_dark(opened) == (theme == "light")
    opened.execute_script("localStorage.clear()")


def is_dark(browser: "webdriver.Chrome") -> bool:
    colour = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    return int(colour.split("(")[1].split(",")[0]) < 128
