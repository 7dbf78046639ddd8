import copy
import gc
import math
import weakref
from dataclasses import dataclass

import naive
import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bench.backend import (
    Arctangent,
    NeuronSpec,
    Rectangle,
    Triangle,
    UnsupportedNeuronError,
    protocol_neuron,
    stateful,
)

WINDOWS = {
    "paper": Rectangle(centre=0.2, width=0.2),
    "official_code": Rectangle(centre=0.0, width=1.0),
    "odd": Rectangle(centre=-0.13, width=0.71),
}
CASES = st.fixed_dictionaries(
    {
        "shape": st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
        "seed": st.integers(0, 2**31),
    }
)
few_examples = settings(deadline=None, max_examples=8, derandomize=True, database=None)


@pytest.fixture(scope="session", params=WINDOWS)
def window(request):
    return WINDOWS[request.param]


def neuron_of(backend, window, decay=0.25, threshold=0.2):
    return backend.neuron(NeuronSpec(decay, threshold, window))


def random_currents(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 0.4 + 0.1


def spikes_and_gradient(run, currents, weights):
    currents = currents.clone().requires_grad_()
    spikes = run(currents)
    (gradient,) = torch.autograd.grad((spikes * weights).sum(), currents)
    return spikes.detach(), gradient


@pytest.mark.parametrize("time_steps", [1, 4, 16])
@given(case=CASES)
@few_examples
def test_spikes_and_gradients_are_those_of_the_naive_loop(backend, window, time_steps, case):
    currents = random_currents((time_steps, *case["shape"]), case["seed"])
    weights = random_currents(currents.shape, case["seed"] + 1)
    constants = naive.Neuron(window.centre, window.width)
    expected = spikes_and_gradient(lambda x: naive.lif(x, constants), currents, weights)
    spikes, gradient = spikes_and_gradient(neuron_of(backend, window), currents, weights)
    assert torch.equal(spikes, expected[0])
    torch.testing.assert_close(gradient, expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("decay", "threshold"), [(0.5, 1.0), (0.9, 0.35), (0.03, 0.2), (1.0, 1.0)])
def test_other_constants_give_the_naive_spikes_and_gradients(
    backend, window, decay, threshold, double_precision
):
    currents = random_currents((12, 400), seed=5) * 2 * threshold
    weights = random_currents(currents.shape, seed=6)
    constants = naive.Neuron(window.centre, window.width, decay, threshold)
    neuron = neuron_of(backend, window, decay, threshold)
    expected = spikes_and_gradient(lambda x: naive.lif(x, constants), currents, weights)
    spikes, gradient = spikes_and_gradient(neuron, currents, weights)
    assert 0.05 < expected[0].mean() < 0.95
    assert torch.equal(spikes, expected[0])
    torch.testing.assert_close(gradient, expected[1], rtol=1e-9, atol=1e-9)


def test_membrane_after_the_last_step_is_the_naive_one_after_its_reset(backend, window):
    currents = random_currents((6, 4000), seed=7)
    potential = torch.zeros(4000)
    for current in currents:
        potential = 0.25 * potential + current
        potential = torch.where(potential > 0.2, 0.0, potential)
    _, membrane = neuron_of(backend, window).integrate(currents, None)
    # SpikingJelly computes u - u / (4/3), which is u / 4 up to rounding only.
    torch.testing.assert_close(membrane, potential, rtol=0, atol=2e-7)


def test_gradients_flow_through_the_membrane_alone(backend, window, double_precision):
    currents = random_currents((5, 4000), seed=8).requires_grad_()
    started = random_currents((4000,), seed=9).clamp(max=0.2).requires_grad_()
    weights = random_currents((4000,), seed=10)
    constants = naive.Neuron(window.centre, window.width)
    potential, fired = started, 0.0
    for current in currents:
        potential = 0.25 * potential * (1 - fired) + current
        fired = naive.step_function(potential, constants)
    expected = torch.autograd.grad((potential * (1 - fired) * weights).sum(), (currents, started))
    _, membrane = neuron_of(backend, window).integrate(currents, started)
    found = torch.autograd.grad((membrane * weights).sum(), (currents, started))
    assert all(gradient.abs().sum() > 0 for gradient in expected)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_spikes_differ_only_where_the_potential_is_at_the_threshold_up_to_rounding(backend):
    # The first neuron's last potential is the threshold in float32, but not for SpikingJelly.
    close = [0.18662549555301666, 0.22393850982189178, 0.08938844501972198, 0.17765289545059204]
    currents = torch.cat(
        [torch.tensor(close)[:, None], random_currents((4, 200_000), seed=12)], dim=1
    )
    spikes = neuron_of(backend, WINDOWS["official_code"])(currents)
    potential = torch.zeros(currents.shape[1])
    for current, fired in zip(currents, spikes, strict=True):
        potential = 0.25 * potential + current
        differs = fired != torch.where(potential > 0.2, 1.0, 0.0)
        assert (potential[differs] - 0.2).abs().sum() <= 1e-7
        potential = potential * (1 - fired)


def test_evaluation_mode_and_no_grad_change_no_spike(backend, window):
    currents = random_currents((8, 200), seed=3)
    neuron = neuron_of(backend, window)
    expected = neuron(currents)
    with torch.no_grad():
        assert torch.equal(neuron.eval()(currents), expected)


def test_gradient_flows_in_evaluation_mode_too(backend, window):
    currents = random_currents((8, 200), seed=3)
    weights = random_currents(currents.shape, seed=4)
    neuron = neuron_of(backend, window)
    _, in_training = spikes_and_gradient(neuron.train(), currents, weights)
    _, in_evaluation = spikes_and_gradient(neuron.eval(), currents, weights)
    assert in_training.abs().sum() > 0
    assert torch.equal(in_training, in_evaluation)


@pytest.mark.parametrize(
    ("name", "potential", "expected"),
    [
        ("paper", 0.11, 5.0),
        ("paper", 0.29, 5.0),
        ("paper", 0.09, 0.0),
        ("paper", 0.31, 0.0),
        ("official_code", 0.49, 1.0),
        ("official_code", -0.49, 1.0),
        ("official_code", 0.51, 0.0),
        ("official_code", -0.51, 0.0),
        ("odd", 0.22, 1 / 0.71),
        ("odd", -0.48, 1 / 0.71),
        ("odd", 0.23, 0.0),
        ("odd", -0.49, 0.0),
    ],
)
def test_surrogate_has_height_one_over_width_inside_its_window_only(
    backend, name, potential, expected
):
    neuron = neuron_of(backend, WINDOWS[name])
    current = torch.full((1, 1), potential, requires_grad=True)
    neuron(current).sum().backward()
    assert current.grad.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["paper", "official_code"])
