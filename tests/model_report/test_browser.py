"""The page in a real browser: no errors, the map's slider, legend and keys work, the page is seen."""

from __future__ import annotations

import shutil
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_common import map_panel, model_report

from geopsp.core.legend import Legend
from geopsp.core.pictures import jpeg_of_colors, png_of_classes
from geopsp.model_report.report_page import report_page

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium's
]

LEGEND = Legend.from_names({0: "field", 1: "water"}, {0: "#e3c44b", 1: "#2b6cb0"})

WIDTH, HEIGHT = 300, 200


def panel():
    """Fields in the west, water in the east, on a grey image."""
    indices = np.zeros((HEIGHT, WIDTH), np.uint8)
    indices[:, WIDTH // 2 :], indices[:20] = 1, 255
    degrees = [[[10 + x / 16, 48 - y / 16] for x in range(17)] for y in range(17)]
    return replace(
        map_panel(LEGEND), width=WIDTH, height=HEIGHT, picture=png_of_classes(indices, LEGEND),
        image=jpeg_of_colors(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)),
        geometry=f'{{"transform": [2, 0, 600000, 0, -2, 5300000], "degrees": {degrees}}}',
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    page = folder / "report.html"
    page.write_text(report_page(model_report(LEGEND, panel=panel())), encoding="utf-8")
    driver.page = page
    yield driver
    driver.quit()


@pytest.fixture
def page(browser):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]  # a screenshot does not wait for a smooth scroll
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": still})
    browser.get(browser.page.as_uri())
    browser.get_log("browser")
    return browser


def script(page, code):
    return page.execute_script(f"return {code}")


def screenshot(page, element=None):
    if element:
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    content = element.screenshot_as_png if element else page.get_screenshot_as_png()
    return np.array(Image.open(BytesIO(content)).convert("RGB")).astype(int)


def is_color(pixel, color):
    return np.abs(pixel - np.array(tuple(bytes.fromhex(color[1:])))).max() <= 3


def view_of(page):
    return page.find_element("id", "map-view")


def middle(picture, x, y):
    return picture[int(y * picture.shape[0]), int(x * picture.shape[1])]


def set_range(page, name, value):
    page.execute_script(
        f"const e = document.getElementById('{name}'); e.value = {value}; e.dispatchEvent(new Event('input'))"
    )


def test_the_slider_divides_map_and_image(page):
    before = screenshot(page, view_of(page))
    assert is_color(middle(before, 0.75, 0.5), "#2b6cb0")
    assert is_color(middle(before, 0.25, 0.5), "#5a5a5a")
    set_range(page, "map-swipe", 0)
    assert is_color(middle(screenshot(page, view_of(page)), 0.25, 0.5), "#e3c44b")
    set_range(page, "map-swipe", 100)
    assert is_color(middle(screenshot(page, view_of(page)), 0.75, 0.5), "#5a5a5a")
    assert "100 %" in script(page, "document.getElementById('map-swipe').getAttribute('aria-valuetext')")
    set_range(page, "map-swipe", 0)
    set_range(page, "map-opacity", 0)
    assert is_color(middle(screenshot(page, view_of(page)), 0.75, 0.5), "#5a5a5a")
    assert page.get_log("browser") == []


def test_the_legend_hides_classes(page):
    set_range(page, "map-swipe", 0)
    water = page.find_element("css selector", "#map-legend input[value='1']")
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", water)
    water.send_keys(" ")
    shown = screenshot(page, view_of(page))
    assert is_color(middle(shown, 0.75, 0.5), "#5a5a5a")
    assert is_color(middle(shown, 0.25, 0.5), "#e3c44b")
    assert is_color(middle(shown, 0.25, 0.05), "#5a5a5a")  # unlabelled
    button = page.find_element("id", "map-none")
    page.execute_script("arguments[0].click()", button)
    assert button.text == "Show all"
    assert is_color(middle(screenshot(page, view_of(page)), 0.25, 0.5), "#5a5a5a")
    page.execute_script("arguments[0].click()", button)
    assert is_color(middle(screenshot(page, view_of(page)), 0.75, 0.5), "#2b6cb0")


def test_the_map_follows_the_keyboard(page):
    view = view_of(page)
    page.execute_script("arguments[0].focus()", view)
    where = "document.getElementById('map-layers').style.transform"
    told = "document.getElementById('map-position').textContent"
    view.send_keys("+", "+", "+")
    assert "scale(3.375)" in script(page, where)
    assert script(page, told) == "600300.0, 5299800.0 (EPSG:32632) · 47.50000° N, 10.50000° E · water"
    before = script(page, where)
    from selenium.webdriver.common.keys import Keys

    for _ in range(9):
        view.send_keys(Keys.ARROW_LEFT)
    assert script(page, where) != before
    assert script(page, told).endswith("field")
    view.send_keys("[", "[")
    assert script(page, "document.getElementById('map-swipe').value") == "40"
    view.send_keys("0")
    assert script(page, where) == "translate(0px, 0px) scale(1)"
    assert page.get_log("browser") == []


def test_the_map_follows_the_pointer(page):
    from selenium.webdriver import ActionChains

    view = view_of(page)
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", view)
    ActionChains(page).move_to_element(view).perform()
    told = script(page, "document.getElementById('map-position').textContent")
    assert told.startswith("600")
    assert "(EPSG:32632)" in told
    page.find_element("id", "map-in").click()
    before = script(page, "document.getElementById('map-layers').style.transform")
    ActionChains(page).move_to_element_with_offset(view, -100, 0).click_and_hold().move_by_offset(
        -60, 0
    ).release().perform()
    assert script(page, "document.getElementById('map-layers').style.transform") != before


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_the_page_fits_and_is_seen(page, width, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert script(page, "document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    shown = screenshot(page)
    assert (shown.mean() > 128) == (scheme == "light")
    assert shown.std() > 10
    assert page.get_log("browser") == []


def test_a_page_prints_without_controls(page):
    pdf = b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not page.find_element("id", "map-controls").is_displayed()
    assert page.find_element("class name", "print-legend").is_displayed()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_nothing_is_asked_of_a_network(page):
    names = script(page, "performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith(("data:", "file:")) for name in names)
    assert Path(page.page).stat().st_size < 1e6
