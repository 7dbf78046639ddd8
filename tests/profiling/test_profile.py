import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from narrow import narrow_networks
from tiny import models_of_smoke
from torch import nn

import bench
from bench import registry
from bench.errors import BenchError
from bench.recording.layer_timing import ELSEWHERE, Place, layer_seconds

SMALL = ("--batch-size", "4", "--repeats", "1", "--set", "time_steps=2")
PHASES = ("forward", "backward")
CELLS = ["model", "backend", "dataset"]
SOURCE = '''
import torch
from bench import GenerativeModel
from bench.errors import SkippedError
from torch import nn


class Whole(GenerativeModel):
    """Two training steps a batch, by layers that work in place."""

    version = "1"
    capabilities = frozenset({"sample", "reconstruct", "test_loss"})

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.body = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, 1, 1))
        self.squash = nn.Tanh()
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, images, step):
        for _ in range(2):
            loss = (self.squash(self.body(images)) - images).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return {"loss": loss.item()}

    def reconstruct(self, images, generator):
        return self.squash(self.body(images))

    def test_loss(self, images, step, generator):
        return (self.reconstruct(images, generator) - images).square().mean()

    def sample(self, n, generator):
        return self.reconstruct(torch.randn((n, *self.image_shape), generator=generator), generator)


class Encoder(Whole):
    """Cannot sample."""

    capabilities = frozenset({"reconstruct"})


class Raising(Whole):
    """Raises when it samples."""

    def sample(self, n, generator):
        raise RuntimeError("no samples today")


class Miserly(Whole):
    """Samples fewer images than it is asked for."""

    def sample(self, n, generator):
        return super().sample(n - 1, generator)


class Unbuildable(Whole):
    """Raises when it is built."""

    def __init__(self, image_shape, protocol, backend):
        raise ValueError("cannot be built")


class Unsupported(Whole):
    """Cannot be built here, and says why."""

    def __init__(self, image_shape, protocol, backend):
        raise SkippedError("needs a neuron that this backend cannot build")


class Colour(Whole):
    """Takes colour images only."""

    @classmethod
    def unsupported(cls, image_shape, protocol):
        return None if image_shape[0] == 3 else "colour images only"
'''


@pytest.fixture
def own(plugins):
    """Models of a package of its own."""
    names = re.findall(r"class (\w+)\(", SOURCE)
    plugins("plugin_own", SOURCE, models={name.lower(): f"plugin_own:{name}" for name in names})


@pytest.fixture
def profiled(own):
    """The rows of own models' profiles."""

    def profiled(models, **arguments):
        return bench.profile(models=models, batch_size=4, repeats=2, **arguments)

    return profiled


@pytest.fixture(scope="module")
def built_in():
    """The profile of every built-in model, and of one on every backend."""
    measured = {"batch_size": 4, "repeats": 1, "settings": ["time_steps=2"]}
    with narrow_networks():
        others = bench.profile("esvae", backends="reference,snntorch,spikingjelly", **measured)
        each = bench.profile(models_of_smoke(), **measured)
    return pd.concat([each, others], ignore_index=True)


def layers(rows):
    return rows[(rows["quantity"] == "seconds") & (rows["layer"] != "")]


def test_every_model_and_every_backend_have_every_number(built_in):
    models = {name: registry.models.load(name) for name in models_of_smoke()}
    default = {(name, "fused" if model.spiking else "torch") for name, model in models.items()}
    cells = {names for names, _ in built_in.groupby(["model", "backend"])}
    assert cells == default | {("esvae", backend) for backend in registry.backends.names()}
    whole = built_in[built_in["layer"] == ""]
    for (model, *_), found in whole.groupby(CELLS):
        good = found[found["status"] == "ok"]
        assert not good.duplicated(["activity", "quantity"]).any()
        if "reconstruct" in models[model].capabilities:
            assert len(good) == len(found) == 11
        else:
            assert set(good["activity"]) == {"training", "sampling"}
            others = found[found["status"] == "not_applicable"]
            assert set(others["activity"]) == {"reconstruction", "scoring"}
            assert others["reason"].str.endswith("it lacks reconstruct").all()
    good = built_in[built_in["status"] == "ok"]
    assert (good["value"] >= 0).all()
    assert (good[good["layer"] == ""]["value"] > 0).all()
    assert (built_in["batch_size"] == 4).all()


