"""The leaderboard in a real browser, opened from disk."""

import json

import chromium
import pytest
from page_runs import SCRIPT, row, write_run
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from bench.report.site.write_site import write_site

PHONE, DESKTOP = 390, 1280
LOSSES = {"b": 20.0, "a_model_with_a_long_name": 3.0, SCRIPT: 0.01}
# A column for each of the main metrics of the suite.
OTHERS = {
    "psnr": ("test", True, "dB", 20.0),
    "ssim": ("test", True, "1", 0.5),
    "fid": ("generated", False, "1", 123.4),
    "inception_score": ("generated", True, "1", 4.5),
    "fad": ("generated", False, "1", 70.0),
    "firing_rate": ("test", None, "1", 0.2),
    "energy": ("generated", False, "pJ per image", 3e7),
    "parameter_count": (None, False, "parameters", 1.2e6),
    "training_throughput": ("train", True, "images/s", 300.0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    rows = [
        row(name, seed, value=loss + seed / 9)
        for name, loss in LOSSES.items()
        for seed in (0, 1, 2)
    ]
    rows += [
        row("b", seed, metric, value * (1 + seed / 99), split=split, higher_is_better=up, unit=unit)
        for metric, (split, up, unit, value) in OTHERS.items()
        for seed in (0, 1, 2)
    ]
    rows += [row("b", dataset="mnist"), row("b", dataset="mnist", protocol="p" * 200)]
    run = write_run(base / "a_run_of_some_length", rows)
    for cell in run.glob("cells/*"):
        epochs = [{"losses": {"loss": 1 / n}, "images": 9, "seconds": 1} for n in (1, 2)]
        (cell / "training.json").write_text(json.dumps({"epochs": epochs}))
    out = base / "public"
    write_site([run, write_run(base / "gpu", [row("b", device="GPU")])], out)
    return out


@pytest.fixture
def opened(browser, folder):
    """Open a page of the site from disk at a width."""

    def open_page(page="index.html", fragment="", width=DESKTOP):
        for log in ("browser", "performance"):
            browser.get_log(log)
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get("about:blank")
        browser.get((folder / page).resolve().as_uri() + fragment)
        return browser

    return open_page


def pages(folder):
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.html"))]


def tabs(browser):
    return browser.find_elements(By.CSS_SELECTOR, "[data-tabs] a")


def panel(browser):
    (shown,) = [p for p in browser.find_elements(By.CSS_SELECTOR, ".panel") if p.is_displayed()]
    return shown


def names(browser):
    rows = panel(browser).find_elements(By.CSS_SELECTOR, "tbody tr")
    return [r.find_element(By.CSS_SELECTOR, "th a").text for r in rows if r.is_displayed()]


def test_pages_open_from_disk_without_error_or_request_and_pictures_load(opened, folder):
    loaded = {}
    for page in pages(folder):
        browser = opened(page)
        script = "return [...document.images].map(i => i.complete ? i.naturalWidth : 0)"
        loaded[page] = browser.execute_script(script)
        assert browser.get_log("browser") == [], page
        urls = [url for url in chromium.requests(browser) if not url.startswith("about:")]
        assert all(url.startswith("file://") for url in urls), page
        assert len(urls) == 1 + len(loaded[page])
    drawn = loaded["models/a_run_of_some_length-b.html"]
    assert len(drawn) >= 4  # Test images, reconstructions, samples and training curves.
    assert all(min(widths, default=1) > 0 for widths in loaded.values())


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_no_page_scrolls_sideways(opened, folder, width):
    for page in pages(folder):
        browser = opened(page, width=width)
        assert browser.execute_script("return innerWidth") == width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, page


def test_every_table_of_the_leaderboard_fits_a_desktop(opened):
    browser = opened()
    for tab in tabs(browser):
        tab.click()
        box = panel(browser).find_element(By.CSS_SELECTOR, ".scroll")
        widths = browser.execute_script(
            "return [arguments[0].scrollWidth, arguments[0].clientWidth]", box
        )
        assert widths[0] <= widths[1] > 1000


def test_on_a_phone_a_row_is_a_card(opened):
    browser = opened(width=PHONE)
    card = panel(browser).find_element(By.CSS_SELECTOR, "tbody tr")
    assert card.value_of_css_property("display") == "grid"
    right = "return Math.max(...[...arguments[0].cells].map(c => c.getBoundingClientRect().right))"
    assert browser.execute_script(right, card) <= PHONE
    run = card.find_elements(By.CSS_SELECTOR, "td")[0]
    label = "return getComputedStyle(arguments[0], '::before').content"
    assert browser.execute_script(label, run) == '"run"'


def test_tabs_have_roles_and_names_for_a_screen_reader(opened):
    browser = opened()
    strip = browser.find_element(By.CSS_SELECTOR, "[data-tabs]")
    assert strip.aria_role == "tablist"
    assert strip.accessible_name == "Protocols and datasets"
    assert [tab.aria_role for tab in tabs(browser)] == ["tab"] * 3
    first, second, third = (tab.accessible_name for tab in tabs(browser))
    assert first == "digits protocol smoke"
    assert second == "mnist protocol smoke"
    assert third.startswith("mnist protocol ppp")
    shown = panel(browser)
    assert (shown.aria_role, shown.accessible_name) == ("tabpanel", first)
    states = [tab.get_attribute("aria-selected") for tab in tabs(browser)]
    assert states == ["true", "false", "false"]
    assert tabs(browser)[0].get_attribute("aria-controls") == shown.get_attribute("id")


def test_tables_have_roles_and_names_for_a_screen_reader(opened):
    browser = opened()
    shown = panel(browser)
    table = shown.find_element(By.TAG_NAME, "table")
    assert table.aria_role == "table"
    assert "95 % interval" in table.accessible_name
    heading = shown.find_element(By.CSS_SELECTOR, "thead th")
    assert heading.aria_role == "columnheader"
    button = heading.find_element(By.TAG_NAME, "button")
    assert (button.aria_role, button.accessible_name) == ("button", "model")
    assert shown.find_element(By.CSS_SELECTOR, "tbody th").aria_role == "rowheader"
    field = shown.find_element(By.CSS_SELECTOR, "input")
    assert (field.aria_role, field.accessible_name.strip()) == ("searchbox", "Filter rows")
    assert shown.find_element(By.CSS_SELECTOR, ".shown").aria_role == "status"


def test_tabs_are_chosen_by_keyboard(opened):
    browser = opened()
    tabs(browser)[0].click()
    ids = [tab.get_attribute("aria-controls") for tab in tabs(browser)]
    for key, chosen in (
        (Keys.ARROW_RIGHT, 1),
        (Keys.END, 2),
        (Keys.ARROW_RIGHT, 0),
        (Keys.ARROW_LEFT, 2),
        (Keys.HOME, 0),
    ):
        browser.switch_to.active_element.send_keys(key)
        assert browser.switch_to.active_element.get_attribute("aria-controls") == ids[chosen]
        assert panel(browser).get_attribute("id") == ids[chosen]
        assert browser.current_url.endswith(f"#{ids[chosen]}")
        assert [tab.get_attribute("tabindex") for tab in tabs(browser)].count("0") == 1
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == ids[0]


def test_a_fragment_opens_its_tab(opened):
    wanted = opened().find_elements(By.CSS_SELECTOR, ".panel")[1].get_attribute("id")
    browser = opened(fragment=f"#{wanted}")
    assert panel(browser).get_attribute("id") == wanted
    browser.execute_script("location.hash = '#digits-protocol-smoke-table'")
    assert panel(browser).get_attribute("id") == "digits-protocol-smoke"
    assert panel(opened(fragment="#nowhere")).get_attribute("id") == "digits-protocol-smoke"


def test_without_javascript_all_panels_are_there(opened, browser):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened()
        shown = browser.find_elements(By.CSS_SELECTOR, ".panel")
        assert len(shown) == 3
        assert all(each.is_displayed() for each in shown)
        assert not any(
            button.is_displayed() for button in browser.find_elements(By.TAG_NAME, "button")
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_rows_are_sorted_and_filtered_by_keyboard(opened):
    browser = opened()
    headings = panel(browser).find_elements(By.CSS_SELECTOR, "thead th")
    loss = next(h for h in headings if h.text.startswith("reconstruction"))
    button = loss.find_element(By.TAG_NAME, "button")
    before = names(browser)
    assert set(before) == {*LOSSES}
    button.send_keys(Keys.ENTER)
    assert loss.get_attribute("aria-sort") == "ascending"
    upwards = names(browser)
    assert upwards[0] == SCRIPT
    assert upwards[-1] == "b"
    button.send_keys(Keys.SPACE)
    assert loss.get_attribute("aria-sort") == "descending"
    assert names(browser)[-1] == SCRIPT
    field = panel(browser).find_element(By.CSS_SELECTOR, "input")
    field.send_keys("GPU")
    assert names(browser) == ["b"]
    assert panel(browser).find_element(By.CSS_SELECTOR, ".shown").text == "1 of 4 rows"


def test_a_model_leads_to_its_page_and_back(opened, folder):
    browser = opened()
    link = next(
        a for a in panel(browser).find_elements(By.CSS_SELECTOR, "tbody th a") if a.text == SCRIPT
    )
    link.click()
    assert browser.find_element(By.TAG_NAME, "h1").text == SCRIPT
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 1
    browser.find_element(By.PARTIAL_LINK_TEXT, "Leaderboard").click()
    assert browser.current_url == (folder / "index.html").as_uri() + "#digits-protocol-smoke"


def test_the_command_is_copied(opened):
    browser = opened("models/a_run_of_some_length-b.html")
    button = browser.find_element(By.CSS_SELECTOR, "[data-copy]")
    assert (button.aria_role, button.accessible_name) == ("button", "Copy")
    button.send_keys(Keys.ENTER)
    status = browser.find_element(By.CSS_SELECTOR, ".command [role=status]")
    WebDriverWait(browser, 10).until(lambda _: status.text)
    assert status.text.startswith(("Copied", "Selected"))
    if status.text.startswith("Selected"):
        selected = browser.execute_script("return getSelection().toString()")
        assert selected.startswith("bench run --models b ")
