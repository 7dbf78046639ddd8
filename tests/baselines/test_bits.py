"""Spikes of a bit each: whatever is done with them is done with the bytes that they stand for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.fused.cpu.packed_spikes import PackedSpikes, PackedSpikeTensor, packed_spikes_of
from bench.backend import NeuronSpec, Rectangle, stateful
from bench.registry import backends

SPEC = NeuronSpec(0.25, 0.2, Rectangle(centre=0.0, width=1.0))


def drawn(seed, *shape, rate=0.4):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).to(torch.uint8)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(*(st.integers(1, most) for most in (5, 9, 40, 100))),
    rate=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_words_are_unpacked_to_what_was_packed(seed, shape, rate):
    spikes = drawn(seed, *shape, rate=rate)
    packed = PackedSpikes.pack(spikes)
    assert torch.equal(packed.unpacked, spikes)
    weights = torch.randn(shape[0], generator=torch.Generator().manual_seed(seed))
    expected = torch.einsum("t, tnpc -> npc", weights.double(), spikes.double())
    # The terms can cancel, so the bound is that of a sum of float32: eps per term and addition.
    rounding = shape[0] * torch.finfo(torch.float32).eps * float(weights.abs().sum())
    torch.testing.assert_close(
        packed.weighted_sum(weights).double(), expected, rtol=0, atol=rounding
    )


def test_a_channel_is_a_bit_and_the_first_the_lowest():
    spikes = torch.zeros((1, 1, 2, 40), dtype=torch.uint8)
    spikes[0, 0, 1, [0, 5, 33]] = 1
    packed = PackedSpikes.pack(spikes)
    assert packed.packed.words[:4].tolist() == [0, 2**0 + 2**5, 0, 2**1]


@pytest.fixture
def spikes():
    """Packed spikes (3, 4, 40, 2, 6), and the bytes."""
    expected = drawn(0, 3, 4, 40, 2, 6)
    packed = PackedSpikes.pack(expected.flatten(3).mT)
    return PackedSpikeTensor(packed, (3, 4), (2, 6)), expected


def test_time_is_folded_into_the_batch_and_unfolded_without_computing(spikes):
    found, expected = spikes
    folded = found.flatten(0, 1)
    assert isinstance(folded, PackedSpikeTensor)
    assert folded.shape == (12, 40, 2, 6)
    assert torch.equal(folded.materialise(), expected.flatten(0, 1))
    unfolded = folded.unflatten(0, (3, 4)).detach()
    assert isinstance(unfolded, PackedSpikeTensor)
    assert torch.equal(unfolded.materialise(), expected)
    assert unfolded.stride() == unfolded.materialise().stride() == found.stride()


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1,
        lambda x: x.float().mean(0),
        lambda x: x.flatten(2),
        lambda x: x.flatten(0, 1).unflatten(0, (4, 3)),
        lambda x: x[1:, 2, :, None],
        lambda x: torch.stack(list(x)),
        lambda x: torch.from_numpy(x.numpy()),
        lambda x: torch.from_numpy(np.asarray(x)),
        lambda x: torch.tensor(x.tolist()),
    ],
)
def test_whatever_else_is_done_to_them_is_done_to_the_bytes(spikes, use):
    found, expected = spikes
    result = use(found)
    assert not isinstance(result, PackedSpikeTensor)
    assert torch.equal(result, use(expected))


def test_they_cannot_be_written_to(spikes):
    with pytest.raises(TypeError, match="writes to PackedSpikeTensor"):
        spikes[0].zero_()


@pytest.mark.parametrize("time_steps", [3, 6])
def test_other_time_steps_are_packed_again(spikes, time_steps):
    found, expected = spikes
    packed = packed_spikes_of(found.flatten(0, 1), time_steps)
    assert packed.packed.steps == time_steps
    laid_out = expected.flatten(0, 1).flatten(2).mT
    assert torch.equal(packed.unpacked, laid_out.unflatten(0, (time_steps, -1)))


@pytest.mark.parametrize("features", [32, 40])
@torch.no_grad()
def test_layers_hand_bits_on_and_give_what_they_give_for_bytes(features):
    """The state that is carried on included."""

    torch.manual_seed(0)
    backend = backends.load("fused")()
    first = backend.upsampling(features, features, SPEC).eval()
    second = backend.downsampling(features, features, SPEC).eval()
    first.norm.scale = second.norm.scale = 1.0
    readout = backend.readout(features, 3)
    # Pixels of all steps and images, enough for tables.
    spikes = drawn(1, 6, 16, features, 2, 6)
    parts = []
    with stateful(first), stateful(second):
        for part in spikes.split(3):
            given = first(part)
            assert isinstance(given, PackedSpikeTensor)
            parts.append(second(given))
            assert isinstance(parts[-1], PackedSpikeTensor)
    expected = second(first(spikes).materialise())
    assert 0.05 < expected.float().mean() < 0.95
    assert torch.equal(torch.cat(parts), expected + 0)
    torch.testing.assert_close(readout(parts[0]), readout(parts[0].materialise()))