def test_the_value_lies_between_the_slowest_and_the_fastest(built_in):
    timed = built_in[(built_in["quantity"] != "peak_memory") & (built_in["status"] == "ok")]
    assert timed["value"].between(timed["low"], timed["high"]).all()


def test_layers_and_elsewhere_add_up_to_the_whole(built_in):
    seconds = built_in[built_in["quantity"] == "seconds"]
    for _, found in seconds.groupby([*CELLS, "activity"]):
        whole = found["layer"] == ""
        parts = found[~whole]
        assert parts["value"].sum() == pytest.approx(found[whole]["value"].item())
        assert parts["layer"].eq("elsewhere").sum() == 1
        assert not parts.duplicated(["layer", "phase"]).any()


def test_layers_are_timed_forward_always_and_backward_in_training(built_in):
    for (_, _, activity), found in layers(built_in).groupby(["model", "backend", "activity"]):
        phases = found.groupby("phase")["layer"].agg(set)
        backward = {"backward"} if activity == "training" else set()
        assert set(phases.index) == {"", "forward"} | backward
    training = layers(built_in).query("activity == 'training'")
    backward = training[training["phase"] == "backward"].groupby(["model", "backend"])["layer"]
    for (model, backend), names in backward:
        first, last = {
            "ann_vae": ("encoder.conv1.0", "decoder.to_image"),
            "esvae": ("encoder.convolutions.conv1.synapse", "decoder.readout.synapse"),
            "fsvae": ("encoder.convolutions.conv1.synapse", "decoder.readout.synapse"),
            "sgad": ("generator.linear1.synapse", "discriminator.integrator.synapse"),
            "sgan": ("generator.linear1.synapse", "discriminator.integrator.synapse"),
            "swgan": ("generator.linear1.synapse", "discriminator.integrator.synapse"),
            "taid": ("encoder.convolutions.conv1.synapse", "decoder.readout.attention"),
        }[model]
        assert {first, last} <= set(names)
        neurons = names[names.str.endswith(".neuron")]
        assert (len(neurons) > 0) == (backend != "torch")


def test_a_neuron_is_one_layer_on_every_backend(built_in):
    names = layers(built_in[built_in["model"] == "esvae"]).groupby("backend")["layer"].agg(set)
    assert names["reference"] == names["snntorch"] == names["spikingjelly"]
    assert {name for name in names["reference"] - names["fused"] if "norm" not in name} == set()


def test_a_model_of_several_steps_with_layers_that_work_in_place(profiled):
    rows = profiled("whole")
    assert (rows["status"] == "ok").all()
    training = layers(rows).query("activity == 'training'")
    phases = training.groupby("layer")["phase"].agg(set).drop("elsewhere")
    assert list(phases.index) == ["body.0", "body.1", "body.2", "squash"]
    assert all(found == {"forward", "backward"} for found in phases)


def test_what_a_model_cannot_do_has_a_reason_and_no_number(profiled):
    sampling = profiled("encoder").query("activity == 'sampling'")
    assert set(sampling["quantity"]) == {"images_per_second", "peak_memory"}
    assert sampling["value"].isna().all()
    assert set(sampling["status"]) == {"not_applicable"}
    assert set(sampling["reason"]) == {"not for Encoder: it lacks sample"}


