import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bench
from baselines.backends.reference import ReferenceBackend
from bench.backend import protocol_neuron
from bench.metrics.activity import (
    ActivationSparsity,
    DeadNeurons,
    FiringRate,
    SaturatedNeurons,
)
from bench.metrics.metric import Batch, ModelFacts
from bench.model import GenerativeModel
from bench.protocol import load_protocol
from bench.recording.spikes import recording
from bench.recording.training_record import TrainingRecord

FACTS = ModelFacts(0, 0, TrainingRecord((), {}, None), None)


class Layers(GenerativeModel):
    """Layers to be called one by one; those named here are said to spike."""

    def __init__(self, spiking=(), **layers):
        super().__init__((1, 4, 4), load_protocol("smoke"), None)
        self.layers = nn.ModuleDict(layers)
        self.spikes = spiking

    def training_step(self, images, step):
        raise NotImplementedError

    def spiking_layers(self):
        return {name: self.layers[name] for name in self.spikes}


def shown(metric_class, batches, split="test"):
    """Observations of recorded batches, each a number of images and a dict of layers."""
    metric = metric_class(load_protocol("smoke"))
    for n, activity in batches:
        metric.update(Batch(split, torch.zeros(n, 1, 2, 2), None, activity))
    return {(found.layer, found.time_step): found for found in metric.compute(FACTS)}


def recorded(trains, batch_size, by_steps=False):
    """Batches of spike trains ``(T, N, ...)`` by layer, put out in one call or step by step."""
    model = Layers(trains, **{name: nn.Identity() for name in trains})
    n = next(iter(trains.values())).shape[1]
    for start in range(0, n, batch_size):
        images = min(batch_size, n - start)
        with recording(model, images) as activity:
            for name, spikes in trains.items():
                batch = spikes[:, start : start + batch_size]
                for call in batch.split(1) if by_steps else [batch]:
                    model.layers[name](call)
        yield images, activity


def test_what_layers_put_out_is_counted():
    model = Layers(["sign"], relu=nn.ReLU(), sign=nn.Identity(), idle=nn.ReLU())
    with recording(model, 2) as activity:
        model.layers["relu"](torch.tensor([-1.0, 0.0, 2.0, 3.0]))
        model.layers["sign"](torch.tensor([[1.0, 0.0]]))
        model.layers["sign"](torch.tensor([[1.0, 1.0]]))
    model.layers["sign"](torch.ones(1, 2))
    counts = {name: (layer.nonzero, layer.elements) for name, layer in activity.items()}
    assert counts == {"layers.relu": (2, 4), "sign": (3, 4)}
    assert activity["layers.relu"].spikes is None
    trains = activity["sign"].spikes
    assert not trains.membrane
    assert trains.by_time_step.tolist() == [1, 2]
    assert activity["sign"].spikes_by_image.tolist() == [2, 1]


@pytest.mark.parametrize("axes", list(itertools.permutations(range(2, 5))))
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.int64])
@pytest.mark.parametrize("time_steps", [3, 300])
def test_spikes_count_in_any_layout_and_type(time_steps, dtype, axes):
    trains = (torch.rand(time_steps, 2, 3, 4, 5) < 0.3).to(dtype)
    laid_out = trains.permute(0, 1, *axes).contiguous()
    laid_out = laid_out.permute(*torch.tensor((0, 1, *axes)).argsort().tolist())
    assert torch.equal(laid_out, trains)
    model = Layers(["spikes"], spikes=nn.Identity())
    with recording(model, 2) as activity:
        model.layers["spikes"](laid_out)
    found, expected = activity["spikes"], trains.numpy().astype(np.int64)
    assert found.nonzero == expected.sum()
    assert found.spikes_by_image.tolist() == expected.sum((0, 2, 3, 4)).tolist()
    assert found.spikes.by_time_step.tolist() == expected.sum((1, 2, 3, 4)).tolist()
    (neurons,) = found.spikes.neurons.values()
    assert neurons.spikes.tolist() == expected.sum((0, 1)).flatten().tolist()


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([255, 0], dtype=torch.uint8),
        torch.tensor([2, 0]),
        torch.tensor([-0.5, 0.0]),
        torch.tensor([0.5, 1.0]),
        torch.tensor([2.0, 0.0]),
        torch.tensor([0.5, -0.5, 1.0, 2.0]),
        torch.tensor([1.0, math.nan]),
        torch.tensor([1.0, 1.5, 0.5], dtype=torch.bfloat16),
    ],
    ids=str,
)
def test_a_spike_that_is_neither_0_nor_1_is_refused_with_its_layer(values):
    model = Layers(["spikes"], spikes=nn.Identity())
    with recording(model, 2), pytest.raises(ValueError, match="Spiking layer spikes returns"):
        model.layers["spikes"](values.expand(300, 2, len(values)))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16])