def test_the_named_windows_of_the_protocol_are_the_facts(resolve, name):
    assert protocol_neuron(resolve("esvae", f"surrogate={name}")).surrogate == WINDOWS[name]


def test_the_paper_window_follows_the_threshold(resolve):
    spec = protocol_neuron(resolve("esvae", "surrogate=paper", "threshold=0.7"))
    assert spec.surrogate == Rectangle(centre=0.7, width=0.2)


def test_surrogate_integrates_to_one(window):
    potentials = torch.linspace(-2, 2, 400_001, dtype=torch.float64, requires_grad=True)
    NeuronSpec(0.25, 0.2, window).fire(potentials).sum().backward()
    assert potentials.grad.sum().item() * 1e-5 == pytest.approx(1, rel=1e-3)


def test_a_potential_at_the_threshold_does_not_fire(backend, window):
    # 1/4 and 1/2 are exact in binary: the second and third steps land on the threshold too.
    neuron = neuron_of(backend, window, decay=0.5, threshold=0.25)
    currents = torch.tensor([[0.25], [0.125], [0.125], [0.1875], [0.25]])
    assert neuron(currents).flatten().tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("at_threshold", [False, True])
def test_a_neuron_without_leak_adds_its_currents_up_until_it_fires(backend, window, at_threshold):
    neuron = backend.neuron(NeuronSpec(1.0, 1.0, window, fires_at_threshold=at_threshold))
    currents = torch.tensor([[0.5], [0.0], [0.5], [0.25], [0.75], [0.25], [-8.0], [9.0]])
    spikes, membrane = neuron.integrate(currents, None)
    # The first three currents add up to 1, the threshold.
    fired = [0, 0, 1, 0, 1, 0, 0, 1] if at_threshold else [0, 0, 0, 1, 0, 0, 0, 1]
    assert spikes.flatten().tolist() == fired
    assert membrane.item() == 0


