"""The report in a real browser."""

import chromium
import pytest
from page_runs import ODD, SCRIPT, failed, row, write_run
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from bench.report.page.write import write_html

VALUES = {"b": 20.0, "a": 3.0, SCRIPT: 0.01, ODD: -1.0}
PHONE, DESKTOP = 375, 1280


@pytest.fixture(scope="module")
def made_page(tmp_path_factory):
    rows = [row(name, i, value=value) for name, value in VALUES.items() for i in (0, 1)]
    rows += [failed("RuntimeError: " + "no luck " * 60, model="z", metric="reconstruction_loss")]
    rows += [row("long" * 30, metric="m" * 80, dataset="d" * 90, protocol="p" * 200, n=1)]
    return write_html(write_run(tmp_path_factory.mktemp("made") / "run", rows))


@pytest.fixture
def opened(browser):
    """Open a page from disk at a width."""

    def open_page(page, width=DESKTOP, scheme="light"):
        for log in ("browser", "performance"):
            browser.get_log(log)
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(page.resolve().as_uri())
        return browser

    return open_page


def names(browser):
    """The first column of the headline table, as it is shown."""
    rows = browser.find_elements(By.CSS_SELECTOR, "#models-1 tbody tr")
    shown = [r.find_element(By.TAG_NAME, "th").text for r in rows if r.is_displayed()]
    return [text.splitlines()[0] for text in shown]


def heading(browser, text):
    headings = browser.find_elements(By.CSS_SELECTOR, "#models-1 thead th")
    return next(h for h in headings if h.text.startswith(text))


@pytest.mark.parametrize("page", ["made_page", "tiny_page"])
def test_opens_from_disk_without_error_or_request(opened, request, page):
    browser = opened(request.getfixturevalue(page))
    assert browser.get_log("browser") == []
    urls = chromium.requests(browser)
    assert urls[0].startswith("file://")
    assert all(url.startswith("data:") for url in urls[1:])


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("page", ["made_page", "tiny_page"])
def test_the_page_never_scrolls_sideways(opened, request, page, width):
    browser = opened(request.getfixturevalue(page), width)
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wider = """return [...document.querySelectorAll("table")].every(
        t => t.closest(".scroll").getBoundingClientRect().right <= innerWidth)"""
    assert browser.execute_script(wider)


@pytest.mark.parametrize("page", ["made_page", "tiny_page"])
def test_the_table_of_models_fits_a_desktop_without_a_scrollbar(opened, request, page):
    browser = opened(request.getfixturevalue(page), DESKTOP)
    widths = browser.execute_script(
        """return [...document.querySelectorAll(".narrow .scroll")].map(
            s => [s.scrollWidth, s.clientWidth])"""
    )
    assert widths
    assert all(content <= box for content, box in widths)


@pytest.mark.parametrize("page", ["made_page", "tiny_page"])
def test_on_a_phone_each_model_is_a_card_that_is_still_a_table_row(opened, request, page):
    browser = opened(request.getfixturevalue(page), PHONE)
    cards = browser.execute_script(
        """return [...document.querySelectorAll(".narrow tbody tr")].map(row => ({
            name: row.cells[0].innerText, roles: [...row.cells].map(c => c.getAttribute("role")),
            right: Math.max(...[...row.cells].map(c => c.getBoundingClientRect().right)),
            heading: getComputedStyle(row.cells[1], "::before").content,
            layout: getComputedStyle(row).display}))"""
    )
    assert cards
    for card in cards:
        assert card["name"]
        assert card["layout"] == "grid"
        assert card["right"] <= PHONE
        assert "seeds" in card["heading"]
        assert set(card["roles"]) == {"rowheader", "cell"}


@pytest.mark.parametrize("page", ["made_page", "tiny_page"])
def test_every_image_has_loaded(opened, request, page):
    browser = opened(request.getfixturevalue(page))
    script = "return [...document.images].map(i => i.complete ? i.naturalWidth : 0)"
    widths = browser.execute_script(script)
    assert len(widths) > 3
    assert min(widths) > 0


def test_a_model_named_like_a_script_is_text(opened, made_page):
    browser = opened(made_page)
    assert SCRIPT in names(browser)
    assert ODD in names(browser)
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 1


@pytest.mark.parametrize("press", [lambda b: b.click(), lambda b: b.send_keys(Keys.ENTER)])
def test_numbers_sort_as_numbers_in_both_directions(opened, made_page, press):
    browser = opened(made_page)
    loss = heading(browser, "reconstruction loss")
    button = loss.find_element(By.TAG_NAME, "button")
    assert loss.get_attribute("aria-sort") == "none"
    upwards = sorted(VALUES, key=VALUES.get)
    press(button)
    assert loss.get_attribute("aria-sort") == "ascending"
    assert names(browser) == [*upwards, "z"]
    press(button)
    assert loss.get_attribute("aria-sort") == "descending"
    assert names(browser) == [*upwards[::-1], "z"]


def test_words_sort_as_words_and_only_one_column_is_marked(opened, made_page):
    browser = opened(made_page)
    heading(browser, "reconstruction loss").find_element(By.TAG_NAME, "button").click()
    heading(browser, "model").find_element(By.TAG_NAME, "button").click()
    shown = names(browser)
    assert shown.index("a") < shown.index("b") < shown.index("z")
    headings = browser.find_elements(By.CSS_SELECTOR, "#models-1 thead th")
    assert [h.get_attribute("aria-sort") for h in headings].count("none") == len(headings) - 1


def test_headings_are_reached_by_keyboard(opened, made_page):
    browser = opened(made_page)
    browser.find_element(By.CSS_SELECTOR, "#models-1").parent.execute_script(
        "document.querySelector('[aria-controls=models-1]').focus()"
    )
    browser.switch_to.active_element.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert (focused.tag_name, focused.text) == ("button", "model")
    outline = focused.value_of_css_property("outline-style")
    assert outline == "solid"


def test_the_filter_keeps_rows_that_have_every_word(opened, made_page):
    browser = opened(made_page)
    field = browser.find_element(By.CSS_SELECTOR, "[aria-controls=models-1]")
    field.send_keys("SCRIPT torch")
    assert names(browser) == [SCRIPT]
    status = browser.find_element(By.CSS_SELECTOR, "#summary [role=status]")
    assert status.text == "1 of 5 rows"
    field.clear()
    field.send_keys("nothing like it")
    assert names(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(opened, made_page, scheme):
    browser = opened(made_page, scheme=scheme)
    style = "return getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"

    def colour(name):
        return browser.execute_script(style.format(name))

    pairs = [("text", "page"), ("soft", "page"), ("soft", "card"), ("link", "page")]
    pairs += [("warn", "warn-back"), ("bad", "bad-back"), ("mark", "mark-back"), ("text", "head")]
    for text, ground in pairs:
        assert contrast(colour(text), colour(ground)) >= 4.5, (text, ground)


def contrast(one, other):
    """The contrast ratio of WCAG 2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
