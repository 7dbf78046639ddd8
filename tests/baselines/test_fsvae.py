import pytest
import torch
from pydantic import ValidationError

from baselines.fsvae import FSVAEOptions
from bench.model import Step

SHAPES = [(1, 32, 32), (3, 32, 32), (3, 64, 64)]
SMALL = (1, 32, 32)
K = 4


def fsvae(setting):
    return f"models.fsvae.{setting}"


SETTINGS = ["latent_size=6", fsvae(f"k={K}")]
PREFIX = fsvae("posterior_statistics=prefix")
RUNNING = fsvae("posterior_statistics=running")


@pytest.fixture
def pair(double_precision, build, perturb, naive_twin):
    def pair(image_shape, training, *settings, **options):
        model = perturb(build("fsvae", image_shape, *SETTINGS, *settings)).train(training)
        return model, naive_twin(model, k=K, **options)

    return pair


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def assert_fires(twin, layers=16):
    assert len(twin.firing_rates) >= layers
    for name, rate in twin.firing_rates.items():
        assert 0.02 < rate < 0.98, f"{name} fires at {rate}: the comparison proves little"


def assert_losses_are_the_naive_ones(
    model, twin, images, progress, seeded, assert_same_state, assert_same_gradients
):
    losses = model.losses(images, Step(progress, 10), seeded())
    expected = twin.losses(images, progress, seeded())
    assert_fires(twin)
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert_same(value, expected[name])
    assert_same_state(model, twin)
    if not model.training:
        return
    gradients = torch.autograd.grad(losses["loss"], list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    actual = dict(zip(names, gradients, strict=True))
    assert_same_gradients(actual, twin.gradients(expected["loss"]), 1e-7)


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
    model, twin = pair(image_shape, training, "time_steps=5", PREFIX, f"surrogate={surrogate}")
    images = random_images(3, image_shape)
    assert_losses_are_the_naive_ones(
        model, twin, images, 0.5, seeded, assert_same_state, assert_same_gradients
    )


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ([PREFIX], {}),
        ([RUNNING], {"prefix_statistics": False}),
        ([PREFIX, fsvae("scheduled_sampling=false")], {"scheduled_sampling": False}),
        ([PREFIX, fsvae("divergence=kl")], {"divergence": "kl"}),
        ([PREFIX, fsvae("mmd_over_time=sum")], {"over_time": "sum"}),
    ],
    ids=["prefix", "running", "no_scheduled_sampling", "kl", "sum"],
)
@pytest.mark.parametrize("training", [True, False])
def test_losses_with_each_option_are_the_naive_ones(
    pair,
    random_images,
    seeded,
    assert_same_state,
    assert_same_gradients,
    settings,
    options,
    training,
):
    model, twin = pair(SMALL, training, "time_steps=10", *settings, **options)
    images = random_images(3, SMALL)
    assert_losses_are_the_naive_ones(
        model, twin, images, 1.0, seeded, assert_same_state, assert_same_gradients
    )
    assert bool(twin.replaced) == (training and twin.scheduled_sampling)


@pytest.mark.parametrize("statistics", [PREFIX, RUNNING])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("image_shape", SHAPES)
def test_images_and_latents_are_the_naive_ones(
    pair, random_images, seeded, assert_same_state, image_shape, training, statistics
):
    options = {"prefix_statistics": statistics == PREFIX}
    model, twin = pair(image_shape, training, "time_steps=4", statistics, **options)
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


@pytest.mark.parametrize("seed", range(5))
def test_step_by_step_latents_are_those_of_the_prefixes(pair, random_images, seeded, seed):
    model, twin = pair(SMALL, False, "time_steps=16")
    encoded = twin.encoder(random_images(4, SMALL, seed)).detach()
    latents, outputs = model.posterior_pass(encoded, seeded(seed))
    expected, expected_outputs = twin.posterior(encoded, twin.indices(4, seeded(seed)))
    assert torch.equal(latents, expected)
    assert torch.equal(outputs, expected_outputs)
    assert 0.1 < outputs.mean() < 0.9
    assert outputs.std(-1).max() > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("statistics", [PREFIX, RUNNING])
def test_latents_are_picked_from_the_outputs_at_the_drawn_indices(
    pair, random_images, seeded, training, statistics
):
    model, _ = pair(SMALL, training, "time_steps=6", statistics)
    encoded = model.encoder(random_images(3, SMALL)).detach()
    latents, outputs = model.posterior_pass(encoded, seeded())
    indices = torch.randint(K, (6, 3, 6), generator=seeded())
    assert set(indices.unique().tolist()) == set(range(K))
    expected = [
        outputs[t, n, c, indices[t, n, c]] for t in range(6) for n in range(3) for c in range(6)
    ]
    assert latents.flatten().tolist() == [value.item() for value in expected]
    others = outputs.gather(-1, ((indices + 1) % K)[..., None])[..., 0]
    assert not torch.equal(latents, others)


