"""The form of a training step that a CUDA graph can capture: its progress is on the device."""

from contextlib import nullcontext

import pytest
import torch
from narrow import narrow_networks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.model import Step

SMALL = (1, 32, 32)
# An odd k leaves no ties, which noise would break: both forms draw it, but not as often.
SETTINGS = ["latent_size=6", "time_steps=9", "epochs=4", "models.fsvae.k=3"]
FORMS = {
    "esvae": [],
    "esvae-bfloat16": ["precision=bfloat16"],
    "ann_vae": [],
    "ann_vae-per_batch": ["models.ann_vae.kl_weight=per_batch"],
    "fsvae-running": ["models.fsvae.posterior_statistics=running"],
    "fsvae-prefix": ["models.fsvae.posterior_statistics=prefix"],
    "fsvae-kl": ["models.fsvae.divergence=kl"],
    "fsvae-epoch": ["models.fsvae.scheduled_sampling_update=epoch"],
    "fsvae-never": ["models.fsvae.scheduled_sampling=false"],
    "fsvae-prefix-bfloat16": ["precision=bfloat16"],
    "taid": ["models.taid.k=3"],
}
# The second is an epoch's first step, which rounding left just below 1/4.
PROGRESS = (0.2, 0.25 - 1e-12, 0.9)


def on_device(progress, device="cpu"):
    return torch.tensor(progress, dtype=torch.float64, device=device)


@pytest.fixture(autouse=True)
def narrow():
    """Networks of a few channels."""
    with narrow_networks():
        yield


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture(params=["reference", "snntorch", "spikingjelly", "fused"])
def backend_name(request, form):
    """Every backend where z is replaced, the only step with two forms; elsewhere one."""
    if form not in {"fsvae-running", "fsvae-prefix"} and request.param != "reference":
        pytest.skip("both forms call the same layers")
    return request.param


def test_run_eagerly_it_is_the_plain_step_to_the_bit(
    form, backend_name, build, perturb, random_images
):
    name = form.partition("-")[0]
    plain, captured = (
        perturb(build(name, SMALL, *SETTINGS, *FORMS[form], backend=backend_name)).train()
        for _ in range(2)
    )
    for seed, progress in enumerate(PROGRESS):
        images = random_images(4, SMALL)
        torch.manual_seed(seed)
        expected = plain.training_step(images, Step(progress, 10))
        torch.manual_seed(seed)
        found = captured.training_step(images, Step(on_device(progress), 10))
        for key, value in expected.items():
            assert torch.equal(found[key], value), key
    expected = plain.state_dict()
    for key, value in captured.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("statistics", ["running", "prefix"])
def test_steps_are_replaced_at_the_same_draws(
    statistics, build, perturb, random_images, seeded, monkeypatch
):
    """Where every step is replaced, both forms draw the same noise, so that ties fall alike."""
    monkeypatch.setattr("baselines.fsvae.SCHEDULED_PROBABILITY", (1.0, 1.0))
    settings = ["models.fsvae.k=2", f"models.fsvae.posterior_statistics={statistics}"]
    plain, captured = (
        perturb(build("fsvae", SMALL, *SETTINGS, *settings)).train() for _ in range(2)
    )
    images = random_images(4, SMALL)
    latents = plain.posterior_pass(plain.encoded(images), seeded())[0]
    expected = plain.prior_pass(latents, Step(0.5, 10), seeded())
    found = captured.prior_pass(latents, Step(on_device(0.5), 10), seeded())
    assert torch.equal(found, expected)
    assert 0 < expected.mean() < 1


class _Traffic(TorchDispatchMode):
    """Lists the operators that get tensors of the host and give tensors of the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        taken = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        given = {t.device.type for t in tree_leaves(result) if isinstance(t, torch.Tensor)}
        if "cpu" in taken and "meta" in taken | given:
            self.found.append(str(function))
        return result


@pytest.fixture
def traffic(monkeypatch):
    """Takes a model's losses and gradients on a device without data; gives what was copied to it.

    What reads a value from the device raises an error there.
    """
    # PyTorch has none for that device; in float32 it changes nothing.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())

    def traffic(model):
        model = model.to("meta").train()
        images = torch.zeros(4, *SMALL, device="meta")
        with _Traffic() as listed:
            model.losses(images, Step(on_device(0.5, "meta"), 10))["loss"].backward()
        return listed.found

    return traffic


def test_nothing_is_read_from_the_device_or_copied_to_it(form, build, traffic):
    if "bfloat16" in form:
        pytest.skip("there is no autocast on a device without data")
    assert traffic(build(form.partition("-")[0], SMALL, *SETTINGS, *FORMS[form])) == []


@pytest.mark.parametrize(
    ("careless", "error"),
    [
        (lambda latents: latents * torch.ones(6).to(latents.device), None),
        (lambda latents: latents * latents.sum().item(), RuntimeError),
        (lambda latents: latents if latents.any() else -latents, RuntimeError),
    ],
)
def test_what_a_model_reads_or_copies_would_be_noticed(
    careless, error, build, traffic, monkeypatch
):
    model = build("esvae", SMALL, *SETTINGS)
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda latents: decode(careless(latents)))
    if error:
        with pytest.raises(error, match="meta"):
            traffic(model)
    else:
        assert traffic(model) == ["aten._to_copy.default"]


@pytest.mark.parametrize("name", ["esvae", "fsvae", "ann_vae"])
def test_no_step_puts_another_tensor_in_the_place_of_a_parameter_or_buffer(
    name, build, random_images
):
    model = build(name, SMALL, *SETTINGS).train()
    model.training_step(random_images(4, SMALL), Step(on_device(0.5), 10))
    places = {key: value.data_ptr() for key, value in model.state_dict().items()}
    model.training_step(random_images(4, SMALL), Step(on_device(0.5), 10))
    assert {key: value.data_ptr() for key, value in model.state_dict().items()} == places
