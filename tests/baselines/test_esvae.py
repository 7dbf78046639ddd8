import pytest
import torch
from pydantic import ValidationError

from baselines.esvae import ESVAE, ReparameterisedSampling
from bench.model import Step

SHAPES = [(1, 32, 32), (3, 32, 32), (3, 64, 64)]
SETTINGS = ["latent_size=7", "time_steps=5"]
STEP = Step(progress=0.5, batches=10)


@pytest.fixture
def pair(double_precision, build, perturb, naive_twin):
    def pair(image_shape, training, *settings):
        model = perturb(build("esvae", image_shape, *SETTINGS, *settings)).train(training)
        return model, naive_twin(model)

    return pair


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def assert_fires(twin):
    assert len(twin.firing_rates) >= 10
    for name, rate in twin.firing_rates.items():
        assert 0.02 < rate < 0.98, f"{name} fires at {rate}: the comparison proves little"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("image_shape", "surrogate"),
    [*((shape, "official_code") for shape in SHAPES), (SHAPES[0], "paper")],
)
def test_losses_and_gradients_are_the_naive_ones(
    pair,
    random_images,
    seeded,
    assert_same_state,
    assert_same_gradients,
    image_shape,
    training,
    surrogate,
):
    model, twin = pair(image_shape, training, f"surrogate={surrogate}")
    images = random_images(3, image_shape)
    losses = model.losses(images, STEP, seeded())
    expected = twin.losses(images, STEP.progress, seeded())
    assert_fires(twin)
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert_same(value, expected[name])
    assert_same_state(model, twin)
    gradients = torch.autograd.grad(losses["loss"], list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    actual = dict(zip(names, gradients, strict=True))
    assert_same_gradients(actual, twin.gradients(expected["loss"]), 1e-7)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_images_and_latents_are_the_naive_ones(
    pair, random_images, seeded, assert_same_state, image_shape, training
):
    model, twin = pair(image_shape, training)
    images = random_images(3, image_shape)
    latents = model.encode(images, seeded())
    assert torch.equal(latents, twin.encode(images, seeded()))
    assert 0.02 < latents.mean() < 0.98
    reconstructions = model.reconstruct(images, seeded())
    assert_same(reconstructions, twin.reconstruct(images, seeded()))
    assert (reconstructions[0] - reconstructions[1]).abs().max() > 0.01
    samples = model.sample(3, seeded())
    assert_same(samples, twin.sample(3, seeded()))
    assert samples.shape == images.shape
    assert samples.abs().max() <= 1
    assert_same_state(model, twin)
    assert_fires(twin)


@pytest.mark.parametrize(
    ("rate", "uniforms", "spikes", "slope"),
    [
        (0.3, [0.2, 0.4, 0.79, 0.81], [1, 0, 0, 0], 3),
        (0.9, [0.1, 0.39, 0.41, 0.95], [1, 1, 1, 0], 2),
        (0.5, [0.5, 0.01, 0.99, 0.499], [0, 1, 0, 1], 4),
        (0.0, [0.0, 0.49, 0.51, 0.99], [0, 0, 0, 0], 2),
        (1.0, [0.0, 0.49, 0.51, 0.999], [1, 1, 1, 1], 2),
    ],
)
def test_sampling_thresholds_draws_with_a_window_of_one_half(
    monkeypatch, rate, uniforms, spikes, slope
):
    def draws(size, **_):
        return torch.tensor(uniforms).reshape(size)

    monkeypatch.setattr(torch, "rand", draws)
    rates = torch.tensor([[rate]], requires_grad=True)
    sampled = ReparameterisedSampling(4)(rates, None)
    assert sampled.flatten().tolist() == spikes
    sampled.sum().backward()
    assert rates.grad.item() == slope


def test_sampling_draws_anew_at_each_step_and_fires_at_the_rate(seeded):
    rates = torch.tensor([[0.0, 0.1, 0.5, 0.9, 1.0]])
    spikes = ReparameterisedSampling(20_000)(rates, seeded())
    torch.testing.assert_close(spikes.mean((0, 1)), rates[0], rtol=0, atol=0.015)
    assert spikes.unique().tolist() == [0, 1]
    repeats = (spikes[1:, 0, 2] == spikes[:-1, 0, 2]).float().mean()
    assert repeats.item() == pytest.approx(0.5, abs=0.02)


def test_posterior_rate_is_the_mean_of_the_encoders_spikes(build, perturb, random_images):
    model = perturb(build("esvae", (1, 32, 32), *SETTINGS)).eval()
    images = random_images(4, (1, 32, 32))
    rates = model.posterior_rate(images)
    torch.testing.assert_close(rates, model.encoder(images).sum(0) / 5)
    assert rates.shape == (4, 7)
    assert rates.min() >= 0
    assert rates.max() <= 1
    assert len(rates.unique()) > 2


def test_prior_rates_are_within_bounds_and_differ(build, seeded):
    rates = build("esvae", (1, 32, 32), *SETTINGS).prior_rate(50, seeded())
    assert rates.shape == (50, 7)
    assert rates.min() > 0
    assert rates.max() < 1
    assert rates.std(0).min() > 0.01


@pytest.mark.parametrize(
    ("settings", "effective"),
    [
        (["learning_rate=1e-3"], 1e-3),
        (["learning_rate=3e-3", "batch_size=256", "learning_rate_batch_size=250"], 3.072e-3),
        (["learning_rate=1e-3", "batch_size=64", "learning_rate_batch_size=250"], 2.56e-4),
    ],
)
def test_the_prior_learns_at_ten_times_the_effective_rate(build, settings, effective):
    model = build("esvae", (1, 32, 32), *SETTINGS, *settings)
    rates = {}
    for group in model.optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in rates
            rates[id(parameter)] = group["lr"]
    for name, parameter in model.named_parameters():
        factor = 10 if name.startswith("prior.") else 1
        assert rates[id(parameter)] == pytest.approx(factor * effective)


def test_the_first_step_of_adam_moves_the_prior_ten_times_as_far(build, random_images):
    model = build(
        "esvae", (1, 32, 32), *SETTINGS, "optimizer=adam", "weight_decay=0", "learning_rate=1e-3"
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.training_step(random_images(4, (1, 32, 32)), STEP)
    moved = {
        name: (value - before[name]).abs().max().item() for name, value in model.named_parameters()
    }
    assert moved["prior.0.weight"] == pytest.approx(1e-2, rel=0.01)
    assert moved["prior.0.bias"] == pytest.approx(1e-2, rel=0.01)
    assert moved["encoder.linear.synapse.weight"] == pytest.approx(1e-3, rel=0.01)
    assert moved["decoder.readout.synapse.weight"] == pytest.approx(1e-3, rel=0.01)


def test_the_prior_learns_from_the_divergence_only(build, random_images, seeded):
    model = build("esvae", (1, 32, 32), *SETTINGS)
    losses = model.losses(random_images(4, (1, 32, 32)), STEP, seeded())
    prior = list(model.prior.parameters())
    unused = torch.autograd.grad(
        losses["reconstruction_loss"], prior, retain_graph=True, allow_unused=True
    )
    assert unused == (None, None)
    assert all(gradient.abs().max() > 0 for gradient in torch.autograd.grad(losses["mmd"], prior))


def test_it_carries_none_of_fsvaes_nets(build):
    parts = {name.split(".")[0] for name in build("esvae", (1, 32, 32)).state_dict()}
    assert parts == {"encoder", "decoder", "prior"}


def test_options_refuse_everything():
    with pytest.raises(ValidationError, match="k"):
        ESVAE.Options.model_validate({"k": 20})