@pytest.mark.parametrize("statistics", [PREFIX, RUNNING])
def test_latents_carry_gradient_from_the_decoder_to_encoder_and_posterior(
    build, random_images, seeded, statistics
):
    model = build("fsvae", SMALL, *SETTINGS, "time_steps=5", statistics)
    losses = model.losses(random_images(3, SMALL), Step(0, 10), seeded())
    weights = [
        model.encoder.convolutions.conv1.synapse.weight,
        model.posterior.layers.linear1.synapse.weight,
    ]
    gradients = torch.autograd.grad(losses["reconstruction_loss"], weights)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize(
    ("statistics", "updates"), [(PREFIX, 9), (RUNNING, 1)], ids=["prefix", "running"]
)
def test_number_of_updates_of_the_posteriors_running_statistics(
    build, perturb, random_images, seeded, statistics, updates
):
    model = perturb(build("fsvae", SMALL, *SETTINGS, "time_steps=9", statistics))
    modes = []
    norm = model.posterior.layers.linear1.norm
    norm.register_forward_hook(lambda module, *_: modes.append(module.training))
    model.losses(random_images(3, SMALL), Step(0, 10), seeded())
    assert sum(modes) == updates
    assert len(modes) == 9, "z_T is no input"


def test_one_update_with_running_statistics_is_one_tenth_of_the_batchs_own(
    pair, random_images, seeded
):
    model, _ = pair(SMALL, True, "time_steps=6", RUNNING)
    norm = model.posterior.layers.linear1.norm
    before = norm.running_mean.clone()
    inputs = []
    model.posterior.layers.linear1.synapse.register_forward_hook(
        lambda _module, _inputs, output: inputs.append(output.detach())
    )
    model.losses(random_images(3, SMALL), Step(0, 10), seeded())
    last = inputs[-1]
    assert last.shape[0] == 6 * 3
    assert_same(norm.running_mean, 0.9 * before + 0.1 * last.mean(0))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("statistics", [PREFIX, RUNNING])
def test_modes_are_what_they_were_after_every_call(
    build, random_images, seeded, training, statistics
):
    model = build("fsvae", SMALL, *SETTINGS, "time_steps=8", statistics).train(training)
    images = random_images(3, SMALL)
    model.losses(images, Step(1.0, 10), seeded())
    model.sample(2, seeded())
    model.encode(images, seeded())
    assert {module.training for module in model.modules()} == {training}


def test_evaluation_mode_updates_nothing(build, perturb, random_images, seeded):
    model = perturb(build("fsvae", SMALL, *SETTINGS, "time_steps=8", PREFIX)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = random_images(3, SMALL)
    model.test_loss(images, Step(1.0, 10), seeded())
    model.reconstruct(images, seeded())
    model.sample(2, seeded())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_generation_leaves_the_priors_running_statistics_in_training_mode(build, perturb, seeded):
    model = perturb(build("fsvae", SMALL, *SETTINGS, "time_steps=8", PREFIX)).train()
    before = {name: value.clone() for name, value in model.prior.state_dict().items()}
    model.sample(2, seeded())
    after = model.prior.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.fixture
def scheduled_steps(build, perturb):
    """Which of z_1 .. z_15 (counted from 0) the prior's last pass did not get as they were."""

    def scheduled_steps(progress, runs, *settings, training=True):
        settings = ["latent_size=2", fsvae("k=3"), "time_steps=16", *settings]
        model = perturb(build("fsvae", SMALL, *settings)).train(training)
        passes = []
        model.prior.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0]))
        latents = torch.full((16, 2, 2), 0.25)
        generator = torch.Generator().manual_seed(0)
        replaced = []
        for _ in range(runs):
            passes.clear()
            model.prior_pass(latents, Step(progress, 10), generator)
            inputs = passes[-1]
            assert inputs.shape == latents.shape
            assert not inputs[0].any()
            changed = inputs[1:] != 0.25
            assert torch.isin(inputs[1:][changed], torch.tensor([0.0, 1.0])).all()
            per_step = changed.flatten(1)
            assert torch.equal(per_step.any(1), per_step.all(1)), "one draw a step for the batch"
            replaced.append(per_step.all(1))
        return torch.stack(replaced).float().mean(0)

    return scheduled_steps


