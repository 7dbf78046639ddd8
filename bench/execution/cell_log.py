"""The log of a cell: its events, with their times."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.store.schema import LOG_FILE
from bench.system.checksums import writing

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def cell_log(folder: Path) -> Iterator[None]:
    """Append messages of the suite, and warnings of any library, to the folder's ``cell.log``."""
    with writing(folder / LOG_FILE):
        folder.mkdir(parents=True, exist_ok=True)
        handler = _Handler(folder / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    root, suite = logging.getLogger(), logging.getLogger("bench")
    level = suite.level
    root.addHandler(handler)
    suite.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        suite.setLevel(level)
        root.removeHandler(handler)
        handler.close()


class _Handler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore write errors: writing the cell's other files reports them."""
