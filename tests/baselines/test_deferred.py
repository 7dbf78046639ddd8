"""Spikes that are kept in bytes, and gradients that are kept as products: they are the numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.fused.cpu.lazy_tensors import ByteSpikes, WeightedSteps, bytes_of, materialised


@pytest.fixture
def fired():
    generator = torch.Generator().manual_seed(0)
    return (torch.rand((3, 4, 6, 2, 2), generator=generator) < 0.4).to(torch.uint8)


def rearranged(fired):
    return fired.contiguous().movedim(2, -1).contiguous().movedim(-1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "move",
    [
        lambda x: x.flatten(0, 1),
        lambda x: x.flatten(2),
        lambda x: x.flatten(0, 1).contiguous(memory_format=torch.channels_last),
        lambda x: x.flatten(2).unflatten(2, (12, 2)),
        lambda x: x.movedim(2, -1),
        lambda x: x[1:, 2, :, None],
        lambda x: x.detach(),
        lambda x: x.clone(),
        lambda x: x.mT,
    ],
)
def test_spikes_that_are_moved_stay_bytes(fired, move, dtype):
    fired = rearranged(fired)
    found, expected = move(ByteSpikes(fired, dtype)), move(fired.to(dtype))
    assert isinstance(found, ByteSpikes)
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert found.stride() == expected.stride()
    assert torch.equal(materialised(found), expected)
    assert torch.equal(bytes_of(found), bytes_of(expected))


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x + 1,
        lambda x: 1 - x,
        lambda x: x.mean(0),
        lambda x: x.double(),
        lambda x: torch.cat([x, torch.zeros_like(x)]),
        lambda x: F.linear(x.flatten(2), torch.ones((3, 24))),
        lambda x: x.gather(-1, torch.ones((3, 4, 6, 2, 1), dtype=torch.int64)),
        lambda x: torch.zeros(x.shape).add_(x),
        lambda x: x.expand(2, *x.shape),
    ],
)
def test_whatever_else_is_done_to_spikes_is_done_to_the_numbers(fired, use):
    result = use(ByteSpikes(fired, torch.float32))
    assert type(result) is torch.Tensor
    torch.testing.assert_close(result, use(fired.float()))


def test_gradients_flow_through_spikes(fired):
    weights = torch.randn(fired.shape)
    gradients = []
    for spikes in (ByteSpikes(fired, torch.float32), fired.float()):
        leaf = spikes.requires_grad_()
        loss = (leaf.flatten(2) * weights.flatten(2)).sum() + leaf.mean(0).square().sum()
        gradients.append(torch.autograd.grad(loss, leaf)[0])
    torch.testing.assert_close(*gradients)


def test_they_can_be_printed(fired):
    spikes = ByteSpikes(fired[0, 0, 0], torch.float32).requires_grad_()
    assert repr(spikes) == f"ByteSpikes({fired[0, 0, 0].float()})"
    assert repr(WeightedSteps(torch.ones(2), torch.ones(1))) == f"WeightedSteps({torch.ones(2, 1)})"


def test_they_are_arrays_and_lists_of_the_numbers(fired):
    spikes = ByteSpikes(fired, torch.float32)
    assert (spikes.numpy() == fired.float().numpy()).all()
    assert (np.asarray(spikes) == fired.float().numpy()).all()
    assert spikes.tolist() == fired.float().tolist()
    with pytest.raises(RuntimeError, match="requires grad"):
        spikes.requires_grad_().numpy()
    assert (spikes.numpy(force=True) == fired.float().numpy()).all()


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.mul_(2),
        lambda x: x.zero_(),
        lambda x: torch.add(torch.ones(x.shape), 1, out=x),
        lambda x: x.flatten(0, 1).zero_(),
    ],
)
def test_spikes_cannot_be_written_to(fired, write):
    with pytest.raises(TypeError, match="writes to ByteSpikes"):
        write(ByteSpikes(fired, torch.float32))


def test_products_are_computed_when_they_are_used():
    weights, step = torch.randn(3), torch.randn((4, 5, 2)).mT
    found, expected = WeightedSteps(weights, step), weights[:, None, None, None] * step
    assert found.shape == expected.shape
    torch.testing.assert_close(materialised(found), expected)
    torch.testing.assert_close(found.sum(0), expected.sum(0))
    torch.testing.assert_close(found.flatten(0, 1) * 2, expected.flatten(0, 1) * 2)