@pytest.mark.parametrize("statistics", [PREFIX, RUNNING])
@pytest.mark.parametrize(("progress", "probability"), [(0.0, 0.1), (0.5, 0.2), (1.0, 0.3)])
def test_scheduled_sampling_starts_at_step_5_with_a_rising_probability(
    scheduled_steps, statistics, progress, probability
):
    frequencies = scheduled_steps(progress, 120, statistics)
    assert not frequencies[:5].any()
    assert frequencies[5:].min() > 0
    assert frequencies[5:].mean().item() == pytest.approx(probability, abs=0.035)


def test_scheduled_sampling_by_epoch_keeps_the_probability_of_the_epoch_s_first_batch(build):
    """p = 0.1 + 0.2 e / epochs, e from 0, as in both official codes."""
    epochs, batches = 7, 3
    model = build("fsvae", SMALL, f"epochs={epochs}", fsvae("scheduled_sampling_update='epoch'"))
    for epoch in range(epochs):
        for batch in range(batches):
            # The progress as the training loop computes it.
            step = Step((epoch + batch / batches) / epochs, batches)
            assert model.replacement_probability(step) == 0.1 + (0.3 - 0.1) * (epoch / epochs)
    by_batch = build("fsvae", SMALL, f"epochs={epochs}")
    assert by_batch.replacement_probability(Step(0.5, batches)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("draw", "progress", "replaced"),
    [
        (0.099, 0.0, 1),
        (0.101, 0.0, 0),
        (0.199, 0.5, 1),
        (0.201, 0.5, 0),
        (0.299, 1.0, 1),
        (0.301, 1.0, 0),
    ],
)
def test_scheduled_sampling_compares_its_draw_with_the_probability(
    monkeypatch, scheduled_steps, draw, progress, replaced
):
    # The perturbation that precedes draws from torch.rand too; a constant is as good there.
    monkeypatch.setattr(
        torch, "rand", lambda *size, generator=None, device=None: torch.full(_shape(size), draw)
    )
    frequencies = scheduled_steps(progress, 1, PREFIX)
    assert frequencies.tolist() == [0] * 5 + [replaced] * 10


def _shape(size):
    first = size[0]
    return (first,) if isinstance(first, int) else tuple(first)


@pytest.mark.parametrize("statistics", [PREFIX, RUNNING])
def test_no_scheduled_sampling_in_evaluation_mode(scheduled_steps, statistics):
    assert not scheduled_steps(1.0, 20, statistics, training=False).any()


def test_no_scheduled_sampling_where_it_is_switched_off(scheduled_steps):
    assert not scheduled_steps(1.0, 20, PREFIX, fsvae("scheduled_sampling=false")).any()


@pytest.mark.parametrize("training", [True, False])
def test_no_gradient_from_the_prior_into_z(build, seeded, training):
    model = build("fsvae", SMALL, *SETTINGS, "time_steps=8", PREFIX).train(training)
    latents = torch.ones((8, 3, 6), requires_grad=True)
    outputs = model.prior_pass(latents, Step(1.0, 10), seeded())
    weight = model.prior.layers.linear1.synapse.weight
    into_latents, into_prior = torch.autograd.grad(
        outputs.sum(), [latents, weight], allow_unused=True
    )
    assert into_latents is None
    assert into_prior.abs().max() > 0