def test_a_first_potential_at_the_papers_threshold_does_not_fire(backend, window):
    neuron = neuron_of(backend, window)
    threshold = torch.tensor(0.2)
    above = torch.nextafter(threshold, torch.tensor(1.0))
    assert neuron(torch.stack([threshold, above])[None])[0].tolist() == [0, 1]


def test_gradient_flows_through_the_reset(backend):
    # u1 = .25 fires, inside the window (height 5); u2 = .25 * u1 * (1 - o1) + .15 does not.
    # do2/dx1 = 5 * .25 * ((1 - o1) - 5 * u1) = -1.5625; with a detached reset it would be 0.
    neuron = neuron_of(backend, WINDOWS["paper"])
    currents = torch.tensor([[0.25], [0.15]], requires_grad=True)
    spikes = neuron(currents)
    assert spikes.flatten().tolist() == [1, 0]
    spikes[1].sum().backward()
    assert currents.grad.flatten().tolist() == pytest.approx([-1.5625, 5.0])


def test_gradient_flows_through_a_reset_that_did_not_happen(backend):
    # u1 = .15 is silent, inside the window: do2/dx1 = 5 * .25 * (1 - 5 * .15) = .3125, and 1.25
    # if the reset were detached.
    neuron = neuron_of(backend, WINDOWS["paper"])
    currents = torch.tensor([[0.15], [0.12]], requires_grad=True)
    spikes = neuron(currents)
    assert spikes.flatten().tolist() == [0, 0]
    spikes[1].sum().backward()
    assert currents.grad.flatten().tolist() == pytest.approx([0.3125, 5.0])


@pytest.mark.parametrize("chunks", [[1] * 7, [2, 1, 4], [6, 1], [7]])
def test_steps_with_carried_state_are_one_pass(backend, window, chunks):
    neuron = neuron_of(backend, window)
    currents = random_currents((7, 3, 50), seed=8)
    weights = random_currents(currents.shape, seed=9)

    def in_chunks(currents):
        with stateful(neuron):
            return torch.cat([neuron(chunk) for chunk in currents.split(chunks)])

    spikes, gradient = spikes_and_gradient(in_chunks, currents, weights)
    expected = spikes_and_gradient(neuron, currents, weights)
    assert torch.equal(spikes, expected[0])
    torch.testing.assert_close(gradient, expected[1], rtol=1e-6, atol=1e-6)


def test_carried_state_matters_for_the_currents_above(backend, window):
    neuron = neuron_of(backend, window)
    currents = random_currents((7, 3, 50), seed=8)
    from_rest = torch.cat([neuron(current[None]) for current in currents])
    assert not torch.equal(from_rest, neuron(currents))


def test_every_pass_starts_at_rest(backend, window):
    neuron = neuron_of(backend, window)
    currents = random_currents((4, 3, 5), seed=8)
    assert torch.equal(neuron(currents), neuron(currents))


@pytest.mark.parametrize("batch", [3, 1, 6])
def test_nothing_leaks_out_of_a_carried_sequence(backend, window, batch):
    neuron = neuron_of(backend, window)
    with stateful(neuron):
        neuron(random_currents((4, 3, 50), seed=8))
    currents = random_currents((4, batch, 50), seed=9)
    assert torch.equal(neuron(currents), neuron_of(backend, window)(currents))
    with stateful(neuron):
        assert torch.equal(neuron(currents), neuron_of(backend, window)(currents))


def test_nothing_leaks_out_of_a_sequence_that_failed(backend, window):
    neuron = neuron_of(backend, window)
    currents = random_currents((4, 3, 50), seed=8)
    expected = neuron(currents)

    def fail_half_way():
        with stateful(neuron):
            neuron(currents)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert torch.equal(neuron(currents), expected)


def test_state_is_carried_by_every_neuron_within_a_module(backend, window):
    net = nn.Sequential(
        neuron_of(backend, window), nn.Sequential(nn.Linear(6, 5), neuron_of(backend, window))
    )
    currents = random_currents((5, 3, 6), seed=10)
    with stateful(net), torch.no_grad():
        steps = torch.cat([net(current[None]) for current in currents])
    assert torch.equal(steps, net(currents))


class Saved:
    def __init__(self, tensor):
        self.tensor = tensor


def test_carried_state_is_freed_with_its_graph(backend, window):
    neuron = neuron_of(backend, window)
    currents = random_currents((4, 3, 5), seed=8).requires_grad_()
    references = []

    def pack(tensor):
        saved = Saved(tensor)
        references.append(weakref.ref(saved))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        with stateful(neuron):
            spikes = neuron(currents)
        neuron(currents)
    assert references
    assert any(reference() for reference in references)
    del spikes
    gc.collect()
    assert not any(reference() for reference in references)


