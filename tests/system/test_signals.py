"""A signal that comes where Python drops exceptions is heard later, not lost."""

import os
import signal

import pytest
from tiny import TINY

import bench
from bench.system.progress import Reporter, WorkReporter
from bench.system.signals import postponed, raise_unheard, terminable

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def send():
    os.kill(os.getpid(), signal.SIGTERM)


class Dropping:
    """Python drops what is raised in its finaliser, as in callbacks of the garbage collector."""

    def __del__(self):
        send()


class SendingOnce(Reporter):
    """Sends a signal when the first cell starts; keeps the titles of the cells that started."""

    def __init__(self):
        self.titles = []

    def started(self, index, count, title):
        if not self.titles:
            Dropping()
        self.titles.append(title)
        return WorkReporter()


def stopped(**asked):
    reporter = SendingOnce()
    with pytest.raises(KeyboardInterrupt) as stop:
        bench.run("ann_vae", seeds=range(3), settings=TINY, reporter=reporter, **asked)
    assert stop.value.signum == signal.SIGTERM
    return reporter.titles


def test_a_signal_dropped_in_a_run_stops_it_before_the_next_cell(tmp_path):
    asked = {"metrics": "psnr", "out": tmp_path / "run"}
    first = stopped(**asked)
    assert len(first) == 1
    rows = bench.run("ann_vae", seeds=range(3), settings=TINY, **asked)
    assert set(rows[rows["kind"] == "model"]["seed"]) == {0, 1, 2}
    assert stopped(metrics="psnr,ssim", out=tmp_path / "run") == first


def test_a_signal_dropped_before_or_within_a_postponing_block_is_in_its_request():
    with terminable():
        Dropping()
        with postponed() as stop:
            assert stop.signum == signal.SIGTERM
    with terminable(), postponed() as stop:
        with stop.at_once():
            Dropping()
        assert stop.signum == signal.SIGTERM


def test_a_signal_that_a_postponing_block_did_not_look_at_is_heard_after_it():
    with terminable():
        with postponed():
            send()
        with pytest.raises(KeyboardInterrupt) as stop:
            raise_unheard()
    assert stop.value.signum == signal.SIGTERM


def test_without_a_signal_nothing_is_raised():
    raise_unheard()
    with terminable():
        raise_unheard()
        with postponed() as stop:
            raise_unheard()
        assert stop.signum is None
        raise_unheard()
