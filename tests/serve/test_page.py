"""The server's page in a real headless Chromium."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import RealPairs
from tests.serve.test_uploads import files_of, zipped

from bigearthnet_cbir.query.index import Index
from bigearthnet_cbir.types import PatchPair

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium with chromedriver here (Debian: chromium, chromium-driver)", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install '.[dev]')")
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion",
)  # fmt: skip

TOO_WIDE = """
const style = (node) => getComputedStyle(node);
const cut = (node) => node && (/(auto|scroll|hidden)/.test(style(node).overflowX) || cut(node.parentElement));
return [...document.querySelectorAll("body *")]
  .filter((node) => node.checkVisibility() && node.tagName !== "INPUT" && style(node).clipPath === "none" && !cut(node)
    && (node.getBoundingClientRect().right > innerWidth + 1
      || node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 1 && style(node).display !== "inline"))
  .map((node) => `${node.tagName}.${node.className}: ${node.scrollWidth} > ${node.clientWidth}`);
"""
NAMELESS = """
return [...document.querySelectorAll("button, input, select, [role=application], img, summary")]
  .filter((node) => node.checkVisibility() && !(node.getAttribute("aria-label") || node.alt || node.textContent.trim()
    || node.labels?.length || node.title)).map((node) => node.outerHTML);
"""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator["webdriver.Chrome"]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: "webdriver.Chrome", address: str) -> Iterator["webdriver.Chrome"]:
    """The page as it opens; in the end, no error was logged and no other host was asked."""
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    at_width(browser, 1400)
    go(browser, address)
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert f"{address}/" in asked
    assert [url for url in asked if not url.startswith((f"{address}/", "blob:", "about:"))] == []


def at_width(browser: "webdriver.Chrome", width: int, height: int = 900) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def go(browser: "webdriver.Chrome", address: str, query: str = "") -> None:
    browser.get(f"{address}/{query}")
    until(browser, lambda: browser.execute_script("return document.documentElement.dataset.ready !== undefined"))


def until(browser: "webdriver.Chrome", true: Callable[[], Any]) -> Any:
    """Wait for something true; an element that the page replaces while it is read is read again."""
    return WebDriverWait(browser, 60, ignored_exceptions=[StaleElementReferenceException]).until(lambda _: true())


def cards(browser: "webdriver.Chrome") -> list[Any]:
    return browser.find_elements(By.CSS_SELECTOR, "#lists .card:not(.empty)")


def picks(browser: "webdriver.Chrome", run: int = 0) -> list[str]:
    """Return the names of the results that a run's list shows."""
    script = """const list = document.querySelectorAll('#lists section')[arguments[0]];
      return list ? [...list.querySelectorAll('.pick')].map((node) => node.title.replace('Search with ', '')) : [];"""
    return browser.execute_script(script, run)


def found(browser: "webdriver.Chrome", *, without: list[str] | None = None, run: int = 0) -> list[str]:
    """Wait for results other than `without`, and return their names."""

    def ready() -> list[str] | None:
        names = picks(browser, run) if not browser.find_elements(By.CSS_SELECTOR, "[aria-busy]") else []
        return names if names and names != without else None

    return until(browser, ready)


def expected(client: Any, **question: Any) -> list[str]:
    return [result["name_s2"] for result in client.post("/api/search", json=question).json()["results"]]


def type_name(browser: "webdriver.Chrome", text: str) -> Any:
    field = browser.find_element(By.ID, "name")
    field.clear()
    field.send_keys(text)
    return field


def test_a_name_is_completed_and_asks(page, client, index: Index) -> None:
    name = index.names_s2[2]
    field = type_name(page, name[:-1])
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, "#names li"))
    field.send_keys(Keys.ARROW_DOWN)
    assert page.find_element(By.CSS_SELECTOR, "#names [aria-selected=true]").get_attribute("textContent") == name
    field.send_keys(Keys.ENTER)
    assert found(page) == expected(client, patch=name)
    assert page.find_element(By.CSS_SELECTOR, "article.query .name").text == name


def test_both_runs_stand_side_by_side(page, client, address: str, index: Index) -> None:
    go(page, address, f"?patch={index.names_s2[0]}&k=2")
    lists = [found(page, run=run) for run in range(2)]
    assert lists == [expected(client, patch=index.names_s2[0], k=2, run=run) for run in range(2)]
    only = page.execute_script(
        "return [...document.querySelectorAll('#lists .card')].map((c) => c.dataset.only === '1')"
    )
    assert only == [name not in lists[1] for name in lists[0]] + [name not in lists[0] for name in lists[1]]


