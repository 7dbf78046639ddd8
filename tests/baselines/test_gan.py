"""SWGAN, SGAD and SGAN against plain loops over time, and what their parts must keep to."""

import naive_gan
import pytest
import torch
from firing import firing_rates
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import bench
from baselines.attention_decoding import AttentionDecoding
from baselines.gan import GANOptions
from baselines.gan_layers import Integrator, PerStepBatchNorm, PerStepLayer, tracked_twice
from bench.backend import UnsupportedNeuronError, protocol_neuron
from bench.model import Step
from bench.registry import backends, models

NAMES = ("swgan", "sgad", "sgan")
GREY, RGB = (1, 28, 28), (3, 64, 64)
STEP = Step(progress=0.0, batches=1)
FIRST = "latent_size=5", "time_steps=3"
# Generator with its read-out, and discriminator, as counted from the official code's layers.
SIZES = {
    ("swgan", GREY, 10): (6_586_945, 1_102_913),
    ("sgad", GREY, 10): (6_988_865, 1_102_913),
    ("swgan", RGB, 20): (8_602_403, 22_209_153),
    ("sgad", RGB, 20): (21_711_139, 22_209_153),
    ("sgan", GREY, 100): (6_586_945 + 90 * 1024, 314_401),
}


@pytest.fixture(scope="session")
def gan(build):
    """Builds a GAN of the official networks, with the smoke protocol's neuron."""

    def gan(name, image_shape, *settings, **arguments):
        official = f"models.{name}.variant=official"
        return build(name, image_shape, *FIRST, official, *settings, **arguments)

    return gan


@pytest.fixture
def pair(double_precision, gan, perturb):
    """A model whose neurons fire, and its naive twin with a copy of the weights."""

    def pair(name, training, *settings, image_shape=GREY, backend="reference"):
        built = gan(name, image_shape, *settings, backend=backend)
        model = perturb_to_fire(perturb, built).train(training)
        return model, getattr(naive_gan, type(model).__name__)(model)

    return pair


def perturb_to_fire(perturb, model):
    """Scale batch norm to the threshold of the GANs' neurons, ten times the VAEs'."""
    perturb(model)
    for module in model.modules():
        if isinstance(module, PerStepBatchNorm):
            with torch.no_grad():
                module.weight.mul_(2)
                module.bias.add_(0.7)
    for name, module in model.named_modules():
        if isinstance(module, PerStepLayer) and module.norm is None:
            with torch.no_grad():
                module.synapse.weight.mul_(12)
                module.synapse.bias.add_(0.5 if name.startswith("readout") else 0.2)
    return model


