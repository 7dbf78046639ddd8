import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based import neuron as sj_neuron
from spikingjelly.activation_based.op_counter import (
    DispatchCounterMode,
    MACCounter,
    SynOpCounter,
)
from spikingjelly.activation_based.op_counter.analytical_energy import LemaireEnergyProfiler
from torch import nn

from baselines.ann_vae import ANNVAE
from baselines.backends.reference import ReferenceBackend
from baselines.esvae import ESVAE
from baselines.fsvae import FSVAE
from baselines.swgan import SGAD
from bench.metrics.metric import Batch, ModelFacts
from bench.metrics.operations import (
    MEMORY_BYTES,
    PICOJOULES_PER_ACCESS,
    DenseOperations,
    EffectiveACs,
    EffectiveMACs,
    Energy,
    EnergyWithMemory,
    MembraneUpdates,
)
from bench.model import GenerativeModel
from bench.protocol import load_protocol
from bench.recording.layer_activity import NeuronCounts, SpikeTrains
from bench.recording.memory_accesses import neuron_accesses
from bench.recording.spikes import recording
from bench.recording.synaptic_operations import OperationCounter
from bench.recording.training_record import TrainingRecord

FACTS = ModelFacts(0, 0, TrainingRecord((), {}, None), None)
KERNELS = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d)}
KERNELS[3] = (nn.Conv3d, nn.ConvTranspose3d)


class Network(GenerativeModel):
    """A plain stack of layers that belongs to one part, or none."""

    def __init__(self, *layers, part=None):
        super().__init__((1, 4, 4), load_protocol("smoke"), None)
        self.layers = nn.Sequential(*layers)
        self.part = part

    def training_step(self, images, step):
        raise NotImplementedError

    def parts(self):
        return {self.part: [self.layers]} if self.part else {}


def counted(layer, inputs, images):
    with torch.no_grad():
        counter = OperationCounter(layer, images)
        counter.count(inputs, layer(inputs).shape)
    return counter.operations


