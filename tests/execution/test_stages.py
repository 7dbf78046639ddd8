"""Trainings in stages."""

import json
from itertools import pairwise

import commands
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import reproducible
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import bench
from bench.model import Stage
from bench.training.stages import stage_epochs

STAGED = '''
import os
import signal

import torch
from torch import nn
from toys import Steady

from bench.model import Stage


class Staged(Steady):
    """An image, then the noise on it, each trained with noise from the global generator."""

    capabilities = frozenset({"sample", "reconstruct"})
    noises = True

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.width = nn.Parameter(torch.zeros(()))
        self.optimizers = {
            "image": torch.optim.Adam([self.image], lr=0.1),
            "noise": torch.optim.Adam([self.width], lr=0.1),
        }
        self.stage, self.deviation = "", None

    @classmethod
    def stages(cls, protocol):
        return Stage("image", 1), Stage("noise", 3)

    def begin_stage(self, stage, images):
        steps = self.optimizers["image"].state[self.image].get("step", 0)
        kill_at(f"the change to {stage} after {int(steps)} steps")
        torch.rand(7)
        self.stage = stage
        if stage == "noise":
            self.image.requires_grad_(False)
            self.deviation = (images.float() / 127.5 - 1 - self.image).std().item()

    def training_step(self, images, step):
        assert step.stage == self.stage
        kill_at(f"step {step.step}")
        noise = torch.randn(()) / (1 + step.step)
        if step.stage == "image":
            loss = (self.image - images.mean(0) - noise).square().mean()
        else:
            loss = (self.width - self.deviation - noise).square()
        optimizer = self.optimizers[step.stage]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {f"{step.stage}_loss": loss.detach()}

    def sample(self, n, generator):
        assert self.stage != "image"
        noise = torch.randn((n, *self.image.shape), generator=generator, device=generator.device)
        return (self.image + noise * self.width).clamp(-1, 1)


class Changing(Staged):
    """Begins a stage by a change of its parameters, as it must not."""

    def begin_stage(self, stage, images):
        super().begin_stage(stage, images)
        with torch.no_grad():
            self.width += 1


def kill_at(place):
    """Kill this process if it is at the place that the environment names."""
    if os.environ.get("KILL_AT") == place:
        os.kill(os.getpid(), signal.SIGKILL)
'''
CHANGE = "the change to noise after 4 steps"
FLAGS = ["--metrics", "psnr,fad", "--set", "epochs=4"]


@pytest.fixture
def staged(plugins, tmp_path):
    models = {name.lower(): f"plugin_staged:{name}" for name in ("Staged", "Changing")}
    plugins("plugin_staged", STAGED, models=models)
    return tmp_path / "site"


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    st.integers(5, 400),
)
def test_stages_share_all_epochs_in_proportion(shares, epochs):
    stages = [Stage(str(i), share) for i, share in enumerate(shares)]
    planned = stage_epochs(stages, epochs)
    assert [each.name for each in planned] == [stage.name for stage in stages]
    assert planned[0].first == 0
    assert planned[-1].end == epochs
    assert all(one.end == other.first for one, other in pairwise(planned))
    lengths = [each.end - each.first for each in planned]
    assert min(lengths) >= 1
    exact = [epochs * share / sum(shares) for share in shares]
    if min(exact) >= 1:
        assert all(abs(n - share) <= 1 for n, share in zip(lengths, exact, strict=True))


def test_epochs_are_scored_in_the_last_stage_only(staged, tiny, tmp_path):
    settings = [*tiny, "epochs=4", "epoch_selection=best_per_metric"]
    bench.run("staged", settings=settings, metrics="psnr,fad", out=tmp_path / "run")
    (folder,) = (tmp_path / "run").glob("cells/staged-*")
    training = json.loads((folder / "training.json").read_text())
    assert [epoch["stage"] for epoch in training["epochs"]] == ["image", *["noise"] * 3]
    assert [[*epoch["losses"]] for epoch in training["epochs"]] == [
        ["image_loss"],
        *[["noise_loss"]] * 3,
    ]
    assert {"last", "fad", "reconstruction_loss"} <= set(training["selected"])
    assert min(training["selected"].values()) > 1
    log = (folder / "cell.log").read_text()
    assert "stage image, epoch 1 of 4: image_loss" in log
    assert "stage noise, epoch 2 of 4: noise_loss" in log


