"""TAID's read-out against its plain form, with one convolution per time step."""

import pytest
import torch
from torch import nn

from baselines.fused.cpu.lazy_tensors import ByteSpikes
from baselines.taid import TemporalAttentionReadout
from bench.registry import backends

T, N, INPUTS = 6, 3, 5
SMALL = (1, 32, 32)
SETTINGS = ["latent_size=6", "time_steps=5", "models.taid.k=3"]
ATTENTIONS = ["per_channel", "shared"]

pytestmark = pytest.mark.usefixtures("double_precision")


def plain_currents(spikes, weight, bias):
    """The last transposed convolution's output at each step, its weight ``(C', C, 3, 3)``."""
    convolve = nn.functional.conv_transpose2d
    return torch.stack([convolve(spike, weight, bias, padding=1) for spike in spikes])


def plain_weights(currents, matrix, attention):
    means = currents.mean((3, 4))
    if attention == "shared":
        means = means.mean(2, keepdim=True).expand_as(means)
    return torch.sigmoid(torch.einsum("st,tnc->snc", matrix, means))


def plain_images(currents, matrix, attention):
    weights = plain_weights(currents, matrix, attention)
    return torch.tanh((weights[..., None, None] * currents).sum(0))


def ungrouped(readout):
    """The weight of the read-out's synapse as a plain transposed convolution has it."""
    weight = readout.synapse.weight
    return weight[:, 0].unflatten(0, (readout.channels, -1)).transpose(0, 1)


@pytest.fixture
def fired(seeded):
    return (torch.rand((T, N, INPUTS, 4, 7), generator=seeded()) < 0.3).to(torch.uint8)


@pytest.fixture
def built():
    def built(channels, attention="per_channel", backend="reference"):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            synapse = nn.ConvTranspose2d(INPUTS, channels, 3, padding=1)
            readout = TemporalAttentionReadout(synapse, T, attention, backends.load(backend)())
        # Weights at which the attention is far from 1/2.
        readout.attention.weight.data *= 8
        return readout

    return built


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_gradients_are_those_of_a_convolution_per_step(
    built, fired, seeded, channels, attention, backend
):
    readout = built(channels, attention, backend)
    spikes = ByteSpikes(fired, torch.float64) if backend == "fused" else fired.double()
    spikes.requires_grad_()
    images = readout(spikes)
    leaf = fired.double().requires_grad_()
    currents = plain_currents(leaf, ungrouped(readout), readout.synapse.bias)
    expected = plain_images(currents, readout.attention.weight, attention)
    torch.testing.assert_close(images, expected)
    factors = torch.randn(images.shape, generator=seeded())
    parameters = list(readout.parameters())
    gradients = torch.autograd.grad((images * factors).sum(), [spikes, *parameters])
    wanted = torch.autograd.grad((expected * factors).sum(), [leaf, *parameters])
    assert all(gradient.abs().max() > 1e-3 for gradient in wanted)
    for gradient, plain in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient + 0, plain)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_prefix_is_the_image_if_the_currents_of_the_later_steps_are_zero(built, fired, attention):
    readout = built(3, attention)
    spikes = fired.double()
    with torch.no_grad():
        found = list(readout.prefixes(spikes))
        currents = plain_currents(spikes, ungrouped(readout), readout.synapse.bias)
        for t in range(1, T + 1):
            later = (torch.arange(T) >= t)[:, None, None, None, None]
            expected = plain_images(
                currents.masked_fill(later, 0), readout.attention.weight, attention
            )
            torch.testing.assert_close(found[t - 1], expected)
            torch.testing.assert_close(readout(spikes[:t]), expected)
    assert len(found) == T


@pytest.mark.parametrize("channels", [1, 3])
def test_without_attention_all_steps_count_half(built, fired, channels):
    readout = built(channels)
    nn.init.zeros_(readout.attention.weight)
    currents = plain_currents(fired.double(), ungrouped(readout), readout.synapse.bias)
    torch.testing.assert_close(readout(fired.double()), torch.tanh(0.5 * currents.sum(0)))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_weights_lie_between_0_and_1_and_differ_between_channels_unless_shared(
    built, seeded, attention
):
    means = torch.randn((T, N, 3), generator=seeded())
    with torch.no_grad():
        weights = built(3, attention).attention_weights(means)
    assert weights.shape == (T, N, 1 if attention == "shared" else 3)
    assert 0 < weights.min() < 0.2
    assert 0.8 < weights.max() < 1
    if attention == "per_channel":
        assert (weights[..., 0] - weights[..., 1]).abs().min() > 1e-4


@pytest.mark.parametrize("image_shape", [SMALL, (3, 32, 32)])
def test_it_adds_a_matrix_over_time_to_fsvae(build, image_shape):
    taid = build("taid", image_shape, *SETTINGS)
    fsvae = build("fsvae", image_shape, *SETTINGS, "models.fsvae.k=3")
    sizes, expected = (
        {name: value.numel() for name, value in model.named_parameters()} for model in (taid, fsvae)
    )
    assert sizes == {**expected, "decoder.readout.attention.weight": 5 * 5}
    # Equal seeds give equal weights, so that the models can be compared.
    for name, value in fsvae.named_parameters():
        found = ungrouped(taid.decoder.readout) if "readout.synapse.weight" in name else None
        assert torch.equal(taid.get_parameter(name) if found is None else found, value)


def test_the_matrix_is_drawn_like_a_convolution_of_kernel_1(build):
    weight = build("taid", SMALL, "time_steps=64").decoder.readout.attention.weight
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = nn.Conv1d(64, 64, kernel_size=1, bias=False).weight
    assert weight.abs().max() <= 1 / 8
    assert weight.std().item() == pytest.approx(drawn.std().item(), rel=0.05)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_attention_is_an_option_of_the_protocol(build, attention):
    model = build("taid", SMALL, *SETTINGS, f"models.taid.attention={attention}")
    assert model.decoder.readout.shared == (attention == "shared")
