"""CUDA graphs: what is replayed is what runs as it is, and what cannot be captured says why."""

import pytest
import torch

from bench.evaluation.model_calls import ModelCalls
from bench.model import Step
from bench.system.cuda_graphs import WARM_UP_CALLS
from bench.training.steps import TrainingSteps

SHAPE = (1, 32, 32)
SETTINGS = ["latent_size=6", "time_steps=9"]
MODELS = {
    "ann_vae": ("ann_vae", []),
    "esvae": ("esvae", []),
    "esvae-bfloat16": ("esvae", ["precision=bfloat16"]),
    "fsvae-prefix": ("fsvae", ["models.fsvae.posterior_statistics=prefix"]),
    "fsvae-running": ("fsvae", ["models.fsvae.posterior_statistics=running"]),
    "fsvae-epoch": ("fsvae", ["models.fsvae.scheduled_sampling_update=epoch"]),
    "taid": ("taid", []),
}
# Six full batches and a smaller one, twice: warm-up, capture, replays, eager, replays, eager.
BATCHES = ([8] * 6 + [3]) * 2

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture(params=["reference", "snntorch", "spikingjelly", "fused"])
def backend_name(request):
    return request.param


@pytest.fixture(params=MODELS)
def built(request, backend_name, build, perturb, device):
    name, settings = MODELS[request.param]
    if name == "ann_vae" and backend_name != "reference":
        pytest.skip("an ANN has no spiking backend")

    def built():
        model = perturb(build(name, SHAPE, *SETTINGS, *settings, backend=backend_name))
        return model.to(device)

    return built


def trained(model, take, random_images):
    """The losses of each step of a training, and the state in its end."""
    torch.manual_seed(5)
    model.train()
    losses = []
    for number, size in enumerate(BATCHES):
        images = random_images(size, SHAPE, seed=number).to(model.device)
        found = take(images, number / len(BATCHES))
        losses.append({name: value.item() for name, value in found.items()})
    return losses, {name: value.cpu() for name, value in model.state_dict().items()}


def test_replayed_training_steps_are_those_that_run_as_they_are(built, random_images):
    model = built()
    steps = TrainingSteps(model, batch_size=8, batches=7)
    found, state = trained(model, steps.take, random_images)
    assert steps.eager is None
    assert steps.replayed == 12 - WARM_UP_CALLS
    plain = built()
    progress = torch.zeros((), dtype=torch.float64, device=plain.device)
    expected, expected_state = trained(
        plain,
        lambda images, value: plain.training_step(images, Step(progress.fill_(value), 7)),
        random_images,
    )
    for step, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6), step
    torch.testing.assert_close(state, expected_state, rtol=1e-3, atol=1e-4)


def test_replayed_calls_are_those_that_run_as_they_are(built, random_images, device):
    model = built().eval()
    calls = ModelCalls(model)
    images = random_images(8, SHAPE).to(device)
    of_graphs, plain = (torch.Generator(device).manual_seed(9) for _ in range(2))
    with torch.no_grad():
        for _ in range(WARM_UP_CALLS + 3):
            found = [
                calls.sample(8, of_graphs),
                calls.reconstruct(images, of_graphs),
                calls.test_loss(images, 7, of_graphs),
            ]
            expected = [
                model.sample(8, plain),
                model.reconstruct(images, plain),
                model.test_loss(images, Step(1.0, 7), plain),
            ]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for method in ("sample", "reconstruct", "test_loss"):
        assert calls.graph(method, 8).eager is None
        assert calls.graph(method, 8).replayed == 3


def waiting(model, losses):
    return {**losses, "loss": losses["loss"] * (losses["loss"].item() > -1)}


def counting(model, losses):
    model.steps = getattr(model, "steps", 0) + 1
    return losses


def replacing(model, losses):
    model.prior[0].weight.data = model.prior[0].weight.data.clone()
    return losses


def on_the_host(model, losses):
    return {"loss": torch.ones(())}


@pytest.mark.parametrize(
    ("careless", "reason"),
    [
        (waiting, "it waits for the GPU"),
        (counting, "it counts in steps"),
        (replacing, "it puts another tensor in the place of prior.0.weight"),
        (on_the_host, "loss is no tensor on the GPU"),
    ],
)
def test_what_cannot_be_captured_runs_as_it_is_and_says_why(
    careless, reason, build, random_images, device, monkeypatch
):
    model = build("esvae", SHAPE, *SETTINGS).to(device).train()
    step = model.training_step
    monkeypatch.setattr(
        model, "training_step", lambda images, at: careless(model, step(images, at))
    )
    steps = TrainingSteps(model, batch_size=8, batches=7)
    for _ in range(6):
        losses = steps.take(random_images(8, SHAPE).to(device), 0.5)
        assert torch.as_tensor(losses["loss"]).isfinite()
    assert steps.replayed == 0
    assert reason in steps.eager


def test_a_model_that_does_not_say_so_is_not_captured(build, random_images, device, monkeypatch):
    model = build("esvae", SHAPE, *SETTINGS).to(device).train()
    monkeypatch.setattr(type(model), "capturable", False)
    steps = TrainingSteps(model, batch_size=8, batches=7)
    for _ in range(6):
        steps.take(random_images(8, SHAPE).to(device), 0.5)
    assert steps.eager == "the model does not say that it can be captured"


def test_memory_that_runs_out_in_capture_leaves_the_training_alive(
    build, random_images, device, monkeypatch
):
    model = build("esvae", SHAPE, *SETTINGS).to(device).train()
    step = model.training_step

    def hungry(images, at):
        if torch.cuda.is_current_stream_capturing():
            torch.empty(2**50, dtype=torch.uint8, device=device)
        return step(images, at)

    monkeypatch.setattr(model, "training_step", hungry)
    steps = TrainingSteps(model, batch_size=8, batches=7)
    for _ in range(6):
        losses = steps.take(random_images(8, SHAPE).to(device), 0.5)
    assert losses["loss"].isfinite()
    assert "memory" in steps.eager