@pytest.mark.parametrize(
    ("model", "activities", "reason"),
    [
        ("raising", {"sampling", "scoring"}, "RuntimeError: no samples today"),
        (
            "miserly",
            {"sampling", "scoring"},
            "ValueError: sample gave images of shape (3, 1, ",
        ),
        (
            "unbuildable",
            {"training", "reconstruction", "sampling", "scoring"},
            "ValueError: cannot be built",
        ),
    ],
)
def test_a_failure_is_told_and_the_others_go_on(profiled, model, activities, reason):
    rows = profiled(f"{model},whole")
    failed = rows[rows["status"] == "failed"]
    assert set(failed["model"]) == {model}
    assert set(failed["activity"]) == activities
    assert failed["reason"].str.startswith(reason).all()
    assert failed["value"].isna().all()
    assert len(layers(rows[rows["model"] == "whole"])) > 0


def test_a_model_that_cannot_be_built_here_is_skipped_with_its_reason(profiled):
    rows = profiled("unsupported,whole")
    skipped = rows[rows["model"] == "unsupported"]
    assert set(skipped["status"]) == {"skipped"}
    assert set(skipped["reason"]) == {"needs a neuron that this backend cannot build"}
    assert set(skipped["activity"]) == {"training", "reconstruction", "sampling", "scoring"}
    assert (rows[rows["model"] == "whole"]["status"] == "ok").all()


def test_a_device_on_which_the_backend_cannot_run(monkeypatch):
    def implementation(self, device):
        raise RuntimeError("not on this device")

    lif = bench.registry.backends.load("snntorch")
    monkeypatch.setattr(lif, "implementation", implementation)
    rows = bench.profile("esvae", backends="snntorch", batch_size=4, repeats=1)
    assert set(rows["status"]) == {"skipped"}
    (reason,) = set(rows["reason"])
    assert "the backend snntorch cannot run here (not on this device)" in reason
    assert "--backends reference" in reason


def test_the_tables_fit_80_columns_and_tell_reasons(own, bench_cli, monkeypatch):
    monkeypatch.setattr("rich.console.Console.width", 80)
    names = "fsvae,encoder,raising,unbuildable,colour"
    code, out, err = bench_cli("profile", "--models", names, "--backends", "reference", *SMALL)
    assert code == 1
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"encoder +torch +digits +sample +n/a \(1\) +n/a \(1\)", out)
    assert re.search(r"raising +torch +digits +sample +failed \(2\)", out)
    assert re.search(r"unbuildable +torch +digits +all +failed \(3\)", out)
    assert re.search(r"colour +torch +digits +all +skipped \(4\)", out)
    reasons = ["not for Encoder: it lacks sample", "RuntimeError: no samples today"]
    reasons += ["ValueError: cannot be built", "colour images only"]
    assert [f"({i}) {reason}" for i, reason in enumerate(reasons, 1)] == [
        line for line in out.splitlines() if line.startswith("(")
    ]
    assert re.search(r"^elsewhere( +[\d.]+){6}$", out, re.MULTILINE)
    assert re.search(r"^whole call +[\d.]+ +100( +[\d.]+ +100){2}$", out, re.MULTILINE)
    assert "[5/5] colour torch digits" in err


def test_markdown_has_the_same_tables_with_layers_sorted_by_all_their_time(bench_cli):
    code, out, _ = bench_cli("profile", "--models", "ann_vae", *SMALL, "--format", "md")
    assert code == 0
    assert re.search(r"\| ann\\_vae \| torch \| digits \| sample \| [\d,.]+ \|", out)
    (head, *lines) = [line for line in out.splitlines() if line.count("|") == 9]
    names = [name.strip() for name in head.strip("|").split("|")]
    assert names == [
        "layer", "train ms", "train backw.", "train %", "recon. ms", "recon. %", "sample ms",
        "sample %",
    ]  # fmt: skip
    cells = [[text.strip() for text in line.strip("|").split("|")] for line in lines[1:]]
    table = pd.DataFrame(cells, columns=names)
    spent = table.filter(like="ms").apply(pd.to_numeric).sum(axis=1)
    assert list(table["layer"][-2:]) == ["elsewhere", "whole call"]
    assert (spent.iloc[:-2].diff().dropna() <= 0.04).all()
    assert len(table) > 20


