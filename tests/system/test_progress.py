"""The lines that tell how far a run is."""

import io
import re

import pytest
from rich.console import Console

from bench.system import progress
from bench.system.progress import LineReporter


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test moves on itself."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("period", [1, 50])
@pytest.mark.parametrize("before", [0, 300])
def test_the_time_left_is_that_of_the_batches_left(period, before, clock):
    """On a GPU every fiftieth batch is reported; a resumed training begins in its middle."""
    told = io.StringIO()
    work = LineReporter(Console(file=told, width=200)).started(1, 1, "cell")
    clock[0] += 90  # Loading, compiling, and what else is done once.
    for done in range(before + period, 901, period):
        clock[0] += 2.0 * period
        epoch, batch = divmod(done - 1, 300)
        work.trained_batch(epoch, 3, batch, 300, {"loss": 0.5})
    lines = told.getvalue().splitlines()
    assert "left" not in lines[0]
    for line in lines[1:]:
        epoch, batch, minutes, seconds = map(
            int, re.search(r"epoch (\d)/3 batch (\d+)/300 .* (\d+):(\d+) of", line).groups()
        )
        assert 60 * minutes + seconds == 2 * (900 - 300 * (epoch - 1) - batch)
    assert len(lines) > 2
