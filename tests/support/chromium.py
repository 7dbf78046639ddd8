"""A real browser: headless Chromium, which Debian has as ``chromium``."""

import json
import os
import shutil
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WITHOUT = "BENCH_WITHOUT_BROWSER"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


@contextmanager
def started():
    """A browser that logs its errors and its requests."""
    if os.environ.get(WITHOUT) == "1":
        pytest.skip(f"{WITHOUT}=1")
    programs = [_program("chromium", "chromium-browser"), _program("chromedriver")]
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    yield driver
    driver.quit()


def requests(browser):
    """The addresses that the browser has asked for since the log was last read."""
    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [event["request"]["url"] for event in sent]


def _program(*names):
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail(
            f"no {names[0]} here: apt-get install chromium chromium-driver, "
            f"or leave these tests out with {WITHOUT}=1",
            pytrace=False,
        )
    return found