def connections(layer, inputs, outputs):
    """Each pair of an input element and the weight that joins it to some output element."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        for o, i in itertools.product(range(outputs[0]), range(inputs[0])):
            yield (i,), weight[o, i].item()
        return
    transposed = isinstance(layer, nn.ConvTranspose2d)
    small, large = (inputs, outputs) if transposed else (outputs, inputs)
    # A convolution and a transposed one join the same pairs, seen from the other side.
    for a, b in itertools.product(range(small[0]), range(large[0])):
        group = a // (small[0] // layer.groups)
        if b // (large[0] // layer.groups) != group:
            continue
        for i, j in itertools.product(range(small[1]), range(small[2])):
            for k, m in itertools.product(*map(range, layer.kernel_size)):
                y = i * layer.stride[0] - layer.padding[0] + k * layer.dilation[0]
                x = j * layer.stride[1] - layer.padding[1] + m * layer.dilation[1]
                if 0 <= y < large[1] and 0 <= x < large[2]:
                    w = weight[a, b % (large[0] // layer.groups), k, m].item()
                    yield ((a, i, j) if transposed else (b, y, x)), w


def brute_force(layer, inputs):
    """Dense operations, and effective ones of each row."""
    outputs = layer(inputs).shape[1:]
    pairs = list(connections(layer, inputs.shape[1:], outputs))
    effective = [sum(row[at].item() != 0 and w != 0 for at, w in pairs) for row in inputs]
    return len(pairs) * len(inputs), np.array(effective)


@st.composite
def convolutions(draw):
    groups = draw(st.integers(1, 2))
    channels = [groups * draw(st.integers(1, 2)) for _ in range(2)]
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride = draw(pair), draw(pair)
    padding = tuple(draw(st.integers(0, size)) for size in kernel)
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    shared = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if draw(st.booleans()):
        added = tuple(
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
        )
        sizes = zip(size, stride, padding, reach, added, strict=True)
        assume(all((n - 1) * s - 2 * p + r + a > 0 for n, s, p, r, a in sizes))
        layer = nn.ConvTranspose2d(*channels, kernel, output_padding=added, **shared)
    else:
        assume(all(n + 2 * p >= r for n, p, r in zip(size, padding, reach, strict=True)))
        layer = nn.Conv2d(*channels, kernel, **shared)
    return layer, (channels[0], *size)


@st.composite
def layers(draw):
    if draw(st.integers(0, 4)) == 0:
        inputs = draw(st.integers(1, 6))
        layer, shape = nn.Linear(inputs, draw(st.integers(1, 6))), (inputs,)
    else:
        layer, shape = draw(convolutions())
    torch.manual_seed(draw(st.integers(0, 99)))
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) < draw(st.sampled_from([0.5, 1.0])))
    return layer, shape


def drawn_inputs(rows, shape, spiking):
    fired = (torch.rand(rows, *shape) < 0.4).float()
    return fired if spiking else fired * torch.rand(rows, *shape).add(0.5)


@settings(max_examples=150, deadline=None)
@given(
    drawn=layers(),
    images=st.integers(1, 3),
    time_steps=st.integers(1, 2),
    spiking=st.booleans(),
    folded=st.booleans(),
)
def test_operations_are_those_of_a_brute_force_count(drawn, images, time_steps, spiking, folded):
    layer, shape = drawn
    rows = drawn_inputs(time_steps * images, shape, spiking)
    dense, effective = brute_force(layer, rows)
    by_image = effective.reshape(time_steps, images).sum(0)
    if not folded and isinstance(layer, nn.Linear):
        rows = rows.unflatten(0, (time_steps, images))
    found = counted(layer, rows, images)
    assert found.by_image
    assert found.dense == dense
    used, unused = (found.acs, found.macs) if spiking else (found.macs, found.acs)
    if rows.any():
        np.testing.assert_array_equal(used, by_image)
        assert not unused.any()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_borders_in_every_number_of_dimensions(dimensions, transposed):
    layer = KERNELS[dimensions][transposed](2, 3, kernel_size=3, padding=1)
    # Along each axis of 5, the two outer elements of 3 neighbours lack one.
    pairs = 2 * 3 * (3 * 5 - 2) ** dimensions
    found = counted(layer, torch.ones(4, 2, *[5] * dimensions), 4)
    assert found.dense == 4 * pairs
    np.testing.assert_array_equal(found.acs, 4 * [pairs])


@pytest.mark.parametrize("mode", ["circular", "replicate", "reflect"])
def test_padding_that_repeats_the_input_is_no_border(mode):
    layer = nn.Conv2d(1, 2, kernel_size=3, padding=1, padding_mode=mode)
    assert counted(layer, torch.ones(1, 1, 4, 4), 1).dense == 2 * 9 * 16


def test_padding_to_the_same_size():
    layer = nn.Conv2d(1, 1, kernel_size=(3, 1), padding="same")
    assert counted(layer, torch.ones(1, 1, 4, 4), 1).dense == (3 * 4 - 2) * 4


def test_an_output_size_that_the_call_asks_for_counts():
    model = Network(nn.ConvTranspose1d(1, 1, kernel_size=2, stride=3))
    layer, inputs = model.layers[0], torch.ones(1, 1, 3)
    for size in (8, 9, 10):
        with recording(model, 1) as activity:
            assert layer(inputs, output_size=[size]).shape[-1] == size
        assert activity["layers.0"].operations.dense == 6


@pytest.mark.parametrize(
    ("inputs", "accumulates"),
    [
        ([0.0, 0.0], True),
        ([1.0, 0.0], True),
        ([-1.0, 1.0], True),
        ([1.0, 0.5], False),
        ([2.0, 0.0], False),
        ([1.0, float("nan")], False),
    ],
)
def test_an_operation_accumulates_where_all_inputs_are_spikes_of_either_sign(inputs, accumulates):
    found = counted(nn.Linear(2, 3), torch.tensor([inputs]), 1)
    nonzero = sum(value != 0 for value in inputs)
    expected = (0, 3 * nonzero) if accumulates else (3 * nonzero, 0)
    assert (found.macs.item(), found.acs.item()) == expected


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("highest", [1, 2])
def test_operations_depend_on_neither_layout_nor_type(dtype, highest):
    layer = nn.Conv2d(3, 2, 3, padding=1)
    inputs = torch.randint(highest + 1, (300 * 2, 3, 4, 5))
    counter = OperationCounter(layer, 2)
    laid_out = inputs.to(dtype).to(memory_format=torch.channels_last)
    counter.count(laid_out, torch.Size([600, 2, 4, 5]))
    found, expected = counter.operations, counted(layer, inputs.float(), 2)
    assert torch.equal(found.acs, expected.acs)
    assert torch.equal(found.macs, expected.macs)
    used, unused = (found.acs, found.macs) if highest == 1 else (found.macs, found.acs)
    assert used.min() > 0 == unused.max()


def test_inputs_that_are_not_the_images_are_shared_out_among_them():
    found = counted(nn.Linear(2, 3), torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), 2)
    assert not found.by_image
    assert found.acs.tolist() == [4.5, 4.5]


def test_calls_of_one_layer_add_up_each_a_mac_or_an_ac_by_its_own_inputs():
    model = Network(nn.Linear(2, 3))
    with recording(model, 2) as activity:
        model.layers(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        model.layers[0](input=torch.tensor([[0.5, 0.0], [0.0, 0.0]]))
    model.layers(torch.ones(2, 2))
    found = activity["layers.0"].operations
    assert (found.acs.tolist(), found.macs.tolist()) == ([3, 6], [3, 0])
    assert found.dense == 2 * 12


def spikingjelly_count(counter, run):
    with torch.no_grad(), DispatchCounterMode([counter]):
        run()
    return counter.get_total()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(12, 7),
        nn.Conv1d(12, 4, 3, stride=2, padding=1),
        nn.Conv2d(12, 4, 3, stride=2, padding=1),
        nn.Conv2d(12, 6, 3, padding=2, dilation=2, groups=3),
        nn.ConvTranspose2d(12, 4, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(12, 6, 3, padding=1, groups=3),
    ],
    ids=str,
)
def test_accumulates_are_those_of_spikingjelly(layer):
    torch.manual_seed(0)
    size = 0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
    spikes = (torch.rand(5, 12, *[9] * size) < 0.3).float()
    expected = spikingjelly_count(SynOpCounter(), lambda: layer(spikes))
    assert counted(layer, spikes, 5).acs.sum() == expected


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(12, 7), nn.Conv2d(12, 4, 3, stride=2), nn.ConvTranspose2d(12, 4, 3, stride=2)],
    ids=str,
)
def test_macs_without_borders_are_those_of_spikingjelly(layer):
    # Its counter takes padding for input; with none, both count the same.
    torch.manual_seed(0)
    images = torch.rand(5, 12, *([] if isinstance(layer, nn.Linear) else [9, 9]))
    expected = spikingjelly_count(MACCounter(), lambda: layer(images))
    found = counted(layer, images, 5)
    assert found.macs.sum() == found.dense == expected


@pytest.fixture(scope="module")
def esvae():
    torch.manual_seed(0)
    protocol = load_protocol("smoke", ["time_steps=3", "latent_size=8"]).resolve("esvae", "digits")
    return ESVAE((1, 32, 32), protocol, ReferenceBackend()).eval()


def test_accumulates_of_a_whole_encoder_are_those_of_spikingjelly(esvae):
    images = torch.rand(4, 1, 32, 32) * 2 - 1
    with torch.no_grad(), recording(esvae, 4) as activity:
        esvae.encoder(images)
    acs = sum(a.operations.acs.sum() for a in activity.values() if a.operations)
    assert acs > 0
    assert acs == spikingjelly_count(SynOpCounter(), lambda: esvae.encoder(images))


@pytest.mark.parametrize("model_class", [ANNVAE, ESVAE, FSVAE])
def test_every_parameter_of_a_built_in_model_is_in_one_part(model_class):
    backend = ReferenceBackend() if model_class.spiking else None
    model = model_class((1, 32, 32), load_protocol("smoke").resolve("m", "digits"), backend)
    parts = model.parts()
    assert list(parts) == ["encoder", "latent_sampler", "decoder"]
    found = [p for modules in parts.values() for m in modules for p in m.parameters()]
    assert sorted(map(id, found)) == sorted(map(id, model.parameters()))


def test_generator_and_discriminator_are_all_of_a_gan():
    protocol = load_protocol("smoke").resolve("sgad", "digits")
    model = SGAD((1, 32, 32), protocol, ReferenceBackend())
    parts = model.parts()
    assert list(parts) == ["generator", "discriminator"]
    found = [p for modules in parts.values() for m in modules for p in m.parameters()]
    assert sorted(map(id, found)) == sorted(map(id, model.parameters()))


def test_recording_changes_no_result_and_leaves_no_hook(esvae):
    def runs():
        with torch.no_grad():
            images = esvae.reconstruct(originals, torch.Generator().manual_seed(1))
            return images, esvae.sample(3, torch.Generator().manual_seed(1)), torch.rand(1)

    originals = torch.rand(3, 1, 32, 32) * 2 - 1
    torch.manual_seed(0)
    plain = runs()
    torch.manual_seed(0)
    with recording(esvae, 3) as activity:
        recorded = runs()
    assert activity
    assert all(map(torch.equal, plain, recorded))
    assert not any(module._forward_hooks for module in esvae.modules())


def test_hooks_are_removed_and_other_images_not_counted_after_an_error():
    model = Network(nn.Linear(2, 3))
    with pytest.raises(RuntimeError), recording(model, 1):
        model.layers(torch.ones(1, 5))
    assert not model.layers[0]._forward_hooks


def test_under_inference_mode_and_with_gradients_alike():
    model = Network(nn.Conv2d(1, 2, 3, padding=1))
    images = torch.rand(2, 1, 4, 4)
    with recording(model, 2) as plain:
        assert model.layers(images).requires_grad
    with torch.inference_mode(), recording(model, 2) as inferred:
        model.layers(images)
    (expected,), (found,) = plain.values(), inferred.values()
    assert torch.equal(found.operations.macs, expected.operations.macs)
    assert not expected.operations.macs.requires_grad


METRICS = (
    DenseOperations, EffectiveMACs, EffectiveACs, Energy, EnergyWithMemory, MembraneUpdates,
)  # fmt: skip


def shown(metric_class, model, inputs, batch_size):
    metric = metric_class(load_protocol("smoke"))
    for batch in inputs.split(batch_size):
        with torch.no_grad(), recording(model, len(batch)) as activity:
            model.layers(batch)
        metric.update(Batch("test", torch.zeros(len(batch), 1, 4, 4), None, activity))
    return {found.layer: found for found in metric.compute(FACTS)}


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 12), batch_size=st.integers(1, 13), seed=st.integers(0, 99))
def test_costs_and_their_intervals_do_not_depend_on_batches(n, batch_size, seed):
    torch.manual_seed(seed)
    model = Network(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 5), part="decoder")
    inputs = drawn_inputs(n, (6,), spiking=False) + 0.01
    rows = shown(Energy, model, inputs, batch_size)
    hidden = (model.layers[:2](inputs) != 0).sum(1).double()
    energies = 4.6 * (6 * 4 + 5 * hidden)
    error = 1.96 * energies.std() / n**0.5
    assert list(rows) == [None, "decoder"]
    for found in rows.values():
        assert found.n == n
        assert found.value == pytest.approx(energies.mean().item())
        expected = [(energies.mean() - error).item(), (energies.mean() + error).item()]
        assert [found.ci_low, found.ci_high] == pytest.approx(expected)


def access(words):
    """Energy of an access to a small memory, by the cache of 8 KiB."""
    return 10 * 4 * words / 2**13


def test_memory_accesses_of_a_spike_and_of_a_number_by_hand():
    layer = nn.Linear(2, 3)
    memories = {"parameters": access(9), "events": access(1000), "outputs": access(3)}
    (spike,) = shown(EnergyWithMemory, Network(layer), torch.tensor([[1.0, 0.0]]), 1).values()
    # Three weights and three biases are read, one address, and three potentials read and written.
    assert spike.value == pytest.approx(
        3 * 0.9 + 6 * memories["parameters"] + memories["events"] + 6 * memories["outputs"]
    )
    (number,) = shown(EnergyWithMemory, Network(layer), torch.tensor([[0.5, 0.0]]), 1).values()
    # Three weights and three biases are read, both inputs, and three outputs written.
    assert number.value == pytest.approx(
        3 * 4.6 + 6 * memories["parameters"] + 2 * access(2) + 3 * memories["outputs"]
    )


@pytest.mark.parametrize(
    ("inputs", "expected"), [(2**11, 10), (2**13, 20), (2**18, 100), (2**20, 100)]
)
def test_an_access_costs_what_a_cache_of_the_size_of_the_memory_costs(inputs, expected):
    layer = nn.Linear(inputs, 1, bias=False)
    spike = torch.zeros(1, inputs)
    spike[0, 5] = 1
    (found,) = shown(EnergyWithMemory, Network(layer), spike, 1).values()
    assert found.value == pytest.approx(0.9 + expected + access(1000) + 2 * access(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_memory_accesses_of_spikes_are_those_of_spikingjelly(kind, bias):
    """With the potentials of its neurons; a kernel of one pixel has no borders."""
    build = {
        "linear": (lambda: sj_layer.Linear(40, 30, bias=bias, step_mode="m"), (40,)),
        "convolution": (lambda: sj_layer.Conv2d(4, 3, 1, bias=bias, step_mode="m"), (4, 5, 5)),
    }
    synapse, shape = build[kind][0](), build[kind][1]
    spikes = (torch.rand(5, 1, *shape) < 0.3).float()  # theirs stores a batch's potentials
    network = nn.Sequential(synapse, sj_neuron.IFNode(v_threshold=0.2, step_mode="m"))
    profiler = LemaireEnergyProfiler()
    profiler.bind_model(network)
    with torch.no_grad(), profiler:
        fired = network(spikes)
    theirs = profiler.get_report().breakdown_pj["memory_pj"]

    operations = counted(synapse, spikes, 1)
    neurons = NeuronCounts(fired.sum((0, 1)).double().flatten(), chances=5)
    trains = SpikeTrains(membrane=True, neurons={fired.shape[2:]: neurons})
    by_image = fired.flatten(2).sum((0, 2)).double()
    accesses = [*operations.accesses.items(), *neuron_accesses(trains, by_image)]
    ours = sum(
        number.sum().item() * np.interp(4 * words, MEMORY_BYTES, PICOJOULES_PER_ACCESS)
        for words, number in accesses
    )
    assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("layer", [nn.Linear(40, 30), nn.Conv2d(4, 3, 3, stride=2)])
def test_memory_accesses_of_numbers_are_those_of_spikingjelly(layer):
    inputs = torch.rand(1, 40) if isinstance(layer, nn.Linear) else torch.rand(1, 4, 9, 9)
    profiler = LemaireEnergyProfiler()
    profiler.bind_model(layer)
    with torch.no_grad(), profiler:
        layer(inputs)
    theirs = profiler.get_report().breakdown_pj["memory_pj"]
    found, operations = (
        shown(metric, Network(layer), inputs, 1)[None].value
        for metric in (EnergyWithMemory, Energy)
    )
    assert found - operations == pytest.approx(theirs)


def test_a_plain_model_has_rows_for_the_whole_only():
    for metric in METRICS[:5]:
        assert list(shown(metric, Network(nn.Linear(3, 2)), torch.rand(4, 3), 2)) == [None]


@pytest.mark.parametrize(
    ("metric_class", "expected"),
    [
        (EffectiveMACs, 6 * 6 / 4),
        (EnergyWithMemory, 6 / 4 * (6 * 4.6 + 8 * access(8) + 3 * access(3) + 2 * access(2))),
    ],
)
def test_there_is_no_interval_where_the_images_cannot_be_told_apart(metric_class, expected):
    inputs = torch.rand(6, 3)
    model = Network(nn.Linear(3, 2))
    metric = metric_class(load_protocol("smoke"))
    with recording(model, 4) as activity:
        model.layers(inputs)
    metric.update(Batch("test", torch.zeros(4, 1, 4, 4), None, activity))
    (found,) = metric.compute(FACTS)
    assert found.value == pytest.approx(expected)
    assert (found.ci_low, found.ci_high) == (None, None)


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_in_which_nothing_counts_is_told_so(metric):
    (found,) = shown(metric, Network(nn.ReLU()), torch.rand(4, 3), 2).values()
    assert (found.status, found.value) == ("not_applicable", None)
    assert "run" in found.reason


def test_nothing_recorded_is_not_applicable():
    metric = Energy(load_protocol("smoke"))
    metric.update(Batch("generated", torch.zeros(4, 1, 4, 4), None, {}))
    (found,) = metric.compute(FACTS)
    assert (found.status, found.split) == ("not_applicable", "generated")


@pytest.fixture(scope="module")
def table(tiny_run):
    """Values by cell, with split, part and metric."""
    _, rows = tiny_run
    rows = rows[rows["metric"].isin([metric.name for metric in METRICS])]
    return rows.fillna({"layer": "whole"})


def values(table, metric):
    rows = table[(table["metric"] == metric) & (table["status"] == "ok")]
    return rows.set_index(["model", "backend", "split", "layer"])["value"]


@pytest.mark.parametrize("metric", [m.name for m in METRICS if m is not EnergyWithMemory])
def test_parts_of_the_built_in_models_add_up_to_the_whole(table, metric):
    wide = values(table, metric).unstack("layer")
    np.testing.assert_allclose(wide.drop(columns="whole").sum(axis=1), wide["whole"], rtol=1e-12)


def test_energy_of_a_run_is_that_of_its_operations(table):
    macs, acs = (values(table, f"synaptic_operations_effective_{kind}") for kind in ("macs", "acs"))
    np.testing.assert_allclose(values(table, "energy"), 4.6 * macs + 0.9 * acs)
    assert (macs + acs <= values(table, "synaptic_operations_dense")).all()


def test_accesses_to_memory_cost_energy_in_every_part(table):
    with_memory, without = (values(table, f"energy{suffix}") for suffix in ("_with_memory", ""))
    assert (with_memory[without.index] > without).all()
    # No part has the latent, whose spikes are written once.
    wide = with_memory.unstack("layer")
    parts = wide.drop(columns="whole").sum(axis=1)
    assert parts.between(0.99 * wide["whole"], wide["whole"] * (1 + 1e-12)).all()


def test_parts_that_run_are_those_that_reconstructing_and_sampling_need(table):
    def parts(metric, model, split):
        rows = table[table["metric"].eq(metric) & table["model"].eq(model)]
        return set(rows[rows["split"] == split]["layer"]) - {"whole"}

    both, all_three = {"encoder", "decoder"}, {"encoder", "latent_sampler", "decoder"}
    assert parts("energy", "ann_vae", "test") == parts("energy", "esvae", "test") == both
    assert parts("energy", "fsvae", "test") == all_three
    assert parts("energy", "ann_vae", "generated") == {"decoder"}
    for model in ("esvae", "fsvae"):
        assert parts("energy", model, "generated") == {"latent_sampler", "decoder"}
    assert parts("membrane_updates", "esvae", "generated") == {"decoder"}
    assert parts("energy", "swgan", "generated") == {"generator"}
    assert parts("energy", "swgan", "train") == {"generator", "discriminator"}
    assert parts("energy", "fsvae", "train") == all_three


def test_an_ann_multiplies_only_and_has_no_membranes(table):
    ann = table[table["model"] == "ann_vae"]
    assert (values(ann, "synaptic_operations_effective_acs") == 0).all()
    assert (values(ann, "synaptic_operations_effective_macs") > 0).all()
    (found,) = ann[ann["metric"] == "membrane_updates"].itertuples()
    assert (found.status, found.reason) == (
        "not_applicable",
        "not for ANNVAE: it has no spiking layers",
    )


def test_operations_of_fsvae_in_numbers(table):
    """32x32, latent 4, k 3, two time steps: sums over the layers by hand."""
    fsvae = table[table["model"] == "fsvae"]

    def down(size):
        return 3 * (size // 2) - 1

    def up(size):
        return 3 * size - 1

    first = 32 * down(32) ** 2
    rest = [(32, 64, 16), (64, 128, 8), (128, 256, 4)]
    encoder = first + 2 * (sum(a * b * down(s) ** 2 for a, b, s in rest) + 1024 * 4)
    posterior = 2 * (8 * 8 + 8 * 16 + 16 * 12)
    prior = 2 * (4 * 8 + 8 * 16 + 16 * 12)
    layers = [(256, 128, 2), (128, 64, 4), (64, 32, 8), (32, 32, 16)]
    readout = 32 * (3 * 32 - 2) ** 2
    decoder = 2 * (4 * 1024 + sum(a * b * up(s) ** 2 for a, b, s in layers)) + readout
    dense = values(fsvae, "synaptic_operations_dense")["fsvae", "fused"]
    assert dense["test", "encoder"] == encoder
    assert dense["test", "latent_sampler"] == posterior
    assert dense["generated", "latent_sampler"] == prior
    assert dense["test", "decoder"] == dense["generated", "decoder"] == decoder
    taid = table[table["model"] == "taid"]
    attention = values(taid, "synaptic_operations_dense")["taid", "fused"]
    assert attention["test", "decoder"] == decoder + 2 * 2
    updates = values(fsvae, "membrane_updates")["fsvae", "fused"]
    assert updates["test", "encoder"] == 2 * (32 * 256 + 64 * 64 + 128 * 16 + 256 * 4 + 4)
    assert updates["test", "latent_sampler"] == 2 * (8 + 16 + 12)


def test_operations_of_a_gan_in_numbers(table):
    """32x32, latent 4, two time steps; a training step shows three batches to the discriminator."""
    swgan = table[table["model"] == "swgan"]
    assert set(swgan["model_version"]) == {"1+unpublished.ours_32"}
    dense = values(swgan, "synaptic_operations_dense")["swgan", "fused"]

    def up(size):
        """Connections of a 4x4 kernel of stride 2 in one dimension, without the border's."""
        return 4 * size - 2

    generator = 4 * 1024 + 2 * (1024 * 8192 + 128 * 64 * up(8) ** 2) + 64 * up(16) ** 2
    first, second = 32 * 25 * 28**2, 32 * 64 * 25 * 10**2
    discriminator = first + 2 * (second + 1600 * 1024) + 1024
    assert dense["generated", "generator"] == dense["train", "generator"] == generator
    assert dense["train", "discriminator"] == 3 * discriminator
    updates = values(swgan, "membrane_updates")["swgan", "fused"]
    assert updates["train", "generator"] == 2 * (1024 + 8192 + 64 * 16**2)
    assert updates["train", "discriminator"] == 3 * 2 * (32 * 28**2 + 64 * 10**2 + 1024)
