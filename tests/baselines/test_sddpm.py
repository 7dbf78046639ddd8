"""SDDPM: its U-Net, the diffusion and both samplers, and its place in the suite."""

import math

import naive_sddpm
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bench
from baselines.gaussian_diffusion import (
    STEPS,
    ddim,
    ddim_steps,
    ddpm,
    noise_rates,
    noisy,
    signal_shares,
    without_noise,
)
from baselines.sddpm import SDDPM
from bench.errors import BenchError
from bench.model import Step
from bench.protocol import load_protocol
from bench.testing import check_model

SMALL = (1, 8, 8)
TRAINING = Step(progress=0.5, batches=1)
NEURON = (
    "membrane_decay=1.0",
    "threshold=1.0",
    "surrogate={alpha=2.0}",
    "fires_at_threshold=true",
    "time_steps=3",
)
NARROW = "models.sddpm.width=4"
FAST = ("models.sddpm.sampler=ddim", "models.sddpm.sampling_steps=3")
# A normal distribution within [-1, 1], so that no prediction is clipped.
MEAN, DEVIATION = 0.2, 0.1
DRAWS = 20_000


@pytest.fixture
def narrow(build, perturb_to_fire):
    """Builds a model with a narrow U-Net, whose neurons fire and whose output is not nearly 0."""

    def narrow(*settings, image_shape=SMALL, **arguments):
        given = (*NEURON, NARROW, *FAST, *settings)
        model = perturb_to_fire(build("sddpm", image_shape, *given, **arguments))
        with torch.no_grad():
            model.unet.last.to_image.weight.mul_(1e5)
        return model

    return narrow


class Tenth(torch.nn.Module):
    def forward(self, images, steps):
        return images / 10


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def expected_size(width, channels):
    """Number of parameters of the U-Net, layer by layer."""

    def convolution(inputs, outputs, kernel=3):
        return kernel**2 * inputs * outputs + outputs

    def normalised(inputs, outputs):
        return convolution(inputs, outputs) + 2 * outputs

    def block(inputs, outputs):
        shortcut = convolution(inputs, outputs, 1) if inputs != outputs else 0
        projection = 4 * width * outputs + outputs
        return normalised(inputs, outputs) + normalised(outputs, outputs) + projection + shortcut

    a, b, c = width, 2 * width, 4 * width
    down = [(a, a), (a, a), (a, b), (b, b), (b, b), (b, b), (b, c), (c, c)]
    up = [(c + c, c), (c + c, c), (c + b, c), (c + b, b), (b + b, b), (b + b, b)]
    up += [(b + b, b), (b + b, b), (b + a, b), (b + a, a), (a + a, a), (a + a, a)]
    middle = [(c, c), (c, c)]
    resampling = [a, b, b, c, b, b]
    embedding = (a * c + c) + (c * c + c)
    ends = normalised(channels, a) + normalised(a, a)
    ends += 2 * a + convolution(a, channels) + normalised(channels, channels)
    blocks = sum(block(*sizes) for sizes in down + middle + up)
    return embedding + ends + blocks + sum(normalised(n, n) for n in resampling)


# The network


def test_the_network_has_the_official_number_of_parameters_that_learn(build):
    with torch.device("meta"):
        model = build("sddpm", (3, 32, 32), *NEURON)
    assert size(model) == 66_568_413 == expected_size(128, 3)
    assert len(model.spiking_layers()) == 51
    assert [name for name, _ in model.named_parameters() if not name.startswith("unet.")] == []


@pytest.mark.parametrize(("width", "channels"), [(2, 1), (4, 3), (6, 3)])
def test_narrow_networks_have_as_many_layers(build, width, channels):
    model = build("sddpm", (channels, 16, 16), *NEURON, f"models.sddpm.width={width}")
    assert size(model) == expected_size(width, channels)
    assert len(model.spiking_layers()) == 51


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.usefixtures("double_precision")
def test_the_network_equals_a_loop_over_time(
    narrow, random_images, assert_same_gradients, assert_same_state, training, backend
):
    model = narrow(backend=backend).train(training)
    images, steps = random_images(2, SMALL), torch.tensor([0, 700])
    twin = naive_sddpm.UNet(model)
    found = [model.unet(images, steps), twin.noise(images, steps)]
    assert found[1].std() > 0.1
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    for noise in found:
        noise.square().mean().backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    expected = {name: twin.weights[name].grad for name in gradients}
    assert_same_gradients(gradients, expected, 1e-8)
    assert_same_state(model, twin)