def test_spikes_of_any_type_are_counted(dtype):
    model = Layers(["spikes"], spikes=nn.Identity())
    with recording(model, 2) as activity:
        model.layers["spikes"](torch.tensor([[1, 0], [1, 1]], dtype=dtype).expand(300, 2, 2))
    assert activity["spikes"].spikes_by_image.tolist() == [300, 600]


GRADED = """
import toys
from torch import nn


class Graded(toys.Steady):
    spiking = True

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.scaled = nn.Identity()

    def spiking_layers(self):
        return {"scaled": self.scaled}

    def reconstruct(self, images, generator):
        self.scaled(images[None] * 0 + 0.5)
        return super().reconstruct(images, generator)
"""


def test_a_cell_whose_spikes_are_graded_fails_whatever_its_metrics(plugins, tiny, tmp_path):
    plugins("plugin_graded", GRADED, models={"graded": "plugin_graded:Graded"})
    settings = [setting for setting in tiny if "fsvae" not in setting]
    rows = bench.run(
        "graded",
        backends="reference",
        settings=settings,
        metrics="parameter_count",
        out=tmp_path / "run",
    )
    rows = rows[(rows["model"] == "graded") & (rows["status"] != "not_asked")]
    assert set(rows["status"]) == {"failed"}
    assert rows["reason"].unique().tolist() == [
        "ValueError: Spiking layer scaled returns values in 0.5..0.5 that are neither 0 nor 1: "
        "expected spikes in {0, 1}"
    ]


def test_neurons_have_a_membrane():
    neuron = ReferenceBackend().neuron(protocol_neuron(load_protocol("smoke")))
    model = Layers(["lif"], lif=neuron)
    with recording(model, 2) as activity:
        neuron(torch.ones(3, 2, 4))
    assert activity["lif"].spikes.membrane


def test_what_a_layer_did_is_filed_under_its_part():
    class Parted(Layers):
        def parts(self):
            return {"encoder": [self.layers["a"]], "decoder": []}

    model = Parted(a=nn.Sequential(nn.Linear(2, 2), nn.ReLU()), b=nn.ReLU())
    with recording(model, 1) as activity:
        model.layers["b"](model.layers["a"](torch.ones(1, 2)))
    assert {name: layer.part for name, layer in activity.items()} == {
        "layers.a.0": "encoder",
        "layers.a.1": "encoder",
        "layers.b": None,
    }


def test_a_spiking_layer_without_time_is_refused():
    model = Layers(["spikes"], spikes=nn.Identity())
    with (
        pytest.raises(ValueError, match=r"Spiking layer spikes .* \(3,\): expected \(T, N"),
        recording(model, 3),
    ):
        model.layers["spikes"](torch.ones(3))
    assert not model.layers["spikes"]._forward_hooks


def test_time_steps_begin_anew_after_a_whole_sequence():
    model = Layers(["spikes"], spikes=nn.Identity())
    layer, one = model.layers["spikes"], torch.ones(1, 2, 1)
    with recording(model, 2) as activity:
        layer(torch.zeros(3, 2, 1))
        layer(one)
        layer(one)
        layer(torch.zeros(2, 2, 1))
        layer(one)
    trains = activity["spikes"].spikes
    assert trains.by_time_step.tolist() == [4, 2, 0]
    assert trains.chances_by_time_step.tolist() == [8, 6, 2]


