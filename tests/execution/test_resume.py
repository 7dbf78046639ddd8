import io
import os
import random
import re
import signal
import time

import commands
import pytest
import torch
from rows import reproducible
from tiny import TINY

import bench
from bench import BenchError
from bench.model import Step
from bench.protocol import load_protocol

SCHEDULED = '''
import torch
from toys import Steady


class Scheduled(Steady):
    """A linear map with momentum, a schedule, noise from the global generator, and a counter."""

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.optimizer = torch.optim.SGD([self.image], lr=0.5, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3)
        self.seen = 0

    def training_state(self):
        return {**super().training_state(), "seen": self.seen}

    def load_training_state(self, state):
        state = dict(state)
        self.seen = state.pop("seen")
        super().load_training_state(state)

    def training_step(self, images, step):
        self.seen += 1
        target = images.mean(0) + torch.randn_like(self.image) / (1 + self.seen)
        loss = (torch.tanh(self.image) - target).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return {"loss": loss.item()}


class Stages(Steady):
    """Two optimisers in a list, and their schedules in a dictionary of tuples."""

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.optimizers = [
            torch.optim.SGD([self.image], lr=0.5, momentum=0.9),
            torch.optim.Adam([self.image], lr=0.1),
        ]
        self.schedules = {
            "all": tuple(torch.optim.lr_scheduler.StepLR(o, 2) for o in self.optimizers)
        }

    def training_step(self, images, step):
        for optimizer, schedule in zip(self.optimizers, self.schedules["all"]):
            loss = (torch.tanh(self.image) - images.mean(0)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return {"loss": loss.item()}


class Unwritable(Scheduled):
    """Its training state is no data."""

    def training_state(self):
        return {"seen": object()}
'''


@pytest.fixture
def scheduled(plugins, tmp_path):
    models = {
        name.lower(): f"plugin_resume:{name}" for name in ("Scheduled", "Stages", "Unwritable")
    }
    plugins("plugin_resume", SCHEDULED, models=models)
    return tmp_path / "site"


def rows_of(out):
    return reproducible(bench.load_results(out))


def flags_for(model, backend, tiny_flags, *settings):
    options = [part for setting in settings for part in ("--set", setting)]
    # Of reconstructions, of features and of recorded activity: all depend on every weight.
    options += ["--metrics", "psnr,fad,firing_rate"]
    return ["run", "--models", model, "--backends", backend, *tiny_flags, *options]


@pytest.mark.full
@pytest.mark.parametrize(
    ("model", "backend", "settings"),
    [
        ("esvae", "fused", ["epochs=10", "epoch_selection=best_test_loss"]),
        ("scheduled", "reference", ["epochs=1200"]),
        ("ann_vae", "reference", ["epochs=20", "horizontal_flip=train"]),
        ("fsvae", "snntorch", ["epochs=6", "epoch_selection=best_per_metric"]),
    ],
)
def test_a_killed_training_goes_on_to_the_same_rows(
    model, backend, settings, scheduled, bench_cli, tiny_flags, tmp_path
):
    flags = flags_for(model, backend, tiny_flags, *settings)
    code, _, err = bench_cli(*flags, "--out", tmp_path / "whole")
    assert code == 0, err
    out = tmp_path / "killed"
    again = [*flags, "--checkpoint-every", "0.05s", "--out", out]
    with commands.started(*again, paths=[scheduled]) as process:
        commands.wait_for(lambda: list(out.glob(f"cells/{model}*/checkpoint.pt")), process)
        time.sleep(random.random() / 5)
        process.send_signal(signal.SIGKILL)
    assert not list(out.glob(f"cells/{model}*/training.json")), "killed too late"
    code, _, err = bench_cli(*again)
    assert code == 0, err
    (log,) = out.glob(f"cells/{model}*/cell.log")
    assert re.search(r"going on from epoch \d+ of \d+, batch \d of 4", log.read_text())
    assert not list(out.glob("cells/*/checkpoint.pt"))
    assert rows_of(out).equals(rows_of(tmp_path / "whole"))


def test_optimisers_in_containers_go_on_where_they_were(scheduled):
    model_class = bench.registry.models.load("stages")
    protocol = load_protocol("smoke", TINY).resolve("stages", "digits")
    draws = torch.Generator().manual_seed(0)
    batches = torch.rand((6, 4, 1, 32, 32), generator=draws) * 2 - 1

    def built():
        torch.manual_seed(1)
        return model_class((1, 32, 32), protocol, None)

    straight = built()
    for batch in batches:
        straight.training_step(batch, Step(0.5, 6))
    first, resumed = built(), built()
    for batch in batches[:3]:
        first.training_step(batch, Step(0.5, 6))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "training": first.training_state()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert set(state["training"]) == {"optimizers", "schedules"}
    resumed.load_state_dict(state["model"])
    resumed.load_training_state(state["training"])
    for batch in batches[3:]:
        resumed.training_step(batch, Step(0.5, 6))
    assert torch.equal(resumed.image, straight.image)