def sizes(modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(("case", "expected"), SIZES.items(), ids=str)
def test_networks_have_the_official_numbers_of_parameters(gan, case, expected):
    name, image_shape, latent_size = case
    model = gan(name, image_shape, f"latent_size={latent_size}")
    parts = model.parts()
    assert (sizes(parts["generator"]), sizes(parts["discriminator"])) == expected
    assert sizes(parts["generator"]) == sizes(model.sampling_modules())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_outputs_gradients_and_statistics_equal_loops_over_time(
    pair, random_images, assert_same_gradients, name, training, backend
):
    model, twin = pair(name, training, "time_steps=5", backend=backend)
    fired = firing_rates(model)
    latents = torch.randn(3, 5, generator=torch.Generator().manual_seed(4))
    images = (random_images(3, GREY) + 1) / 2
    ours, theirs = model.generated(latents), twin.generated(latents)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    losses = [m.discriminator_loss(images, g) for m, g in ((model, ours), (twin, theirs))]
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-11)
    assert all(0.02 < rate < 0.98 for rate in fired.values()), fired
    for loss in losses:
        loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    expected = {name: twin.weights[name].grad for name in gradients}
    assert_same_gradients(gradients, expected, 1e-9)
    for key, value in model.named_buffers():
        torch.testing.assert_close(value, twin.weights[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["swgan", "sgad"])
def test_the_network_of_rgb_images_equals_loops_over_time(pair, random_images, name):
    model, twin = pair(name, True, "time_steps=2", image_shape=RGB)
    latents = torch.randn(2, 5, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        ours, theirs = model.generated(latents), twin.generated(latents)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(model.critic(ours), twin.critic(theirs), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_training_steps_equal_two_generator_passes_and_rmsprop_by_hand(pair, random_images, name):
    rates = [f"models.{name}.discriminator_learning_rate=4e-4", "learning_rate=2e-4"]
    model, twin = pair(name, True, *rates)
    trainer = naive_gan.Trainer(twin, 2e-4, 4e-4)
    for step in range(2):
        images = random_images(3, GREY, seed=step)
        torch.manual_seed(step)
        ours = model.training_step(images, STEP)
        torch.manual_seed(step)
        theirs = trainer.step(images, torch.randn(3, 5))
        assert [value.item() for value in ours.values()] == pytest.approx(theirs, rel=1e-7)
    assert list(ours) == ["discriminator_loss", "generator_loss"]
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, twin.weights[key], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_each_step_lowers_its_own_loss_and_leaves_the_other_network_alone(
    gan, perturb, random_images, name
):
    """A smaller step than the protocol's, so that the first order decides."""
    model = perturb_to_fire(perturb, gan(name, GREY, "learning_rate=1e-5"))
    images = (random_images(8, GREY) + 1) / 2
    latents = torch.randn(8, 5, generator=torch.Generator().manual_seed(4))
    generated = model.generated(latents)

    def losses():
        with torch.no_grad():
            again = model.generated(latents)
            return model.discriminator_loss(images, again), model.generator_loss(again)

    def weights(part):
        return [p.clone() for module in model.parts()[part] for p in module.parameters()]

    def equal(before, part):
        return all(map(torch.equal, before, weights(part)))

    before, generator = losses()[0], weights("generator")
    model.train_discriminator(2 * images - 1, generated.detach())
    assert losses()[0] < before
    assert equal(generator, "generator")
    before, discriminator = losses()[1], weights("discriminator")
    model.train_generator(generated)
    assert losses()[1] < before
    assert equal(discriminator, "discriminator")
    assert not equal(generator, "generator")


@pytest.mark.usefixtures("double_precision")
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_the_integrator_that_never_fires_runs_once(time_steps, seed):
    torch.manual_seed(seed)
    integrator = Integrator(torch.nn.Linear(4, 2))
    spikes = (torch.rand(time_steps, 3, 4) > 0.5).double()
    potential = torch.zeros(3, 2)
    for spike in spikes:
        potential = potential + (integrator.synapse(spike) - potential) / 2
    torch.testing.assert_close(integrator(spikes), potential)


@pytest.mark.usefixtures("double_precision")
@given(st.integers(1, 5), st.booleans(), st.integers(0, 10**6))
def test_equal_time_steps_are_normalised_once_with_the_statistics_of_all(repeats, twice, seed):
    torch.manual_seed(seed)
    currents = torch.randn(4, 3, 2, 2)
    once, loop = PerStepBatchNorm(3), torch.nn.BatchNorm2d(3)
    with tracked_twice(once, repeats) if twice else torch.enable_grad():
        normed = once(currents[None], repeats)
    for _ in range(repeats * (2 if twice else 1)):
        expected = loop(currents)
    torch.testing.assert_close(normed[0], expected)
    torch.testing.assert_close(once.running_mean, loop.running_mean)
    torch.testing.assert_close(once.running_var, loop.running_var)


@pytest.mark.usefixtures("double_precision")
def test_attention_weights_sum_to_one_and_zero_weights_halve_the_memory():
    readout = AttentionDecoding(GREY, backends.load("reference")())
    images = torch.rand(5, 2, *GREY)
    assert torch.equal(readout.memory(images[:1]), images[0])
    weights = readout.weights(images[0], readout.key(images[1].flatten(1)))
    torch.testing.assert_close(weights.sum(0), torch.ones(2, 1, 1, 1))
    for layer in (readout.query, readout.key):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    factors = [2.0**-4, 2.0**-4, 2.0**-3, 2.0**-2, 2.0**-1]
    expected = sum(factor * image for factor, image in zip(factors, images, strict=True))
    torch.testing.assert_close(readout.memory(images), expected)


@pytest.mark.parametrize("name", NAMES)
def test_images_depend_on_their_batch_under_batch_statistics_only(gan, perturb, name):
    latents = torch.randn(4, 5, generator=torch.Generator().manual_seed(4))
    for statistics in ("batch", "running"):
        settings = f"models.{name}.statistics={statistics}"
        model = perturb_to_fire(perturb, gan(name, GREY, settings)).eval()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with torch.no_grad():
            alone, among = model.decode(latents[:2]), model.decode(latents)[:2]
        if statistics == "batch":
            assert not torch.allclose(alone, among, atol=1e-4)
        else:
            torch.testing.assert_close(alone, among, rtol=0, atol=1e-5)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("double_precision")
def test_spikes_are_identical_on_all_backends(gan, perturb, random_images, all_backends, name):
    images = random_images(2, GREY)
    results = []
    for backend in all_backends:
        model = perturb_to_fire(perturb, gan(name, GREY, backend=backend)).train()
        spikes = {}
        for layer, module in model.spiking_layers().items():
            module.register_forward_hook(
                lambda _module, _inputs, output, layer=layer, spikes=spikes: spikes.update(
                    {layer: output.detach().clone()}
                )
            )
        torch.manual_seed(3)
        losses = model.training_step(images, STEP)
        results.append((spikes, losses, model.eval().sample(2, torch.Generator().manual_seed(1))))
    spikes, losses, samples = results[0]
    assert len(spikes) == {"sgan": 5}.get(name, 6)
    for other_spikes, other_losses, other_samples in results[1:]:
        assert all(torch.equal(value, other_spikes[layer]) for layer, value in spikes.items())
        torch.testing.assert_close(other_losses, losses, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(other_samples, samples, rtol=1e-6, atol=1e-9)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_gradients_do_not_depend_on_the_number_of_threads(
    gan, perturb, random_images, threads, name
):
    """Its linear layer is large enough for kernels to run on all threads."""
    images, found = (random_images(8, GREY) + 1) / 2, []
    latents = torch.randn(8, 5, generator=torch.Generator().manual_seed(4))
    for count in (1, 2):
        model = perturb_to_fire(perturb, gan(name, GREY, "time_steps=8", backend="fused"))
        with threads(count):
            generated = model.generated(latents)
            loss = model.discriminator_loss(images, generated) + model.generator_loss(generated)
            loss.backward()
        found.append({name: value.grad for name, value in model.named_parameters()})
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_the_generator_learns_after_every_so_many_batches(gan, random_images):
    model = gan("swgan", GREY, "models.swgan.critic_steps=2")
    before = [p.clone() for p in model.generator.parameters()]
    losses = [
        model.training_step(random_images(2, GREY), Step(0.0, 4, step=step)) for step in (0, 1)
    ]
    assert [list(found) for found in losses] == [
        ["discriminator_loss"],
        ["discriminator_loss", "generator_loss"],
    ]
    assert not all(map(torch.equal, before, model.generator.parameters()))


def test_clipped_weights_stay_within_their_bound(gan, random_images):
    model = gan("swgan", GREY, "models.swgan.constraint=weight_clipping", "models.swgan.clip=0.02")
    model.training_step(random_images(2, GREY), STEP)
    assert max(p.abs().max().item() for p in model.discriminator.parameters()) <= 0.02


@pytest.mark.parametrize("backend", ["reference", "snntorch", "spikingjelly"])
def test_the_gradient_penalty_is_of_the_critic_between_the_images(gan, perturb, backend):
    penalised = "models.sgad.constraint=gradient_penalty"
    settings = penalised, "models.sgad.penalty_weight=3.0"
    model = perturb_to_fire(perturb, gan("sgad", GREY, *settings, backend=backend))
    images, generated = torch.rand(2, 2, *GREY)
    torch.manual_seed(0)
    loss = model.discriminator_loss(images, generated)
    plain = model.critic(images).mean() - model.critic(generated).mean()
    torch.manual_seed(0)
    share = torch.rand(2, 1, 1, 1)
    between = ((1 - share) * images + share * generated).requires_grad_()
    (gradient,) = torch.autograd.grad(model.critic(between).sum(), between)
    penalty = ((gradient.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
    torch.testing.assert_close(loss, plain + 3 * penalty)
    loss.backward()
    assert model.discriminator.convolution2.synapse.weight.grad.abs().sum() > 0


def test_fused_declines_a_gradient_penalty(gan):
    with pytest.raises(UnsupportedNeuronError, match="second derivatives"):
        gan("swgan", GREY, "models.swgan.constraint=gradient_penalty", backend="fused")


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_for_their_images_and_own_variants_are_named(resolve, name):
    model = models.load(name)
    official, ours = (
        resolve(name, f"models.{name}.variant={variant}") for variant in ("official", "ours_32")
    )
    assert model.unsupported(GREY, official) is None
    assert model.unpublished(GREY, official) is None
    assert model.unpublished(RGB, official) == ("ours_64" if name == "sgan" else None)
    assert "variant=ours_32" in model.unsupported((1, 32, 32), official)
    assert model.unsupported((3, 32, 32), ours) is None
    assert model.unpublished((3, 32, 32), ours) == "ours_32"
    assert "32x32" in model.unsupported(GREY, ours)


def test_the_neuron_of_the_protocol_is_the_official_one_in_other_units(resolve):
    """``u + (x - u) / 2`` with threshold 1 is decay 1/2 with threshold 2 on the same currents."""
    spec = protocol_neuron(resolve("swgan"))
    currents = torch.randn(40, 300, generator=torch.Generator().manual_seed(0)) * 2 + 1
    currents.requires_grad_()
    spikes = backends.load("reference")().neuron(spec)(currents)
    potential, expected = torch.zeros(300), []
    for current in currents:
        potential = potential + (current - potential) / 2
        fired = naive_gan.Fire.apply(potential)
        expected.append(fired)
        potential = potential * (1 - fired.detach())
    expected = torch.stack(expected)
    assert torch.equal(spikes, expected)
    draws = torch.randn(40, 300, generator=torch.Generator().manual_seed(1))
    (ours,) = torch.autograd.grad((spikes * draws).sum(), currents)
    (theirs,) = torch.autograd.grad((expected * draws).sum(), currents)
    torch.testing.assert_close(ours, theirs)


def test_epochs_are_chosen_by_metrics_for_a_model_without_a_test_loss(tiny, tmp_path):
    settings = [*tiny, "epochs=2", "epoch_selection=best_per_metric"]
    rows = bench.run("sgan", settings=settings, metrics="fad", out=tmp_path / "run")
    (fad,) = rows[(rows["model"] == "sgan") & (rows["metric"] == "fad")].itertuples()
    assert (fad.status, fad.epoch_selection) == ("ok", "best_per_metric")
    (folder,) = (tmp_path / "run").glob("cells/sgan-*")
    kept = {path.name for path in folder.glob("weights-*.safetensors")}
    assert "weights-fad.safetensors" in kept
    assert "weights-best_test_loss.safetensors" not in kept


def test_unknown_options_are_refused(resolve):
    with pytest.raises(ValidationError):
        GANOptions(critic_steps=0)
