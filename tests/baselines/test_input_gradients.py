"""Gradients of a convolution's input are PyTorch's, up to the order of sums."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.fused.cpu.input_gradients import are_faster, convolution_gradient
from baselines.fused.synapses import Downsampling, Upsampling

RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-13}


def drawn(seed, dtype, *shape):
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=generator, dtype=dtype)
    return tensor.contiguous(memory_format=torch.channels_last)


def case(seed, dtype, images, channels, outputs, size, transposed):
    """Gradient and weight of a convolution whose smaller map is of this size."""
    of_output = [side * (2 if transposed else 1) for side in size]
    weight = (channels, outputs) if transposed else (outputs, channels)
    return drawn(seed, dtype, images, outputs, *of_output), drawn(seed + 1, dtype, *weight, 3, 3)


def by_pytorch(gradient, weight, transposed):
    """The operation is the transposed one of the two."""
    if transposed:
        return F.conv2d(gradient, weight, stride=2, padding=1)
    return F.conv_transpose2d(gradient, weight, stride=2, padding=1, output_padding=1)


def assert_equal_up_to_rounding(found, expected):
    scale = expected.abs().max().item()
    rtol = RELATIVE[found.dtype]
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * scale)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 20),
    channels=st.sampled_from([32, 64, 96]),
    outputs=st.sampled_from([32, 64, 96]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.just((16, 20)),
    transposed=st.booleans(),
    dtype=st.sampled_from(list(RELATIVE)),
)
def test_they_are_pytorchs(seed, images, channels, outputs, size, transposed, dtype):
    gradient, weight = case(seed, dtype, images, channels, outputs, size, transposed)
    found = convolution_gradient(gradient, weight, transposed)
    expected = by_pytorch(gradient, weight, transposed)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert_equal_up_to_rounding(found, expected)


@pytest.mark.parametrize("transposed", [True, False])
def test_an_images_own_does_not_depend_on_the_others(transposed):
    gradient, weight = case(0, torch.float32, 21, 64, 32, (16, 16), transposed)
    together = convolution_gradient(gradient, weight, transposed)
    for image in (0, 7, 8, 20):
        alone = convolution_gradient(gradient[image : image + 1], weight, transposed)
        assert torch.equal(together[image : image + 1], alone)


@pytest.mark.full
@pytest.mark.parametrize("count", [2, 3])
def test_they_do_not_depend_on_the_number_of_threads(count, threads):
    gradient, weight = case(1, torch.float32, 64, 32, 32, (16, 16), True)
    expected = convolution_gradient(gradient, weight, True)
    with threads(count):
        assert torch.equal(convolution_gradient(gradient, weight, True), expected)


@pytest.mark.parametrize("layer", [Upsampling, Downsampling])
@pytest.mark.parametrize("outputs", [64, 40])
def test_layers_give_them(layer, outputs):
    torch.manual_seed(0)
    convolution = layer(32, outputs).to(memory_format=torch.channels_last)
    images = drawn(2, torch.float32, 40, 32, 8, 8).requires_grad_()
    currents = convolution(images)
    gradient = drawn(3, torch.float32, *currents.shape)
    (found,) = torch.autograd.grad(currents, images, gradient)
    transposed = layer is Upsampling
    expected = by_pytorch(gradient.double(), convolution.weight.detach().double(), transposed)
    assert_equal_up_to_rounding(found, expected.float())


def test_only_float32_of_whole_lanes_is_taken():
    vectors = torch.backends.cpu.get_cpu_capability() == "AVX512"
    for dtype, channels, outputs, taken in (
        (torch.float32, 32, 64, vectors),
        (torch.float32, 40, 64, False),
        (torch.float32, 32, 3, False),
        (torch.float64, 32, 64, False),
    ):
        for transposed in (True, False):
            given = case(0, dtype, 2, channels, outputs, (2, 2), transposed)
            assert are_faster(*given, transposed) == taken
