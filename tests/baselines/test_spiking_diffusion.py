"""Spiking-Diffusion: the denoiser, the absorbing diffusion, and its training after VQ-SVAE's."""

import math
from itertools import pairwise

import naive_vq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bench
from baselines.absorbing_diffusion import bound_weight, diffusion_loss, masked, sample_tokens
from baselines.spiking_diffusion import MASK, SpikingDiffusion
from bench.backend import TimeDependentBatchNorm
from bench.model import Step
from bench.testing import check_model

GREY = (1, 28, 28)
PRIOR = Step(progress=0.5, batches=1, stage="prior")
NARROW = "models.spiking_diffusion.width=4"
DRAWS = 20_000


@pytest.fixture
def narrow(official_neuron, build, perturb_to_fire):
    """Builds a model with a narrow denoiser, whose neurons fire."""

    def narrow(*settings, **arguments):
        given = (*official_neuron, NARROW, *settings)
        return perturb_to_fire(build("spiking_diffusion", GREY, *given, **arguments))

    return narrow


@pytest.fixture
def some_tokens():
    """Tokens of three images, a third of them masked, and their diffusion steps."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(MASK, (3, 7, 7), generator=generator)
    hidden = torch.rand(3, 7, 7, generator=generator) < 1 / 3
    return tokens, hidden, torch.tensor([3, 49, 20])


def sizes(modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_the_network_has_the_official_number_of_parameters(build):
    model = build("spiking_diffusion", GREY)
    assert sizes([model.denoiser]) == 3_101_504
    assert sizes([model]) == 50_658 + 3_101_504
    assert sizes(model.sampling_modules()) == sizes([model]) - 20_080


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.usefixtures("double_precision")
def test_the_denoiser_equals_a_loop_over_time(
    narrow, some_tokens, assert_same_gradients, training, backend
):
    tokens, hidden, step = some_tokens
    model = narrow(backend=backend).train(training)
    twin, shown = naive_vq.Denoiser(model), tokens.masked_fill(hidden, MASK)
    assert shown.max() == MASK
    losses = []
    for logits in (model.denoiser(shown, step), twin.logits(shown, step)):
        losses.append(diffusion_loss(logits, tokens, hidden, torch.ones(3)))
        losses[-1].backward()
    torch.testing.assert_close(*losses, rtol=1e-10, atol=0)
    denoiser = [name for name in twin.weights if name.startswith("denoiser.")]
    values = {f"denoiser.{name}": value for name, value in model.denoiser.named_parameters()}
    gradients = {name: value.grad for name, value in values.items()}
    assert_same_gradients(gradients, {name: twin.weights[name].grad for name in gradients}, 1e-9)
    for name in denoiser:
        torch.testing.assert_close(model.state_dict()[name], twin.weights[name])


@pytest.mark.usefixtures("double_precision")
def test_losses_and_samples_are_equal_on_all_backends(narrow, random_images, all_backends, seeded):
    found = []
    for backend in all_backends:
        model = narrow(backend=backend).train()
        torch.manual_seed(5)
        loss = model.training_step(random_images(2, GREY), PRIOR)["prior_loss"]
        found.append((loss, model.eval().sample_tokens(2, seeded())))
    for loss, tokens in found[1:]:
        torch.testing.assert_close(loss, found[0][0], rtol=1e-9, atol=0)
        assert torch.equal(tokens, found[0][1])


@given(st.integers(1, 12), st.integers(0, 10**6))
def test_each_token_is_masked_with_the_probability_of_its_step(step, seed):
    tokens = torch.zeros(DRAWS // 10, 3, 4, dtype=torch.int64)
    steps = torch.full((len(tokens),), step)
    shown, hidden = masked(tokens, steps, 5, torch.Generator().manual_seed(seed))
    assert torch.equal(shown, torch.where(hidden, 5, 0))
    counts = hidden.flatten(1).sum(1).double()
    share = step / 12
    error = math.sqrt(12 * share * (1 - share) / len(tokens))
    assert abs(counts.mean().item() - step) <= 5 * error


@pytest.mark.parametrize(
    ("weights", "factors"), [("elbo", [4, 4 / 3]), ("reweighted", [3 / 4, 1 / 4])]
)
def test_the_loss_is_the_weighted_cross_entropy_of_masked_places_in_bits(weights, factors):
    of_images = [[[0.5, 0.25], [0.5, 0.75]], [[0.1, 0.7], [0.9, 0.3]]]  # by code and place
    logits = torch.tensor(of_images)[:, :, None].log()
    tokens = torch.tensor([[[0, 0]], [[1, 1]]])
    hidden = torch.tensor([[[True, False]], [[True, True]]])
    weight = bound_weight(torch.tensor([1, 3]), 4, weights)
    loss = diffusion_loss(logits, tokens, hidden, weight)
    bits = factors[0] * 1, factors[1] * -(math.log2(0.9) + math.log2(0.3))
    assert loss.item() == pytest.approx(sum(bits) / 2 / 2)


def test_one_more_place_is_uncovered_at_each_step_on_average_until_all_are():
    still_masked = []

    def denoiser(tokens, step):
        assert torch.equal(step, torch.full((500,), 9 - len(still_masked)))
        still_masked.append((tokens == 4).flatten(1).sum(1).double().mean().item())
        return torch.zeros(500, 4, 3, 3)

    tokens = sample_tokens(denoiser, (500, 3, 3), 4, 1.0, torch.Generator().manual_seed(0))
    assert still_masked == pytest.approx(list(range(9, 0, -1)), abs=0.35)
    assert tokens.max() == 3
    assert tokens.min() == 0


def test_an_ideal_denoiser_gives_the_joint_law_except_where_places_are_drawn_at_once():
    """Half of all pairs are uncovered at the same step, and drawn from their own laws each."""
    joint = torch.tensor([[0.4, 0.1, 0.0], [0.05, 0.05, 0.1], [0.0, 0.0, 0.3]])
    laws = joint.sum(1), joint.sum(0)

    def denoiser(tokens, step):
        first, second = tokens[:, 0, 0], tokens[:, 0, 1]
        rows, columns = (torch.cat([joint, laws[1][None]]), torch.cat([joint.mT, laws[0][None]]))
        of_first = columns[second] / columns[second].sum(1, keepdim=True)
        of_second = rows[first] / rows[first].sum(1, keepdim=True)
        return torch.stack([of_first, of_second], dim=2).log()[:, :, None]

    tokens = sample_tokens(denoiser, (DRAWS, 1, 2), 3, 1.0, torch.Generator().manual_seed(1))
    counts = torch.bincount(tokens[:, 0, 0] * 3 + tokens[:, 0, 1], minlength=9).reshape(3, 3)
    expected = (joint + laws[0][:, None] * laws[1]) / 2
    error = (expected * (1 - expected) / DRAWS).sqrt()
    assert ((counts / DRAWS - expected).abs() <= 4 * error).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_from_the_softmax_of_logits_divided_by_the_temperature(temperature):
    logits = torch.tensor([1.0, 0.0, -1.0])
    tokens = sample_tokens(
        lambda tokens, step: logits[:, None, None].expand(DRAWS, 3, 1, 1),
        (DRAWS, 1, 1),
        3,
        temperature,
        torch.Generator().manual_seed(2),
    )
    expected = torch.softmax(logits / temperature, 0)
    error = (expected * (1 - expected) / DRAWS).sqrt()
    found = torch.bincount(tokens.flatten(), minlength=3) / DRAWS
    assert ((found - expected).abs() <= 4 * error).all()


def test_the_prior_learns_and_leaves_the_autoencoder_as_it_is(narrow, random_images):
    model = narrow().train()
    model.begin_stage("prior", torch.zeros(2, *GREY, dtype=torch.uint8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert list(model.training_step(random_images(4, GREY), PRIOR)) == ["prior_loss"]
    after = model.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {name for name in before if name.startswith("denoiser.")}
    norms = [m for m in model.modules() if isinstance(m, TimeDependentBatchNorm)]
    assert all(norm.training for norm in norms)


def test_tokens_depend_on_their_image_alone(narrow, random_images):
    model, images = narrow().train(), random_images(6, GREY)
    tokens = model.frozen_tokens(images)
    assert len(tokens.unique()) > 5
    for order in ([5, 2, 0, 1, 4, 3], [3, 1]):
        assert torch.equal(model.frozen_tokens(images[order]), tokens[order])
    torch.testing.assert_close(
        model.eval().reconstruct(images, None), model.decode(model.spikes_of(tokens))
    )


def test_the_test_loss_is_the_bound_of_the_tokens_with_the_generator_s_draws(
    narrow, random_images, seeded
):
    images = random_images(3, GREY)
    official = narrow().eval()
    paper = narrow("models.spiking_diffusion.bound_weights=elbo").eval()
    losses = [model.test_loss(images, PRIOR, seeded()) for model in (official, official, paper)]
    assert losses[0] == losses[1] < losses[2]


@pytest.mark.full
def test_it_passes_the_checks_of_a_model():
    settings = ["time_steps=2", "batch_size=4", "models.spiking_diffusion.width=2"]
    results = check_model("spiking_diffusion", settings=settings, device="cpu")
    assert [each for each in results if each.outcome == "failed"] == []


def test_networks_of_the_suite_s_own_are_named(resolve):
    def unpublished(image_shape, **options):
        settings = [f"models.spiking_diffusion.{key}={value}" for key, value in options.items()]
        return SpikingDiffusion.unpublished(image_shape, resolve("spiking_diffusion", *settings))

    assert unpublished(GREY) is None
    assert unpublished(GREY, width=16) == "width_16"
    assert unpublished((3, 32, 32), variant="ours_32") == "ours_32"
    assert unpublished((3, 32, 32), variant="ours_32", width=16) == "ours_32_width_16"


def test_a_third_of_the_epochs_is_the_first_stage(resolve):
    def shares(*settings):
        stages = SpikingDiffusion.stages(resolve("spiking_diffusion", *settings))
        return [(stage.name, stage.share) for stage in stages]

    assert shares() == [("tokens", 1 / 3), ("prior", pytest.approx(2 / 3))]
    assert shares("models.spiking_diffusion.first_stage=0.25") == [
        ("tokens", 0.25),
        ("prior", 0.75),
    ]


def test_each_token_takes_an_evaluation_of_the_denoiser(tmp_path, tiny):
    settings = [
        *tiny,
        "image_size=28",
        "epochs=2",
        "models.spiking_diffusion.width=2",
        "generated_images=4",
    ]
    metrics = "network_evaluations,synaptic_operations_dense"
    rows = bench.run("spiking_diffusion", settings=settings, metrics=metrics, out=tmp_path / "run")
    rows = rows[(rows["split"] == "generated") & (rows["model"] == "spiking_diffusion")]
    values = rows.set_index(["metric", "layer"])["value"]
    assert rows.loc[rows["metric"] == "network_evaluations", "value"].tolist() == [49]
    # The maps are padded, so a place at the border has fewer connections than nine.
    width, places = 2, (3 * 7 - 2) ** 2
    channels = [2, *(width * n for n in (1, 2, 4, 8, 4))]
    layers = sum(a * b for a, b in pairwise(channels[1:])) * 2
    outer = channels[0] * channels[1] + 5 * width * 128
    expected = 49 * places * (layers + outer)
    assert values["synaptic_operations_dense", "latent_sampler"] == expected