def test_losses_of_different_stages_are_in_different_panels(staged, tiny, bench_cli, tmp_path):
    run = tmp_path / "run"
    bench.run("staged", settings=[*tiny, "epochs=4"], metrics="psnr", out=run)
    code, _, err = bench_cli("plot", run, "training_curves", "--out", tmp_path / "plots")
    assert code == 0, err
    curves = pd.read_csv(tmp_path / "plots" / "training_curves.csv")
    stages = curves.groupby("loss")["epoch"].agg(list).to_dict()
    assert stages == {"image_loss, stage image": [1], "noise_loss, stage noise": [2, 3, 4]}


@pytest.mark.parametrize("place", ["step 2", CHANGE, "step 9"])
def test_a_training_that_is_killed_goes_on_to_the_same_rows(
    place, staged, bench_cli, tiny_flags, tmp_path, monkeypatch
):
    flags = ["run", "--models", "staged", *tiny_flags, *FLAGS]
    code, _, err = bench_cli(*flags, "--out", tmp_path / "whole")
    assert code == 0, err
    again = [*flags, "--checkpoint-every", "0.0001s", "--out", tmp_path / "killed"]
    monkeypatch.setenv("KILL_AT", place)
    code, _, _ = commands.run(*again, paths=[staged])
    assert code != 0
    assert not list(tmp_path.glob("killed/cells/staged*/training.json"))
    monkeypatch.delenv("KILL_AT")
    code, _, err = bench_cli(*again)
    assert code == 0, err
    (log,) = (tmp_path / "killed").glob("cells/staged*/cell.log")
    stage = "image" if place == "step 2" else "noise"
    assert f"going on from stage {stage}, epoch" in log.read_text()
    rows = [reproducible(bench.load_results(tmp_path / name)) for name in ("whole", "killed")]
    assert rows[0].equals(rows[1])


def test_progress_names_the_stage(staged, tiny_flags, tmp_path):
    flags = ["run", "--models", "staged", *tiny_flags, *FLAGS, "--out", tmp_path / "run"]
    _, out, err = commands.run(*flags, paths=[staged])
    lines = [line for line in (out + err).splitlines() if "staged" in line]
    assert any("image, epoch 1/4 batch 4/4 image_loss" in line for line in lines), out + err
    assert any("noise, epoch 2/4 batch 4/4 noise_loss" in line for line in lines), out + err


def test_fewer_epochs_than_stages_are_skipped_with_the_reason(staged, tiny, tmp_path):
    with pytest.raises(bench.BenchError, match="its 2 stages need 2 epochs, not 1"):
        bench.run("staged", settings=tiny, metrics="psnr", out=tmp_path / "run")


def test_the_check_of_a_model_resumes_in_each_stage(staged, bench_cli):
    code, out, err = bench_cli("check", "model", "staged")
    assert code == 0, out + err
    code, out, _ = bench_cli("check", "model", "changing")
    assert code == 1
    assert "a resumed training ends with other values of" in out


def test_the_steps_of_the_last_stage_are_profiled(staged, bench_cli, tiny_flags):
    settings = [*tiny_flags, "--set", "epochs=2"]
    code, out, err = bench_cli("profile", "--models", "staged", "--repeats", "1", *settings)
    assert code == 0, out + err
    assert "whole call" in out
    assert "failed" not in out


def test_losses_are_logged_by_stage_and_images_in_the_last_one(staged, tiny, tmp_path):
    settings = [*tiny, "epochs=4"]
    bench.run("staged", settings=settings, metrics="psnr", log="tensorboard", out=tmp_path / "run")
    (folder,) = (tmp_path / "run").glob("tensorboard/staged-*")
    log = EventAccumulator(str(folder))
    log.Reload()
    assert {"losses/image/image_loss", "losses/noise/noise_loss"} <= set(log.Tags()["scalars"])
    # An epoch has 64 training images, and the first of four is of the other stage.
    assert [image.step for image in log.Images("images/samples")] == [128, 192, 256]