@pytest.mark.full
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_rows(tiny_flags, tmp_path):
    flags = flags_for("esvae,ann_vae", "fused", tiny_flags, "epochs=3")
    code, _, err = commands.run(*flags, "--out", tmp_path / "whole")
    assert code == 0, err
    out, draws = tmp_path / "killed", random.Random(0)
    again = [*flags, "--checkpoint-every", "0.1s", "--out", out]
    for _ in range(8):
        with commands.started(*again) as process:
            commands.wait_for(lambda: (out / "run.json").exists(), process)
            time.sleep(2 + 6 * draws.random())
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
    code, _, err = commands.run(*again)
    assert code == 0, err
    assert rows_of(out).equals(rows_of(tmp_path / "whole"))
    assert not [path for path in out.rglob(".*") if len(path.name) > 32]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_within_seconds_saves_and_says_how_to_go_on(
    number, code, tiny_flags, tmp_path
):
    out = tmp_path / "run"
    flags = flags_for("esvae", "fused", tiny_flags, "epochs=400")
    with commands.started(*flags, "--out", out) as process:
        commands.wait_for_lines(process, "esvae fused digits .* epoch 1/400")
        asked = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert time.monotonic() - asked < 20
    assert process.returncode == code
    assert re.fullmatch(
        r"Interrupted. A checkpoint is at epoch \d+ of 400, batch \d of 4. Finished cells are "
        r"kept; the same command again runs the rest.",
        err.strip(),
    )
    (checkpoint,) = out.glob("cells/esvae*/checkpoint.pt")
    assert checkpoint.stat().st_size > 0


def test_checkpoints_by_epochs(tiny, tmp_path, monkeypatch):
    written = []
    from bench.training.checkpoints import Checkpoints

    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, state: (written.append(state["epoch"]), save(self, state))
    )
    asked = {"settings": [*tiny, "epochs=5"], "metrics": "psnr", "out": tmp_path / "run"}
    bench.run("ann_vae", checkpoint_every="2epochs", **asked)
    assert written == [2, 4]


@pytest.mark.parametrize(
    "text", ["", "10", "ten minutes", "0s", "-1s", "1.5epochs", "0epochs", "nan s", "1e3s"]
)
def test_an_interval_that_makes_no_sense_is_refused(text, tmp_path):
    with pytest.raises(BenchError, match=re.escape(f"Checkpoint interval {text!r}")):
        bench.run("ann_vae", out=tmp_path / "run", checkpoint_every=text)


def test_a_training_state_that_is_no_data_fails_at_the_first_checkpoint(scheduled, tiny, tmp_path):
    asked = {"settings": tiny, "metrics": "psnr", "out": tmp_path / "run"}
    rows = bench.run("unwritable", checkpoint_every="1epochs", **asked)
    failed = rows[rows["status"] != "not_asked"]
    assert set(failed["status"]) == {"failed"}
    assert failed["reason"].str.contains("the training state cannot be a checkpoint").all()


def test_a_checkpoint_of_other_code_is_told_and_not_thrown_away(
    scheduled, tiny_flags, tmp_path, tiny, monkeypatch
):
    out = tmp_path / "run"
    flags = flags_for("scheduled", "reference", tiny_flags, "epochs=5000")
    with commands.started(*flags, "--out", out, paths=[scheduled]) as process:
        commands.wait_for_lines(process, "scheduled .* epoch 1/5000")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    import plugin_resume

    monkeypatch.setattr(
        plugin_resume.Scheduled, "load_training_state", lambda self, state: state["velocity"]
    )
    rows = bench.run("scheduled", settings=[*tiny, "epochs=5000"], metrics="psnr", out=out)
    reasons = rows[rows["status"] != "not_asked"]["reason"]
    (checkpoint,) = out.glob("cells/scheduled*/checkpoint.pt")
    assert set(reasons) == {
        "CheckpointError: the checkpoint does not fit the model as it is now (KeyError: "
        f"'velocity'): put the code back, or delete {checkpoint} to train again"
    }


def test_a_cell_leaves_a_log(tiny, tmp_path):
    asked = {"settings": [*tiny, "epochs=2"], "metrics": "psnr", "out": tmp_path / "run"}
    bench.run("esvae", **asked)
    (log,) = tmp_path.glob("run/cells/esvae*/cell.log")
    lines = log.read_text()
    assert re.search(r"INFO bench.execution.cell: esvae fused digits smoke.* seed 0 on cpu", lines)
    assert re.search(r"INFO bench.training.loop: epoch 2 of 2: loss \d\.\d+", lines)
    assert re.search(r"done in \d+\.\d s", lines)


def test_in_a_thread_a_run_works_too(tiny, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    asked = {"settings": tiny, "metrics": "psnr", "out": tmp_path / "run"}
    with ThreadPoolExecutor(1) as pool:
        rows = pool.submit(bench.run, "ann_vae", **asked).result()
    assert "failed" not in set(rows["status"])


def test_the_second_signal_does_not_wait():
    from bench.system.signals import Interrupted, postponed

    with postponed() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
