import pytest
import torch
from pydantic import ValidationError

from baselines.ann_vae import ANNVAEOptions
from bench.model import Step

SHAPES = [(1, 32, 32), (3, 32, 32), (3, 64, 64)]
SETTINGS = ["latent_size=5"]


@pytest.fixture
def pair(double_precision, build, perturb, naive_twin):
    def pair(image_shape, training, *settings):
        model = perturb(build("ann_vae", image_shape, *SETTINGS, *settings)).train(training)
        return model, naive_twin(model)

    return pair


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_losses_and_gradients_are_the_naive_ones(
    pair, random_images, seeded, assert_same_state, assert_same_gradients, image_shape, training
):
    model, twin = pair(image_shape, training)
    images = random_images(3, image_shape)
    losses = model.losses(images, Step(0.5, 10), seeded())
    expected = twin.losses(images, 1 / images[0].numel(), seeded())
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert_same(value, expected[name])
    assert_same_state(model, twin)
    gradients = torch.autograd.grad(losses["loss"], list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    actual = dict(zip(names, gradients, strict=True))
    assert_same_gradients(actual, twin.gradients(expected["loss"]), 1e-8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_images_and_latents_are_the_naive_ones(
    pair, random_images, seeded, assert_same_state, image_shape, training
):
    model, twin = pair(image_shape, training)
    images = random_images(3, image_shape)
    assert_same(model.encode(images, seeded()), twin.encode(images, seeded()))
    assert_same(model.reconstruct(images, seeded()), twin.reconstruct(images, seeded()))
    samples = model.sample(3, seeded())
    assert_same(samples, twin.sample(3, seeded()))
    assert samples.shape == images.shape
    assert samples.abs().max() <= 1
    assert_same_state(model, twin)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("elbo", 1 / 3072), ("per_batch", 1 / 40), ("0.25", 0.25), ("0", 0.0), ("2", 2.0)],
)
def test_kl_weight(build, random_images, seeded, setting, expected):
    model = build("ann_vae", (3, 32, 32), *SETTINGS, f"models.ann_vae.kl_weight={setting}")
    losses = model.losses(random_images(3, (3, 32, 32)), Step(0.5, batches=40), seeded())
    assert losses["kl"] > 0
    weighted = (losses["loss"] - losses["reconstruction_loss"]).item()
    assert weighted == pytest.approx(expected * losses["kl"].item(), rel=1e-3, abs=1e-6)


def test_the_weight_per_batch_changes_with_the_loader(build, random_images, seeded):
    setting = "models.ann_vae.kl_weight=per_batch"
    model = build("ann_vae", (1, 32, 32), *SETTINGS, setting).eval()
    images = random_images(3, (1, 32, 32))
    few, many = (model.test_loss(images, Step(0, n), seeded()).item() for n in (2, 200))
    kl = model.losses(images, Step(0, 2), seeded())["kl"].item()
    assert few - many == pytest.approx(kl * (1 / 2 - 1 / 200), rel=1e-3)


def test_latents_are_drawn_anew_but_reproducibly(build, random_images, seeded):
    model = build("ann_vae", (1, 32, 32), *SETTINGS).eval()
    images = random_images(3, (1, 32, 32))
    first = model.encode(images, seeded(1))
    assert torch.equal(first, model.encode(images, seeded(1)))
    assert not torch.equal(first, model.encode(images, seeded(2)))


def test_it_is_not_spiking(build):
    model = build("ann_vae", (1, 32, 32), *SETTINGS)
    assert not model.spiking
    assert model.spiking_layers() == {}
    assert len(model.activation_layers()) == 4 + 4 + 1


@pytest.mark.parametrize("weight", ["elbo", "per_batch", 0, 0.3])
def test_options_accept(weight):
    assert ANNVAEOptions(kl_weight=weight).kl_weight == weight


@pytest.mark.parametrize(
    "options",
    [
        {"kl_weight": -0.1},
        {"kl_weight": "official"},
        {"kl_weight": float("nan")},
        {"kl_weight": float("inf")},
        {"weight": 1.0},
    ],
)
def test_options_refuse(options):
    with pytest.raises(ValidationError):
        ANNVAEOptions.model_validate(options)


def test_a_model_refuses_options_it_does_not_know(build):
    with pytest.raises(ValidationError, match="beta"):
        build("ann_vae", (1, 32, 32), "models.ann_vae.beta=4")