def test_a_click_on_the_map_asks_with_the_patch_there(page, client, index: Index) -> None:
    plane = page.find_element(By.ID, "plane")
    place = [float(index.catalogue.longitude[1]), float(index.catalogue.latitude[1])]
    # Where a patch lies on the canvas follows from the projection and the view that shows all of them.
    x, y = pixel_of(page, index, place)
    ActionChains(page).move_to_element_with_offset(plane, x, y).click().perform()
    names = found(page)
    asked = page.find_element(By.CSS_SELECTOR, "article.query .name").text
    near = [name for name, close in zip(index.names_s2, distances_km(index, place) < 3, strict=True) if close]
    assert asked in near
    assert names == expected(client, patch=asked)


def distances_km(index: Index, place: list[float]) -> np.ndarray:
    x, y = np.asarray(index.catalogue.longitude), np.asarray(index.catalogue.latitude)
    return 111 * np.hypot((x - place[0]) * np.cos(np.radians(place[1])), y - place[1])


def pixel_of(browser, index: Index, place: list[float]) -> tuple[float, float]:
    """Return a place's offset from the middle of the map, by the definition of Web Mercator."""

    def mercator(lon: float, lat: float) -> np.ndarray:
        return np.array([lon / 360, -np.log(np.tan(np.pi / 4 + np.radians(lat) / 2)) / (2 * np.pi)])

    points = np.array([mercator(*one) for one in zip(index.catalogue.longitude, index.catalogue.latitude, strict=True)])
    low, high = points.min(axis=0), points.max(axis=0)
    width, height = browser.execute_script(
        "const m = document.getElementById('plane'); return [m.clientWidth, m.clientHeight]"
    )
    left, top, right, bottom = (40, 30, 80, 70)
    room = np.array([width - left - right, height - top - bottom])
    scale = (room / np.maximum(high - low, 1e-3)).min()
    middle = np.array([left, top]) + room / 2 + (mercator(*place) - (low + high) / 2) * scale
    return tuple(middle - np.array([width, height]) / 2)


def test_keys_alone_ask_from_the_map(page) -> None:
    plane = page.find_element(By.ID, "plane")
    page.execute_script("arguments[0].focus()", plane)
    plane.send_keys("+", Keys.ARROW_LEFT, Keys.ARROW_RIGHT, "-", Keys.ENTER)
    assert found(page)


def test_an_upload_asks(page, client, index: Index, real_pairs: RealPairs, tmp_path: Path) -> None:
    pair = PatchPair(index.names_s2[4], index.names_s1[4])
    path = tmp_path / "patch.zip"
    path.write_bytes(zipped(files_of(real_pairs, pair)))
    page.find_element(By.ID, "files").send_keys(str(path))
    assert found(page)[0] == pair.s2
    assert "your upload" in page.find_element(By.CSS_SELECTOR, "article.query h2").text
    until(
        page,
        lambda: page.execute_script(
            "return [...document.querySelectorAll('article.query img')].every((i) => i.naturalWidth === 120)"
        ),
    )


def test_a_refused_upload_is_told(browser, address: str, tmp_path: Path) -> None:
    go(browser, address)
    path = tmp_path / "nothing.zip"
    path.write_bytes(b"no zip file")
    browser.find_element(By.ID, "files").send_keys(str(path))
    problem = browser.find_element(By.ID, "problem")
    until(browser, problem.is_displayed)
    assert "zip" in problem.text
    browser.get_log("browser")


def test_surprise_asks(page) -> None:
    page.find_element(By.ID, "surprise").click()
    assert found(page)


def test_marks_refine_and_the_back_button_takes_them_back(page, client, address: str, index: Index) -> None:
    go(page, address, f"?patch={index.names_s2[0]}")
    before = found(page)
    liked, unliked = before[1], before[-1]
    page.find_elements(By.CSS_SELECTOR, ".mark.like")[1].click()
    after = found(page, without=before)
    assert after == expected(client, patch=index.names_s2[0], like=[liked])
    page.find_elements(By.CSS_SELECTOR, "#lists section:first-child .mark.unlike")[after.index(unliked)].click()
    last = found(page, without=after)
    assert last == expected(client, patch=index.names_s2[0], like=[liked], unlike=[unliked])
    assert (
        len(page.find_elements(By.CSS_SELECTOR, "#chips .like"))
        == len(page.find_elements(By.CSS_SELECTOR, "#chips .unlike"))
        == 1
    )
    page.back()
    assert found(page, without=last) == after
    page.back()
    assert found(page, without=after) == before
    page.forward()
    assert found(page, without=before) == after
    page.execute_script("document.getElementById('results').scrollTop = 0")
    page.find_element(By.CSS_SELECTOR, "#chips .like").click()
    assert found(page, without=after) == before