def test_a_layer_used_at_two_sizes_has_the_neurons_of_both():
    model = Layers(["spikes"], spikes=nn.Identity())
    with recording(model, 2) as activity:
        model.layers["spikes"](torch.zeros(3, 2, 4))
        model.layers["spikes"](torch.ones(3, 2, 12))
    assert shown(DeadNeurons, [(2, activity)])[None, None].value == 4 / 16
    assert shown(SaturatedNeurons, [(2, activity)])[None, None].value == 12 / 16


# Three time steps of two images in two layers, of 2 and 1 neurons.
WORKED = {
    "a": torch.tensor([[[1, 0], [1, 0]], [[1, 0], [1, 0]], [[1, 0], [1, 0]]]).float(),
    "b": torch.tensor([[[0], [0]], [[1], [0]], [[1], [1]]]).float(),
}


def test_statistics_of_a_worked_example():
    batches = list(recorded(WORKED, batch_size=1))
    rates = {at: found.value for at, found in shown(FiringRate, batches).items()}
    assert rates == {
        (None, None): 9 / 18,
        ("a", None): 6 / 12,
        ("b", None): 3 / 6,
        (None, 1): 2 / 6,
        (None, 2): 3 / 6,
        (None, 3): 4 / 6,
        ("a", 1): 2 / 4,
        ("a", 2): 2 / 4,
        ("a", 3): 2 / 4,
        ("b", 1): 0,
        ("b", 2): 1 / 2,
        ("b", 3): 1,
    }
    dead = {at: found.value for at, found in shown(DeadNeurons, batches).items()}
    assert dead == {(None, None): 1 / 3, ("a", None): 1 / 2, ("b", None): 0}
    assert shown(SaturatedNeurons, batches)[None, None].value == 1 / 3
    assert shown(ActivationSparsity, batches)[None, None].value == pytest.approx(1 / 2)


@st.composite
def spike_trains(draw):
    time_steps, n = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    torch.manual_seed(draw(st.integers(0, 999)))
    trains = {}
    for name, shape in {"a": (2, 3), "b": (4,), "c": ()}.items():
        # Some neurons never fire and some always do.
        probability = torch.rand(shape) * 3 - 1
        trains[name] = (torch.rand(time_steps, n, *shape) < probability).float()
    return trains


@settings(deadline=None, max_examples=60)
@given(trains=spike_trains(), batch_size=st.integers(1, 10), by_steps=st.booleans())
def test_statistics_are_those_of_all_spikes_however_batched(trains, batch_size, by_steps):
    batches = list(recorded(trains, batch_size, by_steps))
    flat = {name: spikes.flatten(2) if spikes.ndim > 2 else spikes[..., None]
            for name, spikes in trains.items()}  # fmt: skip
    everything = {None: torch.cat(list(flat.values()), dim=2), **flat}
    time_steps, n = everything[None].shape[:2]

    rates, dead, saturated = (
        shown(metric, batches) for metric in (FiringRate, DeadNeurons, SaturatedNeurons)
    )
    assert len(rates) == 4 * (1 + time_steps)
    assert len(dead) == len(saturated) == 4
    for name, spikes in everything.items():
        assert rates[name, None].value == pytest.approx(spikes.mean().item())
        for t in range(time_steps):
            assert rates[name, t + 1].value == pytest.approx(spikes[t].mean().item())
        never = (spikes == 0).all(0).all(0).float().mean().item()
        always = (spikes == 1).all(0).all(0).float().mean().item()
        assert dead[name, None].value == pytest.approx(never)
        assert saturated[name, None].value == pytest.approx(always)
        assert {rates[name, None].n, dead[name, None].n} == {n}

    overall = rates[None, None]
    if n == 1:
        assert overall.ci_low is None
        return
    by_image = everything[None].mean((0, 2)).double()
    error = (1.96 * by_image.std() / n**0.5).item()
    assert overall.ci_low == pytest.approx(overall.value - error, abs=1e-7)
    assert overall.ci_high == pytest.approx(overall.value + error, abs=1e-7)