def test_csv_and_json_hold_every_row(bench_cli):
    columns = [
        "model", "backend", "dataset", "device", "batch_size", "activity", "layer", "phase",
        "quantity", "value", "low", "high", "unit", "status", "reason", "neuron_verdict",
    ]  # fmt: skip
    arguments = ["profile", "--models", "ann_vae", *SMALL, "--format"]
    _, out, _ = bench_cli(*arguments, "csv")
    from_csv = pd.read_csv(io.StringIO(out))
    _, out, _ = bench_cli(*arguments, "json")
    from_json = pd.DataFrame(json.loads(out))
    assert list(from_csv) == list(from_json) == columns
    assert len(from_csv) == len(from_json)
    assert set(from_json["quantity"]) == {"images_per_second", "peak_memory", "seconds"}
    np.testing.assert_array_equal(from_csv["activity"], from_json["activity"])


def test_nothing_is_written(bench_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, _ = bench_cli("profile", "--models", "ann_vae", *SMALL)
    assert code == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "fsave"], "Unknown model 'fsave'. Did you mean: fsvae?"),
        (["--backends", "snntroch"], "Unknown backend 'snntroch'. Did you mean: snntorch?"),
        (["--datasets", "mnits"], "Unknown dataset 'mnits'. Did you mean: mnist?"),
        (["--protocol", "smok"], "Unknown protocol 'smok'. Did you mean: smoke?"),
        (["--datasets", "folder:nowhere"], "does not exist"),
        (["--device", "gpu"], "Unknown device 'gpu'"),
        (["--repeats", "0"], "expected a whole number from 1, got 0"),
        (["--repeats", "x"], "'x' is not a valid integer"),
        (["--batch-size", "0"], "batch_size"),
        (["--batch-size", "5000"], "batch_size 5000 is larger than the 1437"),
        (["--models", "fsvae", "--set", "image_size=48"], "built for 32x32 and 64x64"),
        (["--format", "xml"], "'xml' is not one of"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(bench_cli, arguments, words):
    code, out, err = bench_cli("profile", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert words in err


def test_the_docs_name_every_option_and_column(bench_cli, built_in):
    text = (Path(__file__).parents[2] / "docs" / "profile.md").read_text(encoding="utf-8")
    _, usage, _ = bench_cli("profile", "--help")
    for name in [*re.findall(r"--[a-z-]+", usage), *built_in.columns]:
        assert name == "--help" or re.search(rf"`{name}\b", text), name


@pytest.mark.parametrize("repeats", [0, -1, 1.5, True, "2"])
def test_the_api_refuses_what_is_no_number_of_repetitions(repeats):
    with pytest.raises(BenchError, match="expected a whole number from 1"):
        bench.profile("ann_vae", repeats=repeats)


class Nested(nn.Module):
    """A layer within a neuron's call, a layer used twice, and work outside of layers."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.unused = nn.Linear(3, 3)
        self.pair = Pair()

    def forward(self, x):
        first, named = self.pair(self.linear(self.linear(x)))
        return (self.frozen(first) + named["second"]).sum()


class Pair(nn.Module):
    """Gives a tuple with a mapping in it."""

    def forward(self, x):
        return x * 2, {"second": x.sin()}


def test_layers_by_place_and_hooks_leave_no_trace():
    model = Nested()
    images = torch.ones(2, 3)
    expected = torch.autograd.grad(model(images), model.linear.weight)[0]
    (seconds,) = layer_seconds(model, lambda: model(images).backward(), 1, torch.device("cpu"))
    assert set(seconds) == {
        ELSEWHERE,
        *(Place(name, phase) for name in ("linear", "pair", "frozen") for phase in PHASES),
    }
    assert all(value > 0 for value in seconds.values())
    torch.testing.assert_close(model.linear.weight.grad, expected)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_hooks_are_gone_after_a_failure():
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="shapes"):
        layer_seconds(model, lambda: model(torch.ones(2, 4)), 1, torch.device("cpu"))
    assert not model[0]._forward_hooks
