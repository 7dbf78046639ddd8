"""Models on a GPU: losses, gradients and images are those of the CPU."""

import pytest
import torch

from bench.model import Step

SHAPE = (1, 32, 32)
SETTINGS = ["latent_size=6", "time_steps=9", "models.fsvae.k=3"]
STEP = Step(0.5, 10)
MODELS = {
    "ann_vae": ("ann_vae", []),
    "esvae": ("esvae", []),
    "fsvae-prefix": ("fsvae", ["models.fsvae.posterior_statistics=prefix"]),
    "fsvae-running": ("fsvae", ["models.fsvae.posterior_statistics=running"]),
    "taid": ("taid", []),
}


@pytest.fixture(params=["reference", "snntorch", "spikingjelly", "fused"])
def backend_name(request):
    return request.param


@pytest.fixture(params=MODELS)
def pair(request, backend_name, double_precision, build, perturb, device):
    """A model on the CPU and its copy on the GPU, in float64."""
    name, settings = MODELS[request.param]
    if name == "ann_vae" and backend_name != "reference":
        pytest.skip("an ANN has no spiking backend")

    def built():
        return perturb(build(name, SHAPE, *SETTINGS, *settings, backend=backend_name))

    return built(), built().to(device)


@pytest.mark.parametrize("training", [True, False])
def test_losses_and_gradients_are_those_of_the_cpu(
    pair, training, random_images, same_draws, device
):
    found = []
    for model in pair:
        model.train(training)
        images = random_images(4, SHAPE).double().to(model.device)
        with same_draws(seed=3):
            losses = model.losses(images, STEP)
        losses["loss"].backward()
        gradients = {name: value.grad.cpu() for name, value in model.named_parameters()}
        state = {name: value.cpu() for name, value in model.state_dict().items()}
        found.append(({name: value.item() for name, value in losses.items()}, gradients, state))
    (losses, gradients, state), (on_gpu, gpu_gradients, gpu_state) = found
    assert on_gpu == pytest.approx(losses, rel=1e-9)
    torch.testing.assert_close(gpu_gradients, gradients, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gpu_state, state, rtol=1e-8, atol=1e-10)


def test_reconstructions_and_samples_are_those_of_the_cpu(pair, random_images, same_draws):
    found = []
    for model in pair:
        model.eval()
        images = random_images(4, SHAPE).double().to(model.device)
        with torch.no_grad(), same_draws(seed=3):
            found.append([model.reconstruct(images, None).cpu(), model.sample(4, None).cpu()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-9)