def test_snntorch_does_not_collect_neurons(all_backends, build):
    before = len(snntorch.SpikingNeuron.instances)
    neuron = neuron_of(all_backends["snntorch"], WINDOWS["paper"])
    model = build("esvae", (1, 32, 32), backend="snntorch")
    assert len(snntorch.SpikingNeuron.instances) == before
    freed = [weakref.ref(neuron), weakref.ref(model.encoder.linear.neuron)]
    del neuron, model
    gc.collect()
    assert [reference() for reference in freed] == [None, None]


@pytest.mark.parametrize("name", ["esvae", "fsvae"])
def test_weights_have_the_same_names_and_shapes_on_all_backends(build, all_backends, name):
    shapes = []
    for backend in all_backends:
        model = build(name, (1, 32, 32), "models.fsvae.k=2", backend=backend)
        shapes.append([(key, value.shape) for key, value in model.state_dict().items()])
    assert shapes[0] == shapes[1] == shapes[2]


def test_a_neuron_has_no_weights(backend, window):
    neuron = neuron_of(backend, window)
    neuron(random_currents((4, 3, 5), seed=8))
    assert not neuron.state_dict()
    assert not list(neuron.parameters())


def test_a_copied_neuron_works_alone(backend, window):
    neuron = neuron_of(backend, window)
    twin = copy.deepcopy(neuron)
    currents = random_currents((4, 3, 50), seed=8)
    with stateful(neuron):
        neuron(currents)
        assert torch.equal(twin(currents), neuron_of(backend, window)(currents))


def test_implementation_names_the_library_and_its_version(all_backends):
    names = {
        name: backend.implementation(torch.device("cpu")) for name, backend in all_backends.items()
    }
    assert torch.__version__ in names["reference"]
    assert names["snntorch"].startswith(f"snnTorch {snntorch.__version__}")
    assert names["spikingjelly"].startswith("SpikingJelly 2.")


def test_spikingjelly_refuses_a_device_it_does_not_run_on(all_backends):
    with pytest.raises(RuntimeError, match="mps"):
        all_backends["spikingjelly"].implementation(torch.device("mps"))


SURROGATES = {
    "rectangle": Rectangle(0.1, 0.8),
    "triangle": Triangle(0.7),
    "arctangent": Arctangent(2.0),
}
SPECS = {
    **{name: NeuronSpec(0.5, 0.25, surrogate) for name, surrogate in SURROGATES.items()},
    **{
        f"{name}, reset without gradient": NeuronSpec(0.5, 0.25, surrogate, reset_gradient=False)
        for name, surrogate in SURROGATES.items()
    },
    "fires at the threshold": NeuronSpec(0.5, 0.25, Rectangle(0.1, 0.8), fires_at_threshold=True),
    "all of them": NeuronSpec(
        0.5, 0.25, Arctangent(3.0), reset_gradient=False, fires_at_threshold=True
    ),
    "without leak": NeuronSpec(1.0, 0.25, Rectangle(0.1, 0.8)),
    "without leak, with an arctangent": NeuronSpec(1.0, 0.25, Arctangent(2.0)),
    "without leak, with all of them": NeuronSpec(
        1.0, 0.25, Arctangent(2.0), reset_gradient=False, fires_at_threshold=True
    ),
}
DERIVATIVES = {
    Rectangle: lambda s, u: (
        (u - s.surrogate.centre).abs().lt(s.surrogate.width / 2) / s.surrogate.width
    ),
    Triangle: lambda s, u: (
        (1 - (u - s.threshold).abs() / s.surrogate.width).clamp(min=0) / s.surrogate.width
    ),
    Arctangent: lambda s, u: (
        s.surrogate.alpha / (2 + 2 * (torch.pi / 2 * s.surrogate.alpha * (u - s.threshold)) ** 2)
    ),
}


def equations(spec, currents, membrane):
    """Potentials and spikes of each step, and the potential after the last reset."""
    potentials, spikes = [], []
    for current in currents:
        potential = spec.decay * membrane + current
        at_least = spec.fires_at_threshold
        fired = (potential >= spec.threshold if at_least else potential > spec.threshold).double()
        membrane = potential * (1 - fired)
        potentials.append(potential)
        spikes.append(fired)
    return potentials, spikes, membrane


