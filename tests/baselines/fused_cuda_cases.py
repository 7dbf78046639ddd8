"""The CUDA kernels against the reference, case by case.

As a script it goes through all cases on the CPU, in Triton's interpreter, for which
``TRITON_INTERPRET=1`` must be in the environment before Triton is imported.
"""

from dataclasses import dataclass
from itertools import product

import torch

from baselines.backends.reference import ReferenceNeuron
from baselines.fused import cuda as fused_cuda
from baselines.fused.cpu.lazy_tensors import WeightedSteps
from baselines.fused.cpu.lif_constants import LIFConstants
from baselines.fused.neuron import normalisation
from bench.backend import Arctangent, NeuronSpec, Rectangle, TimeDependentBatchNorm, Triangle

DECAY, THRESHOLD = 0.25, 0.2
WINDOWS = {
    "official_code": NeuronSpec(DECAY, THRESHOLD, Rectangle(centre=0.0, width=1.0)),
    "paper": NeuronSpec(DECAY, THRESHOLD, Rectangle(centre=0.2, width=0.2)),
}
OTHERS = {
    "detached": NeuronSpec(DECAY, THRESHOLD, Rectangle(0.1, 0.7), reset_gradient=False),
    "triangle": NeuronSpec(DECAY, THRESHOLD, Triangle(0.7)),
    "detached triangle": NeuronSpec(DECAY, THRESHOLD, Triangle(0.7), reset_gradient=False),
    "arctangent": NeuronSpec(DECAY, THRESHOLD, Arctangent(3.0)),
    "detached arctangent": NeuronSpec(DECAY, THRESHOLD, Arctangent(3.0), reset_gradient=False),
    "without leak": NeuronSpec(1.0, THRESHOLD, Arctangent(2.0)),
}
NEURONS = WINDOWS | OTHERS
# Around a block of neurons, of which several make a layer, and T = 1.
SHAPES = [(1, 1), (1, 3, 5), (4, 2, 3, 5, 7), (5, 1, 511), (4, 2, 256), (16, 513), (3, 4, 321)]
LAYOUTS = {
    "contiguous": lambda values: values,
    "channels last": lambda values: values.movedim(-1, 2),
    "equal steps": lambda values: values[:1].expand_as(values),
    "time innermost": lambda values: values.movedim(0, -1).contiguous().movedim(-1, 0),
    "part of the neurons": lambda values: values[..., 1::2],
}
LOSSES = {
    "of both": lambda spikes, membrane, weights: (
        (spikes * weights[1:]).sum() + (membrane * weights[0]).sum()
    ),
    "of summed spikes": lambda spikes, membrane, weights: (spikes.sum(0) * weights[0]).sum(),
    "of the membrane": lambda spikes, membrane, weights: membrane.sum(),
}


@dataclass(frozen=True)
class Case:
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    neuron: str = "paper"
    at_rest: bool = False
    layout: str = "contiguous"
    loss: str = "of both"
    chunks: tuple[int, ...] = ()
    repeats: int = 1


CASES = [
    *(
        Case(shape, dtype, neuron, at_rest)
        for shape, dtype, neuron, at_rest in product(
            SHAPES, (torch.float32, torch.float64), WINDOWS, (True, False)
        )
    ),
    *(
        Case((4, 2, 3, 5, 7), dtype, neuron)
        for dtype, neuron in product((torch.float32, torch.float64), OTHERS)
    ),
    Case((1, 2, 6, 8, 11), repeats=5),
    Case((1, 2, 6, 8, 11), torch.float64, "detached arctangent", layout="channels last", repeats=5),
    *(
        Case((4, 2, 6, 8, 11), layout=layout, loss=loss)
        for layout, loss in product(LAYOUTS, LOSSES)
    ),
    *(
        Case((7, 3, 250), torch.float64, at_rest=at_rest, chunks=chunks)
        for chunks, at_rest in product([(1,) * 7, (2, 1, 4), (6, 1)], (True, False))
    ),
    Case((6, 2, 6, 8, 11), layout="channels last", chunks=(2, 4)),
    Case((4, 0, 3)),
]