def test_no_gradient_from_the_prior_into_posterior_and_encoder(build, random_images, seeded):
    model = build("fsvae", SMALL, *SETTINGS, "time_steps=5", PREFIX)
    latents, _ = model.posterior_pass(model.encoder(random_images(3, SMALL)), seeded())
    assert latents.requires_grad
    outputs = model.prior_pass(latents, Step(0.0, 10), seeded())
    others = [*model.posterior.parameters(), *model.encoder.parameters()]
    gradients = torch.autograd.grad(outputs.sum(), others, allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_replaced_latents_are_left_as_they_were_for_the_decoder(build, seeded):
    model = build("fsvae", SMALL, *SETTINGS, "time_steps=16", PREFIX)
    latents = torch.full((16, 3, 6), 0.25)
    model.prior_pass(latents, Step(1.0, 10), seeded())
    assert torch.equal(latents, torch.full((16, 3, 6), 0.25))


@pytest.mark.parametrize("training", [True, False])
def test_mmd_summed_over_time_is_the_mean_times_the_time_steps(
    build, perturb, random_images, seeded, training
):
    images = random_images(3, SMALL)
    losses = {}
    for over_time in ("mean", "sum"):
        settings = ["time_steps=7", PREFIX, fsvae(f"mmd_over_time={over_time}")]
        model = perturb(build("fsvae", SMALL, *SETTINGS, *settings)).train(training)
        losses[over_time] = model.losses(images, Step(0.5, 10), seeded())
    mean, summed = losses["mean"], losses["sum"]
    assert mean["mmd"] > 0
    assert summed["mmd"].item() == pytest.approx(7 * mean["mmd"].item(), rel=1e-5)
    assert torch.equal(summed["reconstruction_loss"], mean["reconstruction_loss"])
    assert torch.equal(mean["loss"], mean["reconstruction_loss"] + mean["mmd"])


def test_the_kl_is_weighed_by_one_in_ten_thousand(build, random_images, seeded):
    model = build("fsvae", SMALL, *SETTINGS, "time_steps=5", fsvae("divergence=kl"))
    losses = model.losses(random_images(3, SMALL), Step(0.5, 10), seeded())
    assert set(losses) == {"loss", "reconstruction_loss", "kl"}
    weighted = (losses["loss"] - losses["reconstruction_loss"]).item()
    assert weighted == pytest.approx(1e-4 * losses["kl"].item(), rel=1e-2)


def test_the_posterior_sees_no_later_step(build, perturb, random_images, seeded):
    model = perturb(build("fsvae", SMALL, *SETTINGS, "time_steps=8")).eval()
    encoded = model.encoder(random_images(3, SMALL))
    changed = encoded.clone()
    changed[5:] = 1 - changed[5:]
    latents, outputs = model.posterior_pass(encoded, seeded())
    other_latents, other_outputs = model.posterior_pass(changed, seeded())
    assert torch.equal(latents[:5], other_latents[:5])
    assert torch.equal(outputs[:5], other_outputs[:5])
    assert not torch.equal(outputs[5:], other_outputs[5:])


def test_the_prior_sees_earlier_steps_only(build, perturb, seeded):
    model = perturb(build("fsvae", SMALL, *SETTINGS, "time_steps=8")).eval()
    latents = torch.zeros(8, 3, 6)
    changed = latents.clone()
    changed[5:] = 1
    outputs = model.prior_pass(latents, Step(1.0, 10), seeded())
    other = model.prior_pass(changed, Step(1.0, 10), seeded())
    assert torch.equal(outputs[:6], other[:6])
    assert not torch.equal(outputs[6:], other[6:])


def test_one_output_a_channel_is_enough(build, random_images, seeded):
    model = build("fsvae", SMALL, "latent_size=6", "time_steps=7", fsvae("k=1"), PREFIX)
    losses = model.losses(random_images(3, SMALL), Step(1.0, 10), seeded())
    assert losses["loss"].isfinite()
    latents, outputs = model.posterior_pass(torch.ones(7, 3, 6), seeded())
    assert torch.equal(latents, outputs[..., 0])


def test_the_latent_is_a_spiking_layer_of_its_own(build, perturb, random_images, seeded):
    model = perturb(build("fsvae", SMALL, *SETTINGS, "time_steps=5")).eval()
    layers = model.spiking_layers()
    nets = {f"{net}.linear{i}" for net in ("posterior", "prior") for i in (1, 2, 3)}
    assert nets | {"latent", "encoder.linear", "decoder.linear"} <= layers.keys()
    seen = []
    layers["latent"].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    latents = model.encode(random_images(3, SMALL), seeded())
    model.sample(2, seeded())
    assert torch.equal(seen[0], latents)
    assert seen[1].shape == (5, 2, 6)
    assert set(latents.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"k": -1},
        {"k": 2.5},
        {"divergence": "jsd"},
        {"mmd_over_time": "max"},
        {"posterior_statistics": "batch"},
        {"scheduled_sampling": "sometimes"},
        {"K": 20},
        {"kl_weight": 1e-4},
    ],
)
def test_options_refuse(options):
    with pytest.raises(ValidationError):
        FSVAEOptions.model_validate(options)


def test_the_defaults_are_the_official_code_s_but_for_the_update_of_scheduled_sampling():
    defaults = FSVAEOptions().model_dump()
    assert defaults == {
        "k": 20,
        "divergence": "mmd",
        "mmd_over_time": "mean",
        "scheduled_sampling": True,
        "scheduled_sampling_update": "batch",
        "posterior_statistics": "prefix",
    }


def test_a_model_refuses_options_it_does_not_know(build):
    with pytest.raises(ValidationError, match="channels"):
        build("fsvae", SMALL, fsvae("channels=4"))


def test_a_model_refuses_options_that_are_out_of_range(build):
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        build("fsvae", SMALL, fsvae("k=0"))