def test_there_is_no_interval_where_images_run_in_several_calls():
    model = Layers(["spikes"], spikes=nn.Identity())
    with recording(model, 4) as activity:
        model.layers["spikes"](torch.ones(3, 2, 5))
        model.layers["spikes"](torch.zeros(3, 2, 5))
    rates = shown(FiringRate, [(4, activity)])
    assert rates[None, None].value == 1 / 2
    assert (rates[None, None].ci_low, rates[None, None].ci_high) == (None, None)


@pytest.mark.parametrize("metric", [FiringRate, DeadNeurons, SaturatedNeurons, ActivationSparsity])
def test_a_pass_in_which_no_layer_runs_is_not_applicable(metric):
    (found,) = shown(metric, [(3, {})], split="generated").values()
    assert (found.status, found.value, found.split) == ("not_applicable", None, "generated")
    assert "layers" in found.reason


def statistic(rows, metric):
    return rows[(rows["metric"] == metric) & (rows["status"] == "ok")]


def test_firing_rates_of_a_run_lie_between_0_and_1_and_fit_the_overall_rate(tiny_run):
    _, rows = tiny_run
    rates = statistic(rows, "firing_rate")
    assert rates["value"].between(0, 1).all()
    for _, cell in rates.groupby(["cell_key", "split", rates["time_step"].fillna(0)]):
        layers = cell[cell["layer"].notna()]["value"]
        overall = cell[cell["layer"].isna()]["value"].item()
        assert layers.min() <= overall <= layers.max()


def test_every_layer_of_a_run_has_every_time_step_and_their_mean_is_its_rate(tiny_run):
    _, rows = tiny_run
    rates = statistic(rows, "firing_rate").fillna({"layer": "overall"})
    assert set(rates["model"]) == {"esvae", "fsvae", "sgad", "sgan", "swgan", "taid"}
    rates = rates[rates["status"] == "ok"]
    for _, layer in rates.groupby(["cell_key", "split", "layer"]):
        by_time_step = layer.dropna(subset="time_step").set_index("time_step")["value"]
        assert sorted(by_time_step.index) == [1, 2]
        total = layer[layer["time_step"].isna()]["value"].item()
        assert by_time_step.mean() == pytest.approx(total)


def test_the_overall_rate_of_a_run_has_an_interval(tiny_run):
    _, rows = tiny_run
    rates = statistic(rows, "firing_rate")
    overall = rates[rates["layer"].isna() & rates["time_step"].isna() & rates["split"].eq("test")]
    assert (overall["ci_low"] < overall["value"]).all()
    assert (overall["value"] < overall["ci_high"]).all()


def test_sparsity_where_all_activations_are_spikes_complements_the_firing_rate(vae_rows):
    rows = vae_rows
    overall = rows[rows["layer"].isna() & rows["time_step"].isna() & rows["split"].eq("test")]
    spiking = overall[overall["model"].ne("ann_vae")]
    rates, sparsity = (
        statistic(spiking, metric).set_index("cell_key")["value"]
        for metric in ("firing_rate", "activation_sparsity")
    )
    assert len(rates) == spiking["cell_key"].nunique() == 6
    np.testing.assert_allclose(rates + sparsity, 1)


def test_dead_and_saturated_neurons_of_a_run_are_shares(tiny_run):
    _, rows = tiny_run
    dead, saturated = (
        statistic(rows, metric)
        .fillna({"layer": "overall"})
        .set_index(["cell_key", "split", "layer"])
        for metric in ("dead_neurons", "saturated_neurons")
    )
    assert (dead["value"] + saturated["value"]).between(0, 1).all()
    layers = statistic(rows, "firing_rate")["layer"].nunique()
    assert dead.index.get_level_values("layer").nunique() == layers + 1


def test_layers_that_run_while_sampling_are_prior_latent_and_decoder(tiny_run):
    _, rows = tiny_run
    rates = rows[(rows["metric"] == "firing_rate") & (rows["model"] == "fsvae")]
    parts = {
        split: set(group["layer"].dropna().str.split(".").str[0])
        for split, group in rates.groupby("split")
    }
    assert parts == {
        "test": {"encoder", "posterior", "latent", "decoder"},
        "generated": {"prior", "latent", "decoder"},
    }