def test_a_filter_is_added_and_taken_away(page, client, address: str, index: Index) -> None:
    go(page, address, f"?patch={index.names_s2[0]}")
    before = found(page)
    label = next(
        label
        for label in index.class_names
        if label in index.labels_of(0) and 0 < int(index.labels[1:, index.class_names.index(label)].sum()) < 5
    )
    page.find_element(By.CSS_SELECTOR, "#filter-menu summary").click()
    Select(page.find_element(By.ID, "filter-kind")).select_by_value("labels")
    Select(page.find_element(By.ID, "filter-value")).select_by_value(label)
    page.find_element(By.CSS_SELECTOR, "#add-filter [type=submit]").click()
    after = found(page, without=before)
    assert after == expected(client, patch=index.names_s2[0], filters={"labels": [label]})
    assert "that pass the filters" in page.find_element(By.ID, "status").text
    page.find_element(By.CSS_SELECTOR, "#chips .filter").click()
    assert found(page, without=after) == before


def test_a_box_drawn_on_the_map_filters(page, client, address: str, index: Index) -> None:
    go(page, address, f"?patch={index.names_s2[0]}")
    before = found(page)
    place = [float(index.catalogue.longitude[1]), float(index.catalogue.latitude[1])]
    x, y = pixel_of(page, index, place)
    page.find_element(By.ID, "draw-box").click()
    plane = page.find_element(By.ID, "plane")
    (ActionChains(page).move_to_element_with_offset(plane, x - 12, y - 12).click_and_hold()
     .move_by_offset(12, 12).move_by_offset(12, 12).release().perform())  # fmt: skip
    until(page, lambda: "box=" in page.current_url)
    until(page, lambda: not page.find_elements(By.CSS_SELECTOR, "[aria-busy]") and picks(page) != before)
    box = [float(part) for part in page.current_url.split("box=")[1].split("&")[0].replace("%2C", ",").split(",")]
    assert box[0] < place[0] < box[2]
    assert box[1] < place[1] < box[3]
    assert picks(page) == expected(client, patch=index.names_s2[0], filters={"box": box})


def test_the_maps_view_filters_without_a_mouse(page, client, address: str, index: Index) -> None:
    go(page, address, f"?patch={index.names_s2[0]}")
    before = found(page)
    plane = page.find_element(By.ID, "plane")
    page.execute_script("arguments[0].focus()", plane)
    plane.send_keys("++++")
    page.find_element(By.CSS_SELECTOR, "#filter-menu summary").send_keys(Keys.ENTER)
    Select(page.find_element(By.ID, "filter-kind")).select_by_value("view")
    page.find_element(By.CSS_SELECTOR, "#add-filter [type=submit]").send_keys(Keys.ENTER)
    until(page, lambda: "box=" in page.current_url)
    until(page, lambda: not page.find_elements(By.CSS_SELECTOR, "[aria-busy]") and picks(page) != before)
    box = [float(part) for part in page.current_url.split("box=")[1].split("&")[0].replace("%2C", ",").split(",")]
    assert picks(page) == expected(client, patch=index.names_s2[0], filters={"box": box})


def test_an_address_shares_the_whole_state(page, client, address: str, index: Index) -> None:
    names = index.names_s2
    go(
        page,
        address,
        f"?patch={names[0]}&like={names[2]}&unlike={names[3]}&direction=s1_s2&k=10&colour=split&since=2000-01-01",
    )
    wanted = expected(client, patch=names[0], like=[names[2]], unlike=[names[3]], direction="s1_s2", k=10)
    assert found(page) == wanted
    assert Select(page.find_element(By.ID, "direction")).first_selected_option.text == "S1 → S2"
    assert Select(page.find_element(By.ID, "k")).first_selected_option.text == "10"
    assert Select(page.find_element(By.ID, "colour")).first_selected_option.text == "split"
    assert len(page.find_elements(By.CSS_SELECTOR, "#chips .filter")) == 1


def test_a_hostile_address_changes_nothing(page, address: str) -> None:
    go(
        page,
        address,
        "?k=1e99&direction=%3Cscript%3E&box=1,2,x,4&since=never&colour=none&shown=%3Cimg%20src=x%20onerror=alert(1)%3E",
    )
    assert page.find_element(By.ID, "begin").is_displayed()
    assert Select(page.find_element(By.ID, "k")).first_selected_option.text == "20"