def by_hand(spec, potentials, spikes, grad_spikes, grad_membrane):
    """Gradients of currents and first potential: backpropagation through time."""
    grad_currents = []
    for u, o, grad in zip(reversed(potentials), reversed(spikes), grad_spikes.flip(0), strict=True):
        through_reset = grad_membrane * u if spec.reset_gradient else 0
        grad_u = (grad - through_reset) * DERIVATIVES[type(spec.surrogate)](spec, u)
        grad_u = grad_u + grad_membrane * (1 - o)
        grad_currents.append(grad_u)
        grad_membrane = spec.decay * grad_u
    return torch.stack(grad_currents[::-1]), grad_membrane


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", SPECS)
def test_every_specification_has_the_spikes_and_gradients_of_its_equations(backend, name):
    spec = SPECS[name]
    # Multiples of 1/16: many potentials equal the threshold, exactly.
    currents = (random_currents((6, 3000), seed=21) * 32).round() / 16
    # A potential after a reset is below the threshold.
    membrane = ((random_currents((3000,), seed=22) * 32).round() / 16).clamp(max=3 / 16)
    grad_spikes, grad_final = random_currents(currents.shape, 23), random_currents((3000,), 24)
    potentials, spikes, final = equations(spec, currents, membrane)
    assert any((potential == spec.threshold).any() for potential in potentials)
    inputs = currents.requires_grad_(), membrane.requires_grad_()
    found = backend.neuron(spec).integrate(*inputs)
    assert torch.equal(found[0], torch.stack(spikes))
    torch.testing.assert_close(found[1], final)
    gradients = torch.autograd.grad(found, inputs, (grad_spikes, grad_final))
    expected = by_hand(spec, potentials, spikes, grad_spikes, grad_final)
    torch.testing.assert_close(gradients, expected)


@dataclass(frozen=True)
class Gaussian:
    """A surrogate gradient of a user, which PyTorch computes and the kernels of fused do not."""

    def gradient(self, excess, threshold):
        return (-excess.square()).exp() / math.sqrt(math.pi)


def test_the_fused_backend_declines_what_its_kernels_do_not_compute(all_backends):
    spec = NeuronSpec(0.5, 0.25, Gaussian())
    assert all_backends["reference"].neuron(spec)(torch.ones(3, 2)).all()
    with pytest.raises(UnsupportedNeuronError, match="surrogates only, no Gaussian"):
        all_backends["fused"].neuron(spec)
    with pytest.raises(UnsupportedNeuronError, match="surrogates only, no Gaussian"):
        all_backends["fused"].downsampling(3, 4, spec)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_currents_of_one_step_stand_for_equal_steps(backend, window, dtype):
    neuron = neuron_of(backend, window)
    currents = random_currents((1, 3, 500), seed=31).to(dtype)
    weights = random_currents((9, 3, 500), seed=32)

    def repeated(currents):
        with stateful(neuron):
            return torch.cat([neuron(currents, repeats=4), neuron(currents, 5)])

    spikes, gradient = spikes_and_gradient(repeated, currents, weights)
    assert spikes.shape == weights.shape
    assert 0.05 < spikes.mean() < 0.95

    def at_every_step(currents):
        return neuron(currents.double().expand(9, 3, 500).to(dtype))

    expected = spikes_and_gradient(at_every_step, currents, weights)
    assert torch.equal(spikes, expected[0])
    # In bfloat16 the gradients of the two calls are rounded before they are added.
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(gradient, expected[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("time_steps", "repeats"), [(3, 2), (2, 0), (1, 0), (1, -1)])
def test_currents_of_several_steps_are_not_repeated(backend, time_steps, repeats):
    neuron = neuron_of(backend, WINDOWS["paper"])
    with pytest.raises(ValueError, match=f"{time_steps} time steps cannot stand for {repeats}"):
        neuron(torch.ones(time_steps, 5), repeats)


@pytest.mark.parametrize("surrogate", [Triangle(0.7), Arctangent(2.0)])
def test_other_surrogates_integrate_to_one(surrogate):
    potentials = torch.linspace(-400, 400, 8_000_001, dtype=torch.float64, requires_grad=True)
    NeuronSpec(0.25, 0.2, surrogate).fire(potentials).sum().backward()
    assert potentials.grad.sum().item() * 1e-4 == pytest.approx(1, rel=1e-3)