@pytest.mark.usefixtures("double_precision")
def test_steps_and_samples_are_equal_on_all_backends(narrow, random_images, all_backends, seeded):
    found = []
    for backend in all_backends:
        model = narrow(backend=backend).train()
        torch.manual_seed(5)
        losses = [model.training_step(random_images(2, SMALL), TRAINING)["loss"] for _ in range(2)]
        found.append([*losses, model.eval().sample(2, seeded())])
    for values in found[1:]:
        for value, expected in zip(values, found[0], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-9)


def test_the_prediction_depends_on_no_call_before_and_on_no_other_image(narrow, random_images):
    model, images = narrow().eval(), random_images(4, SMALL)
    steps = torch.tensor([3, 999, 40, 500])
    with torch.no_grad():
        together = model.unet(images, steps)
        assert torch.equal(model.unet(images, steps), together)
        for place in (2, 0):
            alone = model.unet(images[place : place + 1], steps[place : place + 1])
            torch.testing.assert_close(alone[0], together[place], rtol=1e-4, atol=1e-5)


def test_the_first_weights_are_the_official_code_s(build):
    """Xavier's rule with biases of 0, but for two convolutions; the last one is nearly 0."""
    model = build("sddpm", (3, 16, 16), *NEURON, "models.sddpm.width=16")
    modules = dict(model.unet.named_modules())
    for name, module in modules.items():
        if not isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            continue
        inputs, outputs = module.weight.shape[1], module.weight.shape[0]
        places = module.weight[0, 0].numel()
        bound = math.sqrt(6 / (places * (inputs + outputs)))
        if name in {"second.synapse", "last.refinement.synapse"}:
            assert module.bias.abs().max() > 0
            bound = 1 / math.sqrt(places * inputs)
        else:
            assert module.bias.abs().max() == 0
        if name == "last.to_image":
            bound *= 1e-5
        largest = module.weight.abs().max().item()
        assert 0.9 * bound < largest <= bound * (1 + 1e-6), name


# The diffusion


def test_the_image_s_share_is_the_product_of_what_each_step_keeps():
    kept = [1 - (1e-4 + (0.02 - 1e-4) * step / 999) for step in range(STEPS)]
    for step in (0, 1, 499, 999):
        assert signal_shares()[step].item() == pytest.approx(math.prod(kept[: step + 1]), rel=1e-12)


@pytest.mark.usefixtures("double_precision")
def test_the_image_is_recovered_from_its_noise_at_every_step(random_images, seeded):
    image, noise = random_images(1, SMALL), torch.randn(1, *SMALL, generator=seeded())
    for share in signal_shares().tolist():
        found = without_noise(noisy(image, noise, share), noise, share)
        torch.testing.assert_close(found, image, rtol=0, atol=1e-12)


def test_noisy_images_have_the_variance_of_the_step(seeded):
    images, noise = (
        torch.full((DRAWS, 1, 1, 1), 0.5),
        torch.randn(DRAWS, 1, 1, 1, generator=seeded()),
    )
    share = 0.36
    values = noisy(images, noise, share)
    assert values.mean().item() == pytest.approx(0.6 * 0.5, abs=4 * 0.8 / math.sqrt(DRAWS))
    assert values.var().item() == pytest.approx(0.64, rel=0.05)


def ideal_noise(images, steps):
    """The best prediction of the noise, of images from the normal distribution."""
    share = signal_shares()[steps][:, None, None, None]
    variance = share * DEVIATION**2 + 1 - share
    return (1 - share).sqrt() * (images - share.sqrt() * MEAN) / variance


@pytest.mark.usefixtures("double_precision")
def test_ddpm_samples_have_the_mean_and_variance_of_the_closed_form(seeded):
    noise = torch.randn(DRAWS, 1, 1, 1, generator=seeded(1))
    samples = ddpm(ideal_noise, noise, seeded(2))
    mean, variance = 0.0, 1.0
    betas, shares = noise_rates().tolist(), signal_shares().tolist()
    for step in reversed(range(STEPS)):
        share, before = shares[step], shares[step - 1] if step else 1.0
        # The predicted image is the mean of a normal posterior, which is linear in x_t.
        slope = math.sqrt(share) * DEVIATION**2 / (share * DEVIATION**2 + 1 - share)
        constant = MEAN - slope * math.sqrt(share) * MEAN
        of_image = math.sqrt(before) * betas[step] / (1 - share)
        of_noisy = math.sqrt(1 - betas[step]) * (1 - before) / (1 - share)
        factor = of_image * slope + of_noisy
        mean = factor * mean + of_image * constant
        variance = factor**2 * variance + (betas[step] if step else 0.0)
    assert mean == pytest.approx(MEAN, abs=1e-2)
    error = math.sqrt(variance / DRAWS)
    assert samples.mean().item() == pytest.approx(mean, abs=4 * error)
    assert samples.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / DRAWS))


