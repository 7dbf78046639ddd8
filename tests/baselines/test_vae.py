import copy

import pytest
import torch

from bench.model import Step

SMALL = (1, 32, 32)
MODELS = ["ann_vae", "esvae", "fsvae", "taid"]
SETTINGS = ["latent_size=6", "time_steps=7", "models.fsvae.k=4", "models.taid.k=4"]
STEP = Step(progress=1.0, batches=10)


def precedes_a_norm(name):
    """Whether a parameter is a bias that the mean of a following batch norm takes away again."""
    if name.endswith("synapse.bias"):
        return "readout" not in name
    return name.endswith(".0.bias") and "conv" in name


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture(params=["reference", "snntorch", "spikingjelly", "fused"])
def backend_name(request, name):
    if name == "ann_vae" and request.param != "reference":
        pytest.skip("an ANN has no spiking backend")
    return request.param


def test_a_training_step_changes_every_parameter(build, random_images, name):
    model = build(name, SMALL, *SETTINGS)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    model.training_step(random_images(5, SMALL), STEP)
    unchanged = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert unchanged == []


@pytest.mark.usefixtures("double_precision")
def test_every_parameter_but_a_bias_before_a_norm_gets_a_gradient(
    build, random_images, seeded, name
):
    model = build(name, SMALL, *SETTINGS)
    model.losses(random_images(5, SMALL), STEP, seeded())["loss"].backward()
    largest = {key: value.grad.abs().max().item() for key, value in model.named_parameters()}
    scale = max(largest.values())
    dead = {key for key, gradient in largest.items() if gradient < 1e-9 * scale}
    assert dead == {key for key in largest if precedes_a_norm(key)}


