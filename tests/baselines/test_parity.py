import pytest
import torch

from bench.model import Step

SHAPES = [(1, 32, 32), (3, 32, 32), (3, 64, 64)]
SETTINGS = ["latent_size=6", "time_steps=4", "models.fsvae.k=4", "models.taid.k=4"]
MODELS = {
    "esvae": ("esvae", []),
    "fsvae_prefix": ("fsvae", ["models.fsvae.posterior_statistics=prefix"]),
    "fsvae_running": ("fsvae", ["models.fsvae.posterior_statistics=running"]),
    "taid": ("taid", []),
}
STEP = Step(progress=1.0, batches=10)

# SpikingJelly computes u - u / tau. With a decay of 1/2 or 1 that is exact; with the papers' 1/4
# only up to rounding, which in float32 moves one spike in 10^7 and then all that depends on it.
# The float32 case with the papers' constants is small enough to meet none. The fused backend's
# convolutions sum in another order, so its whole networks are compared in float64 only.
CASES = [
    ((1, 32, 32), torch.float32, 0.25, "official_code"),
    *((shape, torch.float64, 0.25, "official_code") for shape in SHAPES),
    ((1, 32, 32), torch.float64, 0.25, "paper"),
    ((1, 32, 32), torch.float32, 0.5, "official_code"),
    ((3, 32, 32), torch.float32, 0.5, "paper"),
    ((1, 32, 32), torch.float32, 1.0, "official_code"),
    ((1, 32, 32), torch.float64, 1.0, "paper"),
]


@pytest.fixture(params=CASES, ids=str)
def case(request):
    """Image shape and settings, with tensors of the case's precision by default."""
    image_shape, dtype, decay, surrogate = request.param
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield image_shape, [f"membrane_decay={decay}", f"surrogate={surrogate}"]
    torch.set_default_dtype(before)


@pytest.fixture(params=MODELS)
def on_all_backends(request, build, perturb, all_backends):
    """The same weights on each backend; the reference comes first."""
    name, settings = MODELS[request.param]

    def on_all_backends(image_shape, training, *more):
        if name == "taid" and torch.get_default_dtype() == torch.float32:
            pytest.skip("its spikes are those of fsvae")
        built = [
            build(name, image_shape, *SETTINGS, *settings, *more, backend=backend, seed=i)
            for i, backend in enumerate(all_backends)
        ]
        weights = perturb(built[0]).state_dict()
        for model in built[1:]:
            model.load_state_dict(weights, strict=True)
        return [model.train(training) for model in built]

    return on_all_backends


def rates(model):
    """Firing rates by layer, filled by the passes that follow."""
    found = {}
    for name, layer in model.spiking_layers().items():
        layer.register_forward_hook(
            lambda _module, _inputs, output, name=name: found.update(
                {name: output.double().mean().item()}
            )
        )
    return found


@pytest.mark.parametrize("training", [True, False])
def test_images_and_latents_are_identical(case, on_all_backends, random_images, seeded, training):
    image_shape, settings = case
    images = random_images(2, image_shape)
    results = []
    for model in on_all_backends(image_shape, training, *settings):
        fired = rates(model)
        with torch.no_grad():
            results.append(
                [
                    model.encode(images, seeded()),
                    model.reconstruct(images, seeded()),
                    model.sample(2, seeded()),
                ]
            )
        assert all(0.02 < rate < 0.98 for rate in fired.values())
    *same_synapses, fused = results
    for other in same_synapses[1:]:
        for tensor, expected in zip(other, results[0], strict=True):
            assert torch.equal(tensor, expected)
    if torch.get_default_dtype() == torch.float64:
        assert torch.equal(fused[0], results[0][0])
        torch.testing.assert_close(fused[1:], results[0][1:])


@pytest.mark.parametrize("training", [True, False])
def test_losses_are_equal_and_gradients_within_rounding(
    case, all_backends, on_all_backends, random_images, seeded, assert_same_gradients, training
):
    image_shape, settings = case
    images = random_images(2, image_shape)
    results = []
    for model in on_all_backends(image_shape, training, *settings):
        losses = model.losses(images, STEP, seeded())
        losses["loss"].backward()
        gradients = {name: value.grad for name, value in model.named_parameters()}
        results.append((losses, gradients, model.state_dict()))
    expected_losses, expected_gradients, expected_state = results[0]
    for backend, (losses, gradients, state) in zip(all_backends, results, strict=True):
        if backend == "fused" and torch.get_default_dtype() == torch.float32:
            continue
        exactly = {} if backend == "fused" else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(losses, expected_losses, **exactly)
        torch.testing.assert_close(state, expected_state, **exactly)
        assert_same_gradients(gradients, expected_gradients, 1e-4)


@pytest.mark.usefixtures("double_precision")
def test_scheduled_sampling_is_identical(on_all_backends, random_images, seeded):
    images = random_images(3, (1, 32, 32))
    losses = [
        model.losses(images, STEP, seeded())["loss"].item()
        for model in on_all_backends((1, 32, 32), True, "time_steps=10")
    ]
    assert losses[0] == losses[1] == losses[2] == pytest.approx(losses[3], rel=1e-12)