@given(st.integers(1, 60))
def test_ddim_samples_are_the_linear_map_of_the_closed_form(evaluations):
    noise = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None, None, None]
    samples = ddim(ideal_noise, noise, evaluations)
    shares = [signal_shares()[step].item() for step in ddim_steps(evaluations)]

    def deviation(share):
        return math.sqrt(share * DEVIATION**2 + 1 - share)

    # With z = (x - sqrt(a) MEAN) / deviation(a), a step multiplies z by a cosine of an angle.
    factor = 1.0
    for share, after in zip(shares, [*shares[1:], 1.0], strict=True):
        along = math.sqrt(share * after) * DEVIATION**2 + math.sqrt((1 - share) * (1 - after))
        factor *= along / (deviation(share) * deviation(after))
    start = (noise - math.sqrt(shares[0]) * MEAN) / deviation(shares[0])
    expected = (MEAN + DEVIATION * factor * start).clamp(-1, 1)
    torch.testing.assert_close(samples, expected, rtol=1e-9, atol=1e-9)


def test_ddim_evaluates_evenly_spaced_steps_from_the_last():
    assert ddim_steps(1) == [999]
    assert ddim_steps(STEPS) == list(reversed(range(STEPS)))
    assert ddim_steps(50) == list(range(999, 0, -20))
    seen = []
    ddim(lambda images, steps: seen.append(steps.tolist()) or images, torch.ones(2, *SMALL), 3)
    assert seen == [[999, 999], [666, 666], [333, 333]]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_predicted_images_are_clipped(sampler, seeded):
    noise = torch.randn(4, *SMALL, generator=seeded())
    bounds = []

    def network(images, steps):
        bounds.append(images.abs().max().item())
        return torch.zeros_like(images)

    samples = ddim(network, noise, STEPS) if sampler == "ddim" else ddpm(network, noise, seeded())
    assert samples.abs().max() <= 1
    assert max(bounds[1:]) < 10


def test_ddim_goes_on_with_the_noise_that_fits_the_clipped_image():
    """One pixel and two steps by hand; the first prediction is clipped to 1."""
    first, second = (signal_shares()[step].item() for step in ddim_steps(2))

    def network(images, steps):
        return -images if steps.item() == STEPS - 1 else 0.95 * images

    samples = ddim(network, torch.full((1, 1, 1, 1), 0.7), 2)
    left = (0.7 - math.sqrt(first)) / math.sqrt(1 - first)
    after = math.sqrt(second) + math.sqrt(1 - second) * left
    expected = after * (1 - 0.95 * math.sqrt(1 - second)) / math.sqrt(second)
    assert 0.1 < expected < 0.9
    assert samples.item() == pytest.approx(expected, rel=1e-5)


# The model


@pytest.mark.usefixtures("double_precision")
def test_a_step_of_adam_on_the_clipped_gradient(narrow, random_images):
    images = random_images(2, SMALL)
    settings = ["optimizer=adam", "learning_rate=1e-3", "weight_decay=0.0"]
    settings.append("models.sddpm.gradient_norm=0.01")
    model, other = narrow(*settings).train(), narrow(*settings).train()
    torch.manual_seed(4)
    other.noise_error(images, None).backward()
    gradients = {name: value.grad for name, value in other.named_parameters()}
    norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    assert norm > 0.01
    torch.manual_seed(4)
    assert list(model.training_step(images, TRAINING)) == ["loss"]
    for name, value in model.named_parameters():
        gradient = gradients[name] * 0.01 / norm
        expected = other.get_parameter(name) - 1e-3 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


