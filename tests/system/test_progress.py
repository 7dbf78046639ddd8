"""What a run shows of its progress: lines, bars, or nothing."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

import bench
from bench import BenchError
from bench.system import progress
from bench.system.progress import LineReporter, reporting


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


def test_a_run_from_python_shows_its_progress_unless_it_is_to_be_silent(
    tiny, tmp_path, capsys, monkeypatch
):
    def printed(**reporter):
        asked = {"settings": tiny, "seeds": [0], "metrics": "reconstruction_loss"}
        bench.run("ann_vae", out=tmp_path / "run", **asked, **reporter)
        return capsys.readouterr()

    with pytest.raises(BenchError, match=r"Reporter 'bars': expected 'auto', None for silence"):
        printed(reporter="bars")
    assert not (tmp_path / "run").exists()
    lines = printed()
    assert lines.out == ""
    assert re.search(r"^\[1/1\] ann_vae.*: epoch 1/\d+ batch .* loss \d", lines.err, re.MULTILINE)
    assert re.search(r"^\[1/1\] ann_vae.*: ok in \d+:\d\d$", lines.err, re.MULTILINE)
    assert "\x1b[" not in lines.err
    assert printed(reporter=None) == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich takes any file for a terminal.
    bars = printed(reporter="auto")
    assert bars.out == ""
    assert "cells" in bars.err
    assert "\x1b[" in bars.err
    assert "already done in 0:00" in bars.err


@pytest.mark.parametrize("silence", [{"reporter": None}, {}])
def test_a_profile_and_scores_show_their_progress_too(silence, tiny, tmp_path, capsys):
    bench.profile("ann_vae", settings=tiny, batch_size=8, repeats=1, **silence)
    profiled = capsys.readouterr()
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32), np.uint8)
    asked = {"settings": tiny, "metrics": "vendi_score", "out": tmp_path, **silence}
    bench.score(images, name="noise", **asked)
    for printed in (profiled, capsys.readouterr()):
        assert printed.out == ""
        assert ("[1/" in printed.err) == (not silence)


def test_a_notebook_shows_bars_in_an_output_that_is_replaced(clock):
    """Rich's own bars need ipywidgets there; lines would be an output each."""
    shell = pytest.importorskip("IPython").core.interactiveshell.InteractiveShell.instance()
    capture = pytest.importorskip("IPython.utils.capture")
    console = Console(force_jupyter=True, width=200)
    with capture.capture_output() as captured, reporting(console) as reporter:
        work = reporter.started(1, 2, "mine")
        for batch in range(10):
            clock[0] += 0.3
            work.trained_batch(0, 1, batch, 10, {"loss": 0.25})
        work.ended("ok", 3.0)
    shell.clear_instance()
    shown = [output._repr_mimebundle_()[0] for output in captured.outputs]
    texts = [bundle["text/plain"] for bundle in shown]
    assert all("<pre" in bundle["text/html"] for bundle in shown)
    assert 3 <= sum("batch" in text for text in texts) <= 6
    assert sum("loss 0.2500" in text for text in texts) >= 3
    assert [text for text in texts if "mine: ok in 0:03" in text]
    assert "1/2" in texts[-1]
    assert not [output for output in captured.outputs if "widget" in str(output.data)]