def test_the_optimiser_holds_every_parameter_once(build, name):
    model = build(name, SMALL, *SETTINGS)
    held = [id(p) for group in model.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize(
    ("optimizer", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_the_optimiser_is_the_protocols(build, name, optimizer, kind):
    settings = [f"optimizer={optimizer}", "betas=[0.5, 0.9]", "weight_decay=0.125"]
    model = build(name, SMALL, *SETTINGS, *settings)
    assert type(model.optimizer) is kind
    for group in model.optimizer.param_groups:
        assert tuple(group["betas"]) == (0.5, 0.9)
        assert group["weight_decay"] == 0.125


def test_the_learning_rate_is_scaled_to_the_batch(build, name):
    settings = ["learning_rate=1e-3", "batch_size=100", "learning_rate_batch_size=250"]
    model = build(name, SMALL, *SETTINGS, *settings)
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(4e-4)


def test_training_steps_are_those_of_a_plain_loop(build, random_images, name):
    model = build(name, SMALL, *SETTINGS)
    twin = copy.deepcopy(model)
    batches = [random_images(4, SMALL, seed) for seed in range(3)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reported = [model.training_step(batch, STEP)["loss"] for batch in batches]
        torch.manual_seed(0)
        losses = []
        for batch in batches:
            loss = twin.losses(batch, STEP)["loss"]
            for parameter in twin.parameters():
                parameter.grad = None
            loss.backward()
            twin.optimizer.step()
            losses.append(loss.item())
    assert reported == losses
    assert len(set(losses)) == 3
    state = twin.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("surrogate", ["official_code", "paper"])
def test_training_on_one_batch_lowers_its_loss(build, random_images, name, surrogate):
    model = build(name, SMALL, *SETTINGS, f"surrogate={surrogate}", "learning_rate=3e-3")
    images = random_images(4, SMALL)[:, :, :1, :1].expand(4, *SMALL)
    losses = [model.training_step(images, STEP)["loss"] for _ in range(12)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_reconstruction_is_decoding_of_the_encoding(build, perturb, random_images, seeded, name):
    model = perturb(build(name, SMALL, *SETTINGS)).eval()
    images = random_images(3, SMALL)
    decoded = model.decode(model.encode(images, seeded()))
    assert torch.equal(model.reconstruct(images, seeded()), decoded)


def test_latents_have_time_first_or_no_time(build, perturb, random_images, seeded, name):
    model = perturb(build(name, SMALL, *SETTINGS)).eval()
    latents = model.encode(random_images(3, SMALL), seeded())
    if name == "ann_vae":
        assert latents.shape == (3, 6)
    else:
        assert latents.shape == (7, 3, 6)
        assert latents.unique().tolist() == [0.0, 1.0]


def test_test_loss_is_the_loss_in_evaluation_mode(build, perturb, random_images, seeded, name):
    model = perturb(build(name, SMALL, *SETTINGS)).eval()
    images = random_images(3, SMALL)
    with torch.no_grad():
        loss = model.test_loss(images, STEP, seeded())
    assert loss.shape == ()
    assert torch.equal(loss, model.losses(images, STEP, seeded())["loss"])


def test_evaluation_changes_no_state(build, perturb, random_images, seeded, name):
    model = perturb(build(name, SMALL, *SETTINGS)).eval()
    before = copy.deepcopy(model.state_dict())
    images = random_images(3, SMALL)
    model.test_loss(images, STEP, seeded())
    model.reconstruct(images, seeded())
    model.sample(3, seeded())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_equal_generators_give_equal_results_whatever_the_global_one(
    build, perturb, random_images, seeded, name
):
    model = perturb(build(name, SMALL, *SETTINGS)).eval()
    images = random_images(3, SMALL)

    def results(seed):
        generator = seeded(seed)
        return torch.cat([model.reconstruct(images, generator), model.sample(3, generator)])

    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = results(5)
        torch.manual_seed(2)
        assert torch.equal(results(5), first)
    other = results(6)
    assert not torch.equal(other[:3], first[:3])
    assert not torch.equal(other[3:], first[3:])


@pytest.mark.usefixtures("double_precision")
def test_an_image_does_not_depend_on_its_batch_in_evaluation_mode(
    build, perturb, random_images, name
):
    # The draws differ with the batch, so the part without any is compared.
    model = perturb(build(name, SMALL, *SETTINGS)).eval()
    images = random_images(4, SMALL)
    together, alone = model.encoder(images), model.encoder(images[1:2])
    batch = 0 if name == "ann_vae" else 1
    torch.testing.assert_close(together.narrow(batch, 1, 1), alone)


def test_a_copy_of_a_model_is_its_equal(backend, build, perturb, random_images, seeded):
    name = {"ReferenceBackend": "reference", "SnnTorchBackend": "snntorch"}
    backend_name = name.get(type(backend).__name__, "spikingjelly")
    model = perturb(build("esvae", SMALL, *SETTINGS, backend=backend_name)).eval()
    images = random_images(3, SMALL)
    expected = model.reconstruct(images, seeded())
    assert torch.equal(copy.deepcopy(model).reconstruct(images, seeded()), expected)


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_losses_and_gradients_are_near_those_of_float32(
    build, perturb, random_images, seeded, backend_name, name, training
):
    """Autocast rounds synapses; images, losses, gradients and weights stay in float32."""
    if backend_name in {"snntorch", "spikingjelly"}:
        pytest.skip("their synapses are those of reference")
    if name == "taid" and backend_name == "reference":
        pytest.skip("its synapses are those of fsvae")
    found = {}
    for precision in ("float32", "bfloat16"):
        settings = [*SETTINGS, f"precision={precision}"]
        model = perturb(build(name, SMALL, *settings, backend=backend_name)).train(training)
        losses = model.losses(random_images(16, SMALL), STEP, seeded())
        losses["loss"].backward()
        gradients = torch.cat([value.grad.flatten() for value in model.parameters()])
        assert {value.dtype for value in losses.values()} == {torch.float32}
        assert model.eval().reconstruct(random_images(3, SMALL), seeded()).dtype == torch.float32
        assert model.sample(3, seeded()).dtype == torch.float32
        found[precision] = losses["loss"].item(), gradients
    (loss, gradients), (expected_loss, expected) = found["bfloat16"], found["float32"]
    assert loss != expected_loss
    assert loss == pytest.approx(expected_loss, rel=0.05)
    assert torch.nn.functional.cosine_similarity(gradients, expected, 0) > 0.8


@pytest.mark.usefixtures("double_precision")
def test_decoded_prefixes_are_decodings_of_prefixes(
    build, perturb, random_images, seeded, backend_name, name
):
    if name == "ann_vae":
        pytest.skip("its latent has no time steps")
    model = perturb(build(name, SMALL, *SETTINGS, backend=backend_name)).eval()
    with torch.no_grad():
        latents = model.encode(random_images(4, SMALL), seeded())
        found = list(model.decode_prefixes(latents))
        expected = [model.decode(latents[: t + 1]) for t in range(len(latents))]
    assert len(found) == len(latents)
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found[0], found[-1])


def test_autocast_ends_before_decoded_prefixes_are_handed_out(build, random_images, seeded):
    model = build("esvae", SMALL, *SETTINGS, "precision=bfloat16").eval()
    with torch.no_grad():
        latents = model.encode(random_images(2, SMALL), seeded())
        for images in model.decode_prefixes(latents):
            assert images.dtype == torch.float32
            assert not torch.is_autocast_enabled("cpu")
