from contextlib import contextmanager

import naive
import pytest
import torch

from bench.protocol import load_protocol
from bench.registry import backends, models

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


@pytest.fixture
def double_precision():
    """Everything in float64: rounding then cannot turn a spike into none."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def resolve():
    def resolve(model, *settings):
        return load_protocol("smoke", settings).resolve(model, "digits")

    return resolve


@pytest.fixture(scope="session")
def build(resolve):
    """Builds a model by its name with equally seeded weights."""

    def build(name, image_shape, *settings, backend="reference", seed=0):
        model_class = models.load(name)
        spiking = backends.load(backend)() if model_class.spiking else None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return model_class(image_shape, resolve(name, *settings), spiking)

    return build


@pytest.fixture(scope="session")
def perturb():
    """Moves batch norm away from its initial values, to where spiking layers fire."""

    def perturb(model, seed=1):
        generator = torch.Generator().manual_seed(seed)

        def uniform(like, low, high):
            return low + (high - low) * torch.rand(like.shape, generator=generator)

        for module in model.modules():
            if hasattr(module, "running_mean"):
                with torch.no_grad():
                    module.weight.copy_(uniform(module.weight, 0.7, 2.0))
                    module.bias.copy_(uniform(module.bias, -0.1, 0.2))
                module.running_mean.copy_(uniform(module.running_mean, -0.15, 0.15))
                module.running_var.copy_(uniform(module.running_var, 0.05, 0.2))
        return model

    return perturb


@pytest.fixture(scope="session")
def random_images():
    def random_images(n, image_shape, seed=2):
        generator = torch.Generator().manual_seed(seed)
        return torch.rand((n, *image_shape), generator=generator) * 2 - 1

    return random_images


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
def seeded():
    def seeded(seed=11):
        return torch.Generator().manual_seed(seed)

    return seeded


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
