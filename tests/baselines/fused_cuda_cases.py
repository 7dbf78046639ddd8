"""The CUDA kernels against the reference, case by case.

As a script it goes through all cases on the CPU, in Triton's interpreter, for which
``TRITON_INTERPRET=1`` must be in the environment before Triton is imported.
"""

from dataclasses import dataclass
from itertools import product

import torch

from baselines.backends.reference import ReferenceNeuron
from baselines.fused import cuda as fused_cuda
from baselines.fused.cpu.lif_constants import LIFConstants
from bench.backend import NeuronSpec, Rectangle

DECAY, THRESHOLD = 0.25, 0.2
WINDOWS = {
    "official_code": Rectangle(centre=0.0, width=1.0),
    "paper": Rectangle(centre=0.2, width=0.2),
}
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
    window: str = "paper"
    at_rest: bool = False
    layout: str = "contiguous"
    loss: str = "of both"
    chunks: tuple[int, ...] = ()


CASES = [
    *(
        Case(shape, dtype, window, at_rest)
        for shape, dtype, window, at_rest in product(
            SHAPES, (torch.float32, torch.float64), WINDOWS, (True, False)
        )
    ),
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
    window = WINDOWS[case.window]
    reference = ReferenceNeuron(NeuronSpec(DECAY, THRESHOLD, window))
    constants = LIFConstants(DECAY, THRESHOLD, window.centre - THRESHOLD, window.width)
    expected = _results(case, device, reference.integrate, ())
    found = _results(
        case,
        device,
        lambda currents, membrane: fused_cuda.lif_forward(currents, membrane, constants),
        case.chunks,
    )
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
    weights = draw(len(currents) + 1, *currents.shape[1:])
    loss = LOSSES[case.loss](torch.cat(spikes), membrane, weights)
    inputs = [values] if first is None else [values, first]
    gradients = torch.autograd.grad(loss, inputs)
    return torch.cat(spikes).detach(), membrane.detach(), *gradients


def check_layout(device):
    """Channels-last currents are read where they lie, and all that comes back lies alike."""
    constants = LIFConstants(DECAY, THRESHOLD, -THRESHOLD, 1.0)
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
    """A potential at the threshold does not fire: the first three, in numbers exact in binary."""
    constants = LIFConstants(0.5, 0.25, -0.25, 1.0)
    currents = torch.tensor([[0.25], [0.125], [0.125], [0.1875], [0.25]], device=device)
    spikes, membrane = fused_cuda.lif_forward(currents, None, constants)
    assert spikes.flatten().tolist() == [0, 0, 0, 1, 0]
    assert membrane.tolist() == [0.25]


if __name__ == "__main__":
    for each in CASES:
        print(each, flush=True)
        check(each, "cpu")
    for other in (check_layout, check_threshold):
        print(other, flush=True)
        other("cpu")
