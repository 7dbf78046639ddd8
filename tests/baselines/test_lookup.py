"""Currents by table look-up against PyTorch's dense layers."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.fused.cpu import lookup, weight_gradients

DTYPES = {torch.float64: 1e-13, torch.float32: 1e-5}


def draws(seed, dtype, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def bytes_of(seed, rate, *shape):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).to(torch.uint8)


def assert_equal_up_to_rounding(found, expected):
    tolerance = DTYPES[expected.dtype] * max(1, expected.abs().max().item())
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=tolerance)


def assert_moments_are_of(currents, moments):
    """Of numbers (R, O, ...)."""
    numbers = currents.detach().transpose(0, 1).flatten(1)
    for found, wanted in zip(moments, (numbers.mean(1), numbers.var(1, False)), strict=True):
        assert_equal_up_to_rounding(found, wanted)


settled = settings(max_examples=40, deadline=None)


@settled
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 40),
    channels=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    size=st.tuples(st.sampled_from([2, 4, 6]), st.sampled_from([2, 4, 8])),
    rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    transposed=st.booleans(),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_convolutions_are_the_dense_ones(seed, images, channels, size, rate, transposed, dtype):
    inputs, outputs = channels
    shape = (inputs, outputs, 3, 3) if transposed else (outputs, inputs, 3, 3)
    weight, bias = (draw.requires_grad_() for draw in draws(seed, dtype, shape, (outputs,)))
    spikes = bytes_of(seed, rate, images, inputs, *size)
    numbers = spikes.to(dtype)
    if transposed:
        expected = F.conv_transpose2d(numbers, weight, bias, 2, 1, output_padding=1)
    else:
        expected = F.conv2d(numbers, weight, bias, 2, 1)
    currents = lookup.convolve(spikes, weight, bias.detach(), transposed)
    assert currents.shape == expected.shape
    assert_equal_up_to_rounding(currents.materialise(), expected)
    assert_moments_are_of(expected, currents.moments)
    gradient = draws(seed + 1, dtype, expected.shape)[0]
    # In float64: a sum of many gradients near 0 is not exact in PyTorch's float32 either.
    exact = weight.double(), bias.double()
    if transposed:
        expected = F.conv_transpose2d(numbers.double(), *exact, 2, 1, output_padding=1)
    else:
        expected = F.conv2d(numbers.double(), *exact, 2, 1)
    wanted = torch.autograd.grad(expected, (weight, bias), gradient.double())
    found = weight_gradients.convolution_gradients(spikes, gradient, transposed)
    for one, other in zip(found, wanted, strict=True):
        assert_equal_up_to_rounding(one, other)


@settled
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 50) | st.integers(250, 600),
    inputs=st.integers(1, 90),
    outputs=st.integers(1, 90),
    rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_linear_layers_are_the_dense_ones(seed, rows, inputs, outputs, rate, dtype):
    draw = draws(seed, dtype, (outputs, inputs), (outputs,))
    weight, bias = (parameter.requires_grad_() for parameter in draw)
    spikes = bytes_of(seed, rate, rows, inputs)
    expected = F.linear(spikes.to(dtype), weight, bias)
    assert_equal_up_to_rounding(lookup.connect(spikes, weight, bias), expected)
    gradient = draws(seed + 1, dtype, expected.shape)[0]
    wanted = torch.autograd.grad(expected, (weight, bias), gradient)
    for one, other in zip(weight_gradients.linear_gradients(spikes, gradient), wanted, strict=True):
        assert_equal_up_to_rounding(one, other)


def test_rounded_currents_of_a_linear_layer_are_sums_of_rounded_weights():
    weight, bias = draws(0, torch.float32, (70, 40), (70,))
    spikes = bytes_of(1, 0.3, 9, 40)
    found = lookup.connect(spikes, weight, bias, rounded=True)
    expected = F.linear(spikes.double(), weight.bfloat16().double(), bias.bfloat16().double())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())


def test_currents_of_a_linear_layer_do_not_depend_on_the_other_rows():
    weight, bias = draws(0, torch.float32, (64, 96), (64,))
    spikes = bytes_of(1, 0.3, 600, 96)
    alone = [lookup.connect(row, weight, bias) for row in spikes[::100].split(1)]
    assert torch.equal(lookup.connect(spikes, weight, bias)[::100], torch.cat(alone))


@pytest.mark.parametrize("transposed", [True, False])
def test_moments_of_rounded_currents_are_those_of_what_is_given(transposed):
    weight, bias = draws(0, torch.float32, (8, 8, 3, 3), (8,))
    spikes = bytes_of(1, 0.3, 64, 8, 4, 4)
    # Far from zero rounding moves them all the same way.
    currents = lookup.convolve(spikes, weight / 100, bias + 1000, transposed, rounded=True)
    numbers = currents.materialise().float()
    assert len(numbers[:, 0].unique()) < 20
    torch.testing.assert_close(currents.moments[0], numbers.mean((0, 2, 3)))
    variance = numbers.var((0, 2, 3), False)
    torch.testing.assert_close(currents.moments[1], variance, rtol=1e-3, atol=1e-6)


def test_moments_keep_their_digits_far_from_zero():
    weight, bias = draws(0, torch.float32, (3, 5, 3, 3), (5,))
    spikes = bytes_of(1, 0.3, 64, 3, 4, 4)
    near = lookup.convolve(spikes, weight, bias, True)
    far = lookup.convolve(spikes, weight, bias + 1000, True)
    torch.testing.assert_close(far.moments[0], near.moments[0] + 1000)
    torch.testing.assert_close(far.moments[1], near.moments[1], rtol=1e-3, atol=0)


@pytest.fixture
def currents():
    """Currents (6, 5, 8, 4) that are not computed yet, and the same as numbers."""
    weight, bias = draws(0, torch.float32, (3, 5, 3, 3), (5,))
    spikes = bytes_of(1, 0.3, 6, 3, 4, 2)
    expected = F.conv_transpose2d(spikes.float(), weight, bias, 2, 1, output_padding=1)
    return lookup.convolve(spikes, weight, bias, True), expected


def test_time_steps_are_parted_without_computing(currents):
    found, expected = currents
    parted = found.unflatten(0, (2, 3))
    assert isinstance(parted, lookup.LazyCurrents)
    assert parted.shape == (2, 3, 5, 8, 4)
    assert_equal_up_to_rounding(parted.materialise(), expected.unflatten(0, (2, 3)))
    assert_equal_up_to_rounding(parted.flatten(0, 1).materialise(), expected)


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1,
        lambda x: x.mean((0, 2, 3)),
        lambda x: x.flatten(1),
        lambda x: x.contiguous(),
        lambda x: torch.stack([x, x]),
        lambda x: x[2:, :, 1],
        lambda x: F.batch_norm(x, torch.zeros(5), torch.ones(5)),
    ],
)
def test_whatever_else_is_done_to_them_is_done_to_the_numbers(currents, use):
    found, expected = currents
    result = use(found)
    assert not isinstance(result, lookup.LazyCurrents)
    assert_equal_up_to_rounding(result, use(expected))


@pytest.mark.full
def test_currents_and_moments_do_not_depend_on_the_number_of_threads(threads):
    weight, bias = draws(0, torch.float32, (32, 64, 3, 3), (64,))
    spikes, found = bytes_of(1, 0.3, 80, 32, 8, 8), []
    for count in (1, 2):
        with threads(count):
            currents = lookup.convolve(spikes, weight, bias, True)
            found.append([currents.materialise(), *currents.moments])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
