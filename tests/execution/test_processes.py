import re
import signal
import time

import commands
import pytest
from rows import reproducible
from tiny import FEW_METRICS

import bench
from bench.store.inspection import inspect
from bench.system.progress import Reporter, WorkReporter

TRAINING = ("esvae fused .* epoch 1/5000", "esvae reference .* epoch 1/5000")
KILLED = '''
import os
import signal

from toys import Steady


class Killed(Steady):
    """Its process is killed in training, as for want of memory, unless the variable says no."""

    def training_step(self, images, step):
        if "SPARED" not in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(images, step)
'''


@pytest.fixture
def site(plugins, tmp_path):
    models = {"steady": "toys:Steady", "killed": "plugin_killed:Killed"}
    plugins("plugin_killed", KILLED, models=models)
    return tmp_path / "site"


def rows_of(out):
    return reproducible(bench.load_results(out))


@pytest.mark.full
def test_worker_processes_give_the_rows_of_a_serial_run(bench_cli, tiny_flags, tmp_path):
    flags = ["run", "--models", "ann_vae,esvae", "--backends", "fused,reference", *tiny_flags,
             "--metrics", FEW_METRICS]  # fmt: skip
    code, _, err = bench_cli(*flags, "--out", tmp_path / "serial")
    assert code == 0, err
    code, out, err = commands.run(*flags, "--jobs", "2", "--out", tmp_path / "parallel")
    assert code == 0, err
    assert rows_of(tmp_path / "parallel").equals(rows_of(tmp_path / "serial"))
    ended = re.findall(r"^\[\d/6\] (\w+ \w+) digits .* seed 0: ok in", out, re.MULTILINE)
    assert sorted(ended) == [
        "ann_vae torch", "esvae fused", "esvae reference", "fad_autoencoder torch",
        "pixel_noise torch", "real_images torch",
    ]  # fmt: skip


