"""VQ-SVAE against a plain loop over time, and what its parts must keep to."""

import naive_vq
import pytest
import torch
from firing import firing_rates
from hypothesis import given
from hypothesis import strategies as st

from baselines.vq_networks import Quantiser, leaky_sum, synaptic_potentials
from baselines.vq_svae import VQSVAE, image_of, pixel_variance, straight_through
from bench.backend import protocol_neuron
from bench.model import Step

GREY = (1, 28, 28)
STEP = Step(progress=0.0, batches=1, stage="tokens")
OURS = "models.vq_svae.variant=ours_32"


@pytest.fixture
def twins(double_precision, official_neuron, build, perturb_to_fire):
    """A model whose neurons fire, and its naive twin with a copy of the weights."""

    def twins(training, *settings, image_shape=GREY, backend="reference"):
        model = build("vq_svae", image_shape, *official_neuron, *settings, backend=backend)
        perturb_to_fire(model).train(training)
        model.image_variance.fill_(0.1)
        return model, naive_vq.VQSVAE(model)

    return twins


def sizes(modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_the_network_has_the_official_numbers_of_parameters(build):
    model = build("vq_svae", GREY)
    quantiser = [model.quantiser, model.spike_generator]
    parts = sizes([model.encoder]), sizes(quantiser), sizes([model.decoder])
    assert parts == (20_080, 2_353, 28_225)
    assert sizes([model]) == 50_658


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize(("training", "image_shape"), [(True, GREY), (False, (3, 32, 32))])
def test_outputs_gradients_and_statistics_equal_loops_over_time(
    twins, random_images, assert_same_gradients, seeded, training, image_shape, backend
):
    settings = () if image_shape == GREY else (OURS,)
    model, twin = twins(training, *settings, image_shape=image_shape, backend=backend)
    fired = firing_rates(model)
    images = random_images(2, image_shape)
    losses = model.losses(images)
    theirs = twin.losses(images)
    names = ["loss", "reconstruction_loss", "feature_loss", "potential_loss"]
    assert list(losses) == names
    torch.testing.assert_close(list(losses.values()), [sum(theirs), *theirs], rtol=1e-9, atol=1e-12)
    assert all(0.02 < rate < 0.98 for rate in fired.values()), fired
    losses["loss"].backward()
    sum(theirs).backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    assert_same_gradients(gradients, {name: twin.weights[name].grad for name in gradients}, 1e-9)
    for key, value in model.named_buffers():
        torch.testing.assert_close(value, twin.weights[key], rtol=1e-9, atol=1e-12)
    if not training:
        images = model.reconstruct(images, seeded()), twin.reconstruction(images)
        torch.testing.assert_close(*images, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("double_precision")
def test_spikes_are_identical_on_all_backends(
    build, official_neuron, perturb_to_fire, random_images, all_backends
):
    found = []
    for backend in all_backends:
        model = build("vq_svae", GREY, *official_neuron, backend=backend)
        losses = perturb_to_fire(model).train().training_step(random_images(2, GREY), STEP)
        found.append((losses, model.eval().encode(random_images(3, GREY, seed=5), None)))
    losses, latents = found[0]
    assert latents.shape == (3, 3, 16 * 7 * 7)
    for other_losses, other_latents in found[1:]:
        assert torch.equal(other_latents, latents)
        torch.testing.assert_close(other_losses, losses, rtol=1e-9, atol=1e-12)


def test_gradients_pass_the_codebook_as_if_it_were_not_there(twins, random_images):
    model, _ = twins(True)
    pixels = random_images(2, GREY) / 2
    feature = torch.randn(2, 16, 7, 7, generator=torch.Generator().manual_seed(0))
    codes = model.quantiser.codes(model.quantiser.tokens(feature)).detach()
    gradients = []
    for leaf, given_codes in (
        (feature.requires_grad_(), lambda: straight_through(feature, codes)),
        (codes.requires_grad_(), lambda: codes),
    ):
        output = model.decoder(model.spike_generator(given_codes()))
        gradients += torch.autograd.grad((output - pixels).square().mean(), leaf)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


@pytest.mark.usefixtures("double_precision")
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_the_feature_is_the_last_potential_or_the_firing_rate_at_the_ends_of_alpha(steps, seed):
    torch.manual_seed(seed)
    spikes = (torch.rand(steps, 2, 16, 3, 3) > 0.5).double()
    quantiser = Quantiser()
    assert quantiser.alpha == 0.5
    last = sum(0.8 ** (steps - 1 - t) * spikes[t] for t in range(steps))
    torch.testing.assert_close(leaky_sum(spikes), last)
    for alpha, expected in ((0.0, last), (1.0, spikes.mean(0))):
        torch.nn.init.constant_(quantiser.alpha, alpha)
        torch.testing.assert_close(quantiser.feature(spikes), expected)
    potentials = synaptic_potentials(spikes)
    last = sum(0.5 ** (steps - t) * spikes[t] for t in range(steps))
    torch.testing.assert_close(potentials[-1], last)
    assert torch.equal(potentials[:-1], synaptic_potentials(spikes[:-1]))


def test_tokens_are_the_nearest_codes():
    torch.manual_seed(0)
    quantiser = Quantiser()
    feature = torch.randn(3, 16, 4, 5)
    distances = torch.cdist(feature.movedim(1, -1).reshape(-1, 16), quantiser.codebook)
    tokens = quantiser.tokens(feature)
    assert torch.equal(tokens.flatten(), distances.argmin(1))
    assert torch.equal(quantiser.codes(tokens)[2, :, 1, 3], quantiser.codebook[tokens[2, 1, 3]])


def test_the_reconstruction_loss_is_divided_by_the_variance_of_the_training_images(
    build, random_images
):
    model = build("vq_svae", GREY)
    training_images = (random_images(5, GREY, seed=3) * 60 + 90).to(torch.uint8)
    variance = (training_images.double() / 255).var()
    torch.testing.assert_close(pixel_variance(training_images), variance)
    model.begin_stage("tokens", training_images)
    assert model.image_variance == 1
    images = random_images(2, GREY)
    model.training_step(images, STEP)
    assert model.image_variance.item() == pytest.approx(variance.item())
    losses = model.eval().losses(images)
    output = model.decoder(model._maps(model.encode(images, None)))
    error = (output - images / 2).square().mean() / variance
    assert losses["reconstruction_loss"].item() == pytest.approx(error.item(), rel=1e-5)
    assert torch.equal(model.test_loss(images, STEP, None), losses["loss"])


def test_images_are_twice_the_output_within_the_range_of_images():
    output = torch.tensor([-1.0, -0.5, 0.1, 0.8])
    torch.testing.assert_close(image_of(output), torch.tensor([-1.0, -1.0, 0.2, 1.0]))


def test_networks_are_for_their_images_and_the_own_variant_is_named(resolve):
    official, ours = resolve("vq_svae"), resolve("vq_svae", OURS)
    assert VQSVAE.unsupported(GREY, official) is None
    assert VQSVAE.unpublished(GREY, official) is None
    assert "variant=ours_32" in VQSVAE.unsupported((1, 32, 32), official)
    assert VQSVAE.unsupported((3, 32, 32), ours) is None
    assert VQSVAE.unpublished((1, 32, 32), ours) == "ours_32"
    assert "32x32" in VQSVAE.unsupported(GREY, ours)


def test_a_potential_equal_to_the_threshold_fires(resolve, official_neuron, backend):
    spec = protocol_neuron(resolve("vq_svae", *official_neuron))
    currents = torch.tensor([2.0, 1.0, 1.5, 1.0])[:, None]
    assert backend.neuron(spec)(currents).flatten().tolist() == [1, 0, 1, 0]
    assert not protocol_neuron(resolve("vq_svae")).fires_at_threshold
