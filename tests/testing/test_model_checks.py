"""Models that are right, and models that are wrong in one way each."""

import pytest
import torch
import toys
from narrow import narrow_networks
from torch import nn

from bench.backend import NeuronSpec, Triangle
from bench.testing import check_model, model_checks

FAST = ("image_size=8", "time_steps=3", "latent_size=4", "batch_size=8", "epochs=1")


class Good(toys.Steady):
    """A linear autoencoder that draws from the generator."""

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        size = torch.Size(image_shape).numel()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(size, size), nn.Tanh())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-2)

    def training_step(self, images, step):
        loss = (self.reconstruct(images, None) - images).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def reconstruct(self, images, generator):
        return self.network(images).view_as(images)

    def sample(self, n, generator):
        draws = torch.randn((n, *self.image_shape), generator=generator, device=self.device)
        return self.reconstruct(draws, generator)


class Global(Good):
    def sample(self, n, generator):
        return self.reconstruct(torch.randn((n, *self.image_shape)), generator)


class OnTheCPU(Good):
    def sample(self, n, generator):
        draws = torch.randn((n, *self.image_shape), generator=generator)
        return self.reconstruct(draws.to(self.device), generator)


class Bright(Good):
    def sample(self, n, generator):
        return 3 * super().sample(n, generator)


class Undefined(Good):
    def reconstruct(self, images, generator):
        images = super().reconstruct(images, generator)
        return images if self.training else images / 0.0 * 0.0


class Counting(Good):
    calls = 0

    def sample(self, n, generator):
        self.calls += 1
        return super().sample(n, generator) / self.calls


class Tracking(Good):
    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.register_buffer("seen", torch.zeros(()))

    def reconstruct(self, images, generator):
        self.seen += len(images)
        return super().reconstruct(images, generator)


class Centred(Good):
    """Normalises by the batch in evaluation mode too."""

    def reconstruct(self, images, generator):
        return super().reconstruct(images - images.mean(0), generator)


class Unlearning(Good):
    def training_step(self, images, step):
        return {"loss": (self.reconstruct(images, None) - images).square().mean()}


class Diverging(Good):
    def training_step(self, images, step):
        return {**super().training_step(images, step), "kl": float("nan")}


class Hidden(Good):
    """Keeps weights where no state_dict finds them."""

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.offset = [0.1 * torch.randn(image_shape)]

    def sample(self, n, generator):
        return (super().sample(n, generator) + self.offset[0]).clamp(-1, 1)


class Momentum(Good):
    """Keeps a number that training changes, and leaves it out of its training state."""

    steps = 0

    def training_step(self, images, step):
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = 0.01 / self.steps
        return super().training_step(images, step)


class Promising(Good):
    capabilities = frozenset({"sample", "reconstruct", "encode"})


class Modest(Good):
    capabilities = frozenset({"sample"})


class Misnamed(Good):
    def parts(self):
        return {"critic": [self.network]}


class Forgetful(Good):
    def sampling_modules(self):
        return [self.network[0], self.network[2]]


class Shared(Good):
    def parts(self):
        return {"encoder": [self.network], "decoder": [self.network[1]]}


class Spiking(Good):
    """Reconstructs through a layer of the backend."""

    spiking = True

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        size = torch.Size(image_shape).numel()
        self.layer = backend.linear(size, size, NeuronSpec(0.5, 0.25, Triangle()))

    def reconstruct(self, images, generator):
        pixels = images.flatten(1).expand(self.protocol.time_steps, len(images), -1)
        return super().reconstruct(self.layer(pixels).mean(0).view_as(images), generator)


class Graded(Spiking):
    def spiking_layers(self):
        return {"scaled": self.network[1]}

    def reconstruct(self, images, generator):
        return Good.reconstruct(self, images, generator)


WRONG = {
    Global: ("draws from its generator", "sample draws from the global generator of PyTorch"),
    OnTheCPU: ("draws from its generator", "sample calls torch.randn without a device"),
    Bright: ("gives finite images", "sample gave values in -"),
    Undefined: ("gives finite images", "reconstruct gave values that are NaN"),
    Counting: ("keeps no state", "sample depends on earlier calls"),
    Tracking: ("keeps no state", "calls in evaluation mode change seen"),
    Centred: ("treats each image", "reconstruct of an image depends on the other images"),
    Unlearning: ("training steps", "4 training steps change no parameter"),
    Diverging: ("training steps", "the loss 'kl' is nan in step 1 of 4"),
    Hidden: ("state_dict holds", "the same state_dict gives other samples"),
    Momentum: ("a resumed training", "ends with other values of network.1.weight"),
    Promising: ("declares", "capabilities has 'encode', but the class has no method encode"),
    Modest: ("declares", "the class has the method reconstruct, which capabilities leaves out"),
    Misnamed: ("parts", "parts has the names critic"),
    Forgetful: ("sampling_modules", "sample runs network.1, which sampling_modules leaves out"),
    Shared: ("parts", "the parts encoder and decoder share a Linear"),
    Graded: ("spikes are 0 or 1", "scaled"),
}


@pytest.mark.parametrize("model", [Good, Spiking], ids=lambda cls: cls.__name__)
def test_a_good_model_passes_every_check(model):
    results = check_model(model, settings=FAST, device="cpu")
    assert [each for each in results if each.outcome == "failed"] == []
    assert sum(each.outcome == "passed" for each in results) >= 9


@pytest.mark.parametrize("model", WRONG, ids=lambda cls: cls.__name__)
def test_a_wrong_model_fails_its_check_and_is_told_why(model):
    check, words = WRONG[model]
    (result,) = (
        each.result()
        for each in model_checks(model, settings=FAST, device="cpu")
        if str(each).startswith(check)
    )
    assert result.outcome == "failed"
    assert words in result.message


def test_a_check_moves_no_random_number():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_model(Good, settings=FAST, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("check", model_checks(Spiking, settings=FAST, device="cpu"), ids=str)
def test_checks_are_tests_of_pytest(check):
    check()


@pytest.mark.parametrize("name", ["ann_vae", "esvae", "fsvae", "sgad", "sgan", "taid", "vq_svae"])
def test_the_models_of_the_suite_pass(name):
    settings = ("time_steps=2", "batch_size=4", "latent_size=4", "epochs=1")
    with narrow_networks():
        results = check_model(name, settings=settings, device="cpu")
    assert [each for each in results if each.outcome == "failed"] == []
