import chromium
import pytest

from bench.report.page.write import write_html


@pytest.fixture(scope="session")
def tiny_page(tiny_run, tmp_path_factory):
    """The page of the tiny run, alone in a new folder; read it, do not change it."""
    out = tmp_path_factory.mktemp("page") / "sub" / "page.html"
    assert write_html(tiny_run[0], out) == out
    return out


@pytest.fixture(scope="module")
def browser():
    """A real browser."""
    with chromium.started() as driver:
        yield driver