def test_it_learns_the_noise_of_a_single_image(narrow):
    model = narrow("learning_rate=1e-2", "time_steps=1").train()
    images = torch.full((8, *SMALL), 0.5)
    torch.manual_seed(0)
    losses = [model.training_step(images, TRAINING)["loss"].item() for _ in range(40)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_test_loss_has_the_generator_s_draws(narrow, random_images, seeded):
    model, images = narrow().eval(), random_images(3, SMALL)
    losses = [model.test_loss(images, TRAINING, seeded(seed)) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("sampler", "evaluations"), [("ddim", 3), ("ddpm", STEPS)])
def test_samples_depend_on_the_generator_alone(narrow, seeded, sampler, evaluations):
    options = {"sampler": sampler, "sampling_steps": evaluations}
    model = narrow(*(f"models.sddpm.{name}={value}" for name, value in options.items())).eval()
    if sampler == "ddpm":
        # A thousand evaluations of the U-Net take long.
        model.unet = Tenth()
    counted = []
    model.sampling_network().register_forward_hook(lambda *_: counted.append(1))
    with torch.no_grad():
        first, second = model.sample(2, seeded(3)), model.sample(2, seeded(3))
        other = model.sample(2, seeded(4))
    assert len(counted) == 3 * evaluations
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == (2, *SMALL)
    assert first.abs().max() <= 1


def test_another_threshold_when_sampling_moves_samples_of_the_same_weights(narrow, seeded):
    """Threshold guidance: the weights of one threshold, sampled with another."""
    model = narrow().eval()
    for threshold, same in ((1.0, True), (0.9, False)):
        moved = narrow(f"threshold={threshold}").eval()
        moved.load_state_dict(model.state_dict())
        with torch.no_grad():
            assert torch.equal(moved.sample(2, seeded()), model.sample(2, seeded())) == same


def test_it_passes_the_checks_of_a_model():
    settings = [*NEURON, "time_steps=2", "batch_size=4", "models.sddpm.width=2", *FAST]
    results = check_model("sddpm", settings=settings, device="cpu")
    assert [each for each in results if each.outcome == "failed"] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["models.sddpm.sampling_steps=50"], "set sampler=ddim for fewer"),
        (["models.sddpm.width=3"], "multiple of 2"),
        (["models.sddpm.sampler=euler"], "'ddpm' or 'ddim'"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(tmp_path, settings, message):
    with pytest.raises(BenchError, match=message):
        bench.run("sddpm", settings=settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("image_shape", "settings", "reason"),
    [
        ((1, 28, 28), NEURON, "multiples of 8, not 28x28: set image_size=32"),
        ((1, 32, 32), (), "its neurons do not leak, and the protocol's membrane_decay is 0.25"),
        ((1, 32, 32), NEURON, None),
        ((3, 64, 64), NEURON, None),
    ],
)
def test_what_it_cannot_take_is_said(resolve, image_shape, settings, reason):
    found = SDDPM.unsupported(image_shape, resolve("sddpm", *settings))
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize("protocol", ["smoke", "quick", "standard"])
def test_short_protocols_skip_it_with_a_reason(tmp_path, protocol):
    with pytest.raises(BenchError, match=r"do not leak.* use the protocol sddpm_paper"):
        bench.run("sddpm", "digits", protocol=protocol, out=tmp_path / "run")


def test_networks_of_the_suite_s_own_are_named(resolve):
    assert SDDPM.unpublished((3, 32, 32), resolve("sddpm", *NEURON)) is None
    assert SDDPM.unpublished((3, 32, 32), resolve("sddpm", *NEURON, NARROW)) == "width_4"


def test_a_cell_trains_and_samples_and_counts_its_evaluations(tmp_path, tiny):
    settings = [*tiny, *NEURON, "models.sddpm.width=2", *FAST, "generated_images=4"]
    metrics = "network_evaluations,firing_rate,parameter_count"
    rows = bench.run("sddpm", settings=settings, metrics=metrics, out=tmp_path / "run")
    rows = rows[rows["model"] == "sddpm"]
    assert set(rows["backend"]) == {"fused"}
    assert set(rows["model_version"]) == {"1+unpublished.width_2"}
    values = rows[rows["layer"].isna()].set_index("metric")["value"]
    assert values["network_evaluations"] == 3
    assert values["parameter_count"] == expected_size(2, 1)
    assert len(rows[(rows["metric"] == "firing_rate") & rows["layer"].notna()]) >= 51


def test_the_paper_s_protocol_follows_the_code_and_names_what_the_paper_has():
    protocol = load_protocol("sddpm_paper")
    expected = {
        "image_size": 32,
        "time_steps": 4,
        "membrane_decay": 1.0,
        "threshold": 1.0,
        "reset_gradient": True,
        "fires_at_threshold": True,
        "batch_size": 32,
        "drop_last": True,
        "effective_learning_rate": 2e-4,
        "optimizer": "adam",
        "betas": (0.9, 0.999),
        "weight_decay": 0.0,
        "epoch_selection": "last",
        "generated_images": 50_000,
        "reference_split": "train",
        "horizontal_flip": "never",
    }
    resolved = protocol.resolve("sddpm", "mnist")
    assert {name: getattr(resolved, name) for name in expected} == expected
    assert protocol.seeds == (42,)
    assert resolved.surrogate_gradient.alpha == 2
    # Steps in whole epochs, nearest to 500,000.
    images = {"mnist": 60_000, "fashion_mnist": 60_000, "cifar10": 50_000, "celeba": 162_770}
    for dataset, count in images.items():
        resolved = protocol.resolve("sddpm", dataset)
        assert resolved.epochs == round(500_000 / (count // 32))
    assert (resolved.image_size, resolved.center_crop) == (64, 148)
    assert resolved.horizontal_flip == "train"
    for named in ("128 per GPU", "1e-5", "0.1", "rectangle"):
        assert named in protocol.description
