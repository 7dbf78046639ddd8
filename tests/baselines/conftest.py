from contextlib import contextmanager

import naive
import pytest
import torch

from bench.registry import backends

BACKENDS = ("reference", "snntorch", "spikingjelly", "fused")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The tensors here are small: threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def threads():
    """A context in which PyTorch, and with it the fused kernels, use so many threads."""

    @contextmanager
    def threads(count):
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    return threads


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request):
    return backends.load(request.param)()


@pytest.fixture(scope="session")
def all_backends():
    return {name: backends.load(name)() for name in BACKENDS}


@pytest.fixture(scope="session")
def official_neuron():
    """Settings of Spiking-Diffusion's neuron, at few time steps."""
    return (
        "membrane_decay=0.5",
        "threshold=2.0",
        "surrogate={alpha=1.0}",
        "fires_at_threshold=true",
        "time_steps=3",
    )


@pytest.fixture(scope="session")
def perturb_to_fire(perturb):
    """Moves batch norm to where neurons of threshold 2 fire, ten times the VAEs'."""

    def perturb_to_fire(model):
        for module in perturb(model).modules():
            if hasattr(module, "running_mean"):
                with torch.no_grad():
                    module.weight.mul_(2)
                    module.bias.add_(0.7)
        return model

    return perturb_to_fire


@pytest.fixture(scope="session")
def naive_neuron():
    """The naive neuron of a protocol, its window written out as the papers give it."""

    def naive_neuron(protocol):
        windows = {
            "paper": (protocol.threshold, 0.2),
            "official_code": (0.0, 1.0),
        }
        centre, width = windows[protocol.surrogate]
        return naive.Neuron(centre, width, protocol.membrane_decay, protocol.threshold)

    return naive_neuron


@pytest.fixture(scope="session")
def naive_twin(naive_neuron):
    """The naive implementation of a model, with a copy of its weights."""

    def naive_twin(model, **options):
        protocol = model.protocol
        twin = {"ESVAE": naive.ESVAE, "FSVAE": naive.FSVAE, "ANNVAE": naive.ANNVAE}
        constants = (naive_neuron(protocol), protocol.time_steps) if model.spiking else ()
        name = type(model).__name__
        return twin[name](model.state_dict(), model.training, *constants, **options)

    return naive_twin


@pytest.fixture(scope="session")
def assert_same_state():
    """Running statistics of a model and of its naive twin are equal."""

    def assert_same_state(model, twin):
        compared = 0
        for name, value in model.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                torch.testing.assert_close(value, twin.weights[name], rtol=1e-9, atol=1e-12)
                compared += 1
        assert compared > 0

    return assert_same_state


@pytest.fixture(scope="session")
def assert_same_gradients():
    """Gradients by parameter name are equal, up to ``tolerance`` of the largest of them."""

    def assert_same_gradients(actual, expected, tolerance):
        assert actual.keys() == expected.keys()
        scale = max(gradient.abs().max().item() for gradient in expected.values())
        for name, gradient in expected.items():
            own_scale = gradient.abs().max().item()
            difference = (actual[name] - gradient).abs().max().item()
            assert difference <= tolerance * max(own_scale, 1e-2 * scale), name

    return assert_same_gradients
