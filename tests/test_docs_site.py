"""The site that ``tox -e docs`` builds, in a real browser, opened from disk."""

from pathlib import Path

import chromium
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

SITE = Path(__file__).parents[1] / "build" / "site"

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not SITE.is_dir(), reason="tox -e docs builds the site"),
]


@pytest.fixture(scope="module")
def browser():
    with chromium.started() as driver:
        driver.set_window_size(1280, 900)
        yield driver


@pytest.mark.parametrize("page", ["index", "glossary", "api"])
def test_a_page_opens_without_error_or_request_of_the_network(browser, page):
    browser.get((SITE / f"{page}.html").as_uri())
    assert browser.find_element(By.TAG_NAME, "h1").is_displayed()
    assert browser.get_log("browser") == []
    urls = chromium.requests(browser)
    assert urls[0].startswith("file://")
    assert [url for url in urls if not url.startswith(("file:", "data:", "about:"))] == []


def test_the_search_finds_a_word_of_a_docstring_and_of_the_glossary(browser):
    browser.get((SITE / "index.html").as_uri())
    field = browser.find_element(By.CLASS_NAME, "md-search__input")
    WebDriverWait(browser, 60).until(lambda _: field.is_displayed() and field.is_enabled())
    field.send_keys("surrogate")

    def found(_):
        titles = browser.find_elements(By.CSS_SELECTOR, ".md-search-result__item h1")
        return {"API", "Glossary"} <= {title.text for title in titles}

    WebDriverWait(browser, 60).until(found)