def check(case, device):
    """Spikes and the last membrane are the reference's, and so are the gradients."""
    reference = ReferenceNeuron(NEURONS[case.neuron])
    constants = LIFConstants.of(reference.spec)

    def at_every_step(currents, membrane):
        return reference.integrate(currents.repeat_interleave(case.repeats, 0), membrane)

    def once(currents, membrane):
        time_steps = case.repeats * len(currents)
        return fused_cuda.lif_forward(currents, membrane, constants, time_steps=time_steps)

    expected = _results(case, device, at_every_step, ())
    found = _results(case, device, once, case.chunks)
    for values, wanted in zip(found[:2], expected[:2], strict=True):
        assert torch.equal(values, wanted)
    if expected[0].numel() > 100:
        assert 0.05 < expected[0].mean() < 0.95
    for gradient, wanted in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(gradient, wanted)


def _results(case, device, integrate, chunks):
    """Spikes, last membrane, and the gradients of currents and first membrane."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape):
        values = torch.randn(shape, generator=generator, dtype=case.dtype) * 0.4 + 0.1
        return values.to(device)

    values = draw(*case.shape).requires_grad_()
    currents = LAYOUTS[case.layout](values)
    first = None if case.at_rest else draw(*currents.shape[1:]).requires_grad_()
    spikes, membrane = [], first
    for chunk in currents.split(chunks or len(currents)):
        fired, membrane = integrate(chunk, membrane)
        spikes.append(fired)
    weights = draw(case.repeats * len(currents) + 1, *currents.shape[1:])
    loss = LOSSES[case.loss](torch.cat(spikes), membrane, weights)
    inputs = [values] if first is None else [values, first]
    gradients = torch.autograd.grad(loss, inputs)
    return torch.cat(spikes).detach(), membrane.detach(), *gradients


@dataclass(frozen=True)
class NormCase:
    shape: tuple[int, ...]
    training: bool = True
    repeats: int = 1
    layout: str = "channels last"
    at_rest: bool = True
    loss: str = "of both"
    neuron: str = "official_code"


NORM_CASES = [
    *(
        NormCase(shape, training, repeats)
        for shape, repeats in [((4, 3, 4, 4, 6), 1), ((1, 3, 8, 5, 5), 7), ((16, 2, 3, 1, 600), 1)]
        for training in (True, False)
    ),
    *(NormCase((5, 2, 6, 8, 4), layout=layout) for layout in LAYOUTS if layout != "equal steps"),
    *(NormCase((3, 2, 5, 4, 4), at_rest=False, loss=loss) for loss in LOSSES),
    NormCase((1, 2, 5, 4, 4), repeats=4, at_rest=False),
    *(NormCase((3, 2, 5, 4, 4), at_rest=False, neuron=neuron) for neuron in OTHERS),
]


def check_norm(case, device):
    """tdBN with its neurons, and all gradients, are those of the reference in float64."""
    reference = ReferenceNeuron(NEURONS[case.neuron])
    constants = LIFConstants.of(reference.spec)
    generator = torch.Generator().manual_seed(7)

    def draw(*shape):
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values.to(device)

    inputs = draw(*case.shape).mul_(2).add_(3)
    laid_out = LAYOUTS[case.layout](inputs)
    parameters = [draw(laid_out.shape[2]) for _ in range(3)]
    first = None if case.at_rest else draw(*laid_out.shape[1:])
    factors = draw(case.repeats * len(laid_out) + 1, *laid_out.shape[1:])
    found = []
    for fused in (False, True):
        norm = TimeDependentBatchNorm(laid_out.shape[2], THRESHOLD).to(device, torch.float64)
        norm.train(case.training)
        values, weight, shift, bias = (
            each.clone().requires_grad_() for each in (inputs, *parameters)
        )
        norm.weight, norm.bias = torch.nn.Parameter(weight), torch.nn.Parameter(shift)
        norm.running_mean.fill_(2.5)
        norm.running_var.fill_(3.0)
        initial = None if first is None else first.clone().requires_grad_()
        currents = LAYOUTS[case.layout](values)
        run = _fused_norm if fused else _reference_norm
        spikes, membrane = run(currents, norm, bias, initial, case.repeats, reference, constants)
        LOSSES[case.loss](spikes, membrane, factors).backward()
        asked = [values, norm.weight, norm.bias, bias, *([] if initial is None else [initial])]
        found.append([spikes.detach(), membrane.detach(), *(each.grad for each in asked)])
    assert 0.02 < found[0][0].mean() < 0.98
    # Without the norm's statistics, a bias before it has no gradient: the reference's is rounding.
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)


def _reference_norm(currents, norm, bias, membrane, repeats, reference, constants):
    added = currents + bias.view(-1, *[1] * (currents.dim() - 3))
    normed = norm(added.flatten(0, 1), repeats).unflatten(0, currents.shape[:2])
    normed = normed.expand(repeats, *normed.shape[1:]) if repeats > 1 else normed
    return reference.integrate(normed, membrane)


def _fused_norm(currents, norm, bias, membrane, repeats, reference, constants):
    added = bias.detach()
    if norm.training:
        mean, variance = fused_cuda.moments(currents)
        flat = (currents.detach() + added.view(-1, 1, 1)).transpose(0, 2).flatten(1)
        torch.testing.assert_close(mean + added, flat.mean(1))
        torch.testing.assert_close(variance, flat.var(1, correction=0))
    else:
        mean, variance = norm.running_mean - added, norm.running_var
    return fused_cuda.lif_forward(
        currents,
        membrane,
        constants,
        time_steps=repeats * len(currents),
        norm=normalisation(norm, mean, variance),
        synapse_bias=bias,
    )


def check_weighted_sum(device):
    """The weighted sum of spikes lies as they do, and its gradient is read without a copy."""
    weights = torch.tensor([0.5, 2.0, 0.25], device=device)
    spikes = (torch.rand((3, 2, 4, 4, 5), device=device) > 0.5).float().movedim(-1, 2)
    found = fused_cuda.weighted_sum(spikes, weights)
    torch.testing.assert_close(found, torch.einsum("t,tnchw->nchw", weights, spikes))
    assert found.is_contiguous(memory_format=torch.channels_last)
    currents = torch.randn((3, 2, 5, 4, 4), device=device).requires_grad_()
    constants = LIFConstants.of(WINDOWS["official_code"])
    step = torch.randn((2, 5, 4, 4), device=device)
    gradients = []
    for lazy in (WeightedSteps(weights, step), weights.view(-1, 1, 1, 1, 1) * step):
        fired, _ = fused_cuda.lif_forward(currents, None, constants)
        gradients.append(torch.autograd.grad(fired, currents, lazy)[0])
    torch.testing.assert_close(*gradients)


def check_layout(device):
    """Channels-last currents are read where they lie, and all that comes back lies alike."""
    constants = LIFConstants.of(WINDOWS["official_code"])
    currents = torch.rand((3, 2, 8, 8, 5), device=device).movedim(-1, 2).requires_grad_()
    saved = []

    def pack(tensor):
        saved.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        spikes, membrane = fused_cuda.lif_forward(currents, None, constants)
    (gradient,) = torch.autograd.grad(spikes.sum() + membrane.sum(), currents)
    assert saved == [currents.data_ptr()]
    assert spikes.stride() == gradient.stride() == currents.stride()
    assert membrane.is_contiguous(memory_format=torch.channels_last)


def check_threshold(device):
    """A potential at the threshold fires if the neuron says so, in numbers exact in binary."""
    values = [[0.25], [0.125], [0.125], [0.1875], [0.25]]
    for at_threshold, fired, last in [(False, [0, 0, 0, 1, 0], 0.25), (True, [1, 0, 0, 1, 1], 0.0)]:
        spec = NeuronSpec(0.5, 0.25, Rectangle(0.0, 1.0), fires_at_threshold=at_threshold)
        for dtype in (torch.float32, torch.float64):
            currents = torch.tensor(values, device=device, dtype=dtype)
            spikes, membrane = fused_cuda.lif_forward(currents, None, LIFConstants.of(spec))
            assert spikes.flatten().tolist() == fired
            assert membrane.tolist() == [last]


if __name__ == "__main__":
    for each in CASES:
        print(each, flush=True)
        check(each, "cpu")
    for each in NORM_CASES:
        print(each, flush=True)
        check_norm(each, "cpu")
    for other in (check_weighted_sum, check_layout, check_threshold):
        print(other, flush=True)
        other("cpu")