@pytest.mark.parametrize("kind", ["csv", "geojson", "html"])
def test_exports_are_downloaded(page, address: str, index: Index, downloads: Path, kind: str) -> None:
    go(page, address, f"?patch={index.names_s2[0]}")
    names = found(page)
    page.find_element(By.CSS_SELECTOR, "#save-menu summary").click()
    page.find_element(By.CSS_SELECTOR, f"[data-export={kind}]").click()
    path = downloads / f"similar_patches.{kind}"
    until(page, path.is_file)
    assert all(name in path.read_text(encoding="utf-8") for name in names)


def test_marks_are_saved_and_loaded(page, client, address: str, index: Index, downloads: Path) -> None:
    names = index.names_s2
    go(page, address, f"?patch={names[0]}&like={names[2]}&unlike={names[3]}")
    marked = found(page)
    page.find_element(By.CSS_SELECTOR, "#save-menu summary").click()
    page.find_element(By.ID, "save-marks").click()
    until(page, (downloads / "marks.json").is_file)
    go(page, address)
    page.find_element(By.ID, "marks-file").send_keys(str(downloads / "marks.json"))
    assert found(page) == marked


def test_a_dot_under_the_pointer_marks_its_card(page, address: str, index: Index) -> None:
    go(page, address, f"?patch={index.names_s2[0]}")
    found(page)
    places = np.stack([index.catalogue.longitude, index.catalogue.latitude], axis=1).tolist()
    far = next(place for place in places if distances_km(index, place)[0] > 300)  # no dot of the query's is near
    ActionChains(page).move_to_element_with_offset(
        page.find_element(By.ID, "plane"), *pixel_of(page, index, far)
    ).perform()
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, ".card.pointed"))
    rank = page.find_element(By.CSS_SELECTOR, ".card.pointed .rank b").text
    assert f"result {rank}" in page.find_element(By.ID, "tip").text


def test_arrow_keys_move_between_cards(page, address: str, index: Index) -> None:
    go(page, address, f"?patch={index.names_s2[0]}")
    found(page)
    first, second = page.find_elements(By.CSS_SELECTOR, "#lists .pick")[:2]
    page.execute_script("arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_DOWN)
    assert page.switch_to.active_element == second
    second.send_keys(Keys.ENTER)
    until(page, lambda: page.find_element(By.CSS_SELECTOR, "article.query .name").text == second_name(index, page))


def second_name(index: Index, browser: Any) -> str:
    return browser.find_element(By.ID, "name").get_attribute("value")


def test_an_unknown_name_is_told_in_words(browser, address: str, index: Index) -> None:
    go(browser, address)
    type_name(browser, index.names_s2[0][:-1] + "x").send_keys(Keys.ENTER)
    problem = browser.find_element(By.ID, "problem")
    until(browser, problem.is_displayed)
    assert index.names_s2[0] in problem.text
    browser.get_log("browser")


def test_filters_that_nothing_passes_are_told(page, address: str, index: Index) -> None:
    go(page, address, f"?patch={index.names_s2[0]}&box=0,80,1,81")
    until(page, lambda: "remove a filter" in page.find_element(By.ID, "status").text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 1000, 360])
def test_nothing_is_wider_than_the_page(page, address: str, index: Index, width: int, scheme: str) -> None:
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    at_width(page, width)
    names = index.names_s2
    go(page, address, f"?patch={names[0]}&like={names[1]}&unlike={names[2]}&split=train&split=test&split=val")
    until(page, lambda: cards(page))
    page.execute_script("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    assert page.execute_script(TOO_WIDE) == []
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script(NAMELESS) == []


def test_text_has_contrast_in_both_schemes(page, address: str, index: Index) -> None:
    """At least 4.5 : 1 (WCAG 2.1, 1.4.3) between the text colours and what lies behind them."""
    for scheme in ("light", "dark"):
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        style = (
            "const style = getComputedStyle(document.documentElement);"
            "return arguments[0].map((name) => style.getPropertyValue(name).trim())"
        )
        names = ["--ink", "--muted", "--accent", "--warn", "--run-1", "--paper", "--card", "--soft"]
        values = dict(zip(names, page.execute_script(style, names), strict=True))
        for text in names[:5]:
            for ground in ("--card",) if text == "--run-1" else ("--paper", "--card"):
                assert contrast(values[text], values[ground]) >= 4.5, (scheme, text, ground)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