@pytest.mark.full
def test_workers_do_not_take_a_folder_for_the_suite(tiny_flags, tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise SystemExit('not the suite')")
    monkeypatch.chdir(tmp_path)
    flags = ["run", "--models", "ann_vae", *tiny_flags, "--metrics", "psnr", "--jobs", "2",
             "--out", "run"]  # fmt: skip
    code, _, err = commands.run(*flags)
    assert code == 0, err


@pytest.mark.full
def test_a_killed_worker_fails_its_cell_alone_and_it_can_be_retried(
    site, bench_cli, tiny_flags, tmp_path, monkeypatch
):
    flags = ["run", "--models", "killed,steady,ann_vae", *tiny_flags, "--metrics", FEW_METRICS,
             "--jobs", "2", "--out", tmp_path / "run"]  # fmt: skip
    code, out, err = commands.run(*flags, paths=[site])
    assert (code, err) == (1, "")
    rows = bench.load_results(tmp_path / "run").query("status != 'not_asked'")
    killed = rows["model"] == "killed"
    assert set(rows[killed]["status"]) == {"failed"}
    reason = "the worker process was killed by SIGKILL, as the system does when memory runs out"
    assert set(rows[killed]["reason"]) == {reason}
    assert "failed" not in set(rows[~killed]["status"])
    models = {"killed", "steady", "ann_vae"}
    assert set(rows["model"]) == {*models, "fad_autoencoder", "real_images", "pixel_noise"}

    monkeypatch.setenv("SPARED", "1")
    code, out, err = commands.run(*flags, "--retry", "failed", paths=[site])
    assert (code, err) == (0, "")
    assert len(re.findall(r"ok in", out)) == 1
    assert "failed" not in set(bench.load_results(tmp_path / "run")["status"])
    code, out, _ = bench_cli(*flags, "--retry", "failed")
    assert (code, out) == (0, f"Nothing failed in {tmp_path / 'run'}.\n")


@pytest.mark.full
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_has_every_worker_save(number, code, tiny_flags, tmp_path):
    flags = ["run", "--models", "esvae", "--backends", "fused,reference", *tiny_flags,
             "--set", "epochs=5000", "--jobs", "2"]  # fmt: skip
    out = tmp_path / "run"
    with commands.started(*flags, "--out", out) as process:
        commands.wait_for_lines(process, *TRAINING)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert len(re.findall(r"esvae \w+ digits .*? seed 0: epoch \d+ of 5000, batch", err)) == 2
    assert len(list(out.glob("cells/esvae*/checkpoint.pt"))) == 2


@pytest.mark.full
def test_workers_save_and_end_when_the_command_is_killed(tiny_flags, tmp_path):
    flags = ["run", "--models", "esvae", "--backends", "fused,reference", *tiny_flags,
             "--set", "epochs=5000", "--jobs", "2"]  # fmt: skip
    out = tmp_path / "run"
    with commands.started(*flags, "--out", out) as process:
        commands.wait_for_lines(process, *TRAINING)
        process.kill()
        deadline = time.monotonic() + 60
        while len(list(out.glob("cells/esvae*/checkpoint.pt"))) < 2 or worked_on(out):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def worked_on(out):
    return [found for found in inspect(out) if "is in use" in found.what]


@pytest.mark.full
def test_two_commands_share_the_cells(bench_cli, tiny_flags, tmp_path):
    out = tmp_path / "run"
    flags = ["run", "--models", "ann_vae", "--seeds", "0,1,2,3", *tiny_flags,
             "--metrics", FEW_METRICS, "--out", out]  # fmt: skip
    with commands.started(*flags) as one, commands.started(*flags) as other:
        outputs = [process.communicate(timeout=commands.PATIENCE) for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), outputs
    done = [set(re.findall(r"(\w+ \w+ digits) .* (seed \d): ok in", text)) for text, _ in outputs]
    assert not done[0] & done[1]
    assert len(done[0] | done[1]) == 7  # four seeds, the autoencoder, real images and noise
    whole = tmp_path / "whole"
    code, _, err = bench_cli(*flags[:-2], "--out", whole)
    assert code == 0, err
    assert rows_of(out).equals(rows_of(whole))


def test_a_lock_that_a_dead_process_left_stops_nobody(tiny_flags, tmp_path):
    out = tmp_path / "run"
    flags = ["run", "--models", "ann_vae", *tiny_flags, "--set", "epochs=3000", "--out", out]
    with commands.started(*flags, "--checkpoint-every", "0.1s") as process:
        commands.wait_for(lambda: list(out.glob("cells/ann_vae*/checkpoint.pt")), process)
        process.kill()
    assert list(out.glob(".locks/*.lock"))
    with commands.started(*flags) as process:
        (log,) = out.glob("cells/ann_vae*/cell.log")
        commands.wait_for(lambda: "going on from" in log.read_text(), process, patience=60)


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "2"])
def test_a_number_of_jobs_that_makes_no_sense_is_refused(jobs, tmp_path):
    with pytest.raises(bench.BenchError, match="Jobs: expected a whole number from 1"):
        bench.run("ann_vae", out=tmp_path / "run", jobs=jobs)


@pytest.mark.full
def test_by_default_as_many_cells_run_at_a_time_as_there_are_cpus(
    tiny_flags, tmp_path, monkeypatch
):
    flags = ["run", "--models", "esvae", "--backends", "fused,reference", *tiny_flags,
             "--set", "epochs=5000", "--out", tmp_path / "run"]  # fmt: skip
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    with commands.started(*flags) as process:
        commands.wait_for_lines(process, *TRAINING)


class Begun(Reporter):
    """The cells in the order in which they begin."""

    def __init__(self):
        self.cells = []

    def started(self, index, total, cell):
        self.cells.append((index, cell.split()[0]))
        return WorkReporter()


@pytest.mark.full
def test_models_that_train_longest_begin(tiny, tmp_path):
    protocol = tmp_path / "longer.toml"
    text = "".join(f"{setting}\n" for setting in tiny if not setting.startswith("models."))
    text += "learning_rate = 1e-3\n[[overrides]]\nmodels = ['taid']\nset = { epochs = 3 }\n"
    protocol.write_text(text)
    begun = Begun()
    models = "ann_vae,esvae,taid"
    bench.run(
        models, protocol=protocol, metrics="fad", out=tmp_path / "run", jobs=2, reporter=begun
    )
    cells = ["fad_autoencoder", "real_images", "pixel_noise", "taid", "ann_vae", "esvae"]
    assert sorted(begun.cells) == list(enumerate(cells, 1))
