"""Probes of a backend's layers: synapses, tdBN and neurons against their equations in float64."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backend import (
    NORM_EPSILON,
    NORM_MOMENTUM,
    READOUT_DECAY,
    NeuronSpec,
    SpikingBackend,
    SpikingLayer,
)
from bench.store.schema import ANOTHER_NEURON, EXACT, WITHIN_ROUNDING
from bench.testing.deviations import (
    GRADIENT_TOLERANCE,
    ROUNDING,
    Finding,
    spike_deviation,
)
from bench.testing.equations import (
    PlainBackend,
    from_window_edge,
    lif_backward,
    lif_forward,
    potential_bound,
)

TIME_STEPS = 4
IMAGES = 3
INPUTS, OUTPUTS, SIDE = 8, 16, 4
CURRENT_ERROR = 16 * ROUNDING
"""Relative error of a normalised current that float32 explains, whatever the order of sums."""


def _downsampled(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(values, weight, bias, stride=2, padding=1)


def _upsampled(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv_transpose2d(values, weight, bias, stride=2, padding=1, output_padding=1)


@dataclass(frozen=True)
class _Kind:
    """A kind of layer.

    Attributes:
        build: function that builds the layer.
        synapse: function that computes its synapses from input, weight and bias.
        inputs: shape of the input of one image and time step.
        repeats: number of equal time steps that the input stands for; 1 for a spike train.
    """

    build: Callable[[SpikingBackend, NeuronSpec], SpikingLayer]
    synapse: Callable[[Tensor, Tensor, Tensor], Tensor]
    inputs: tuple[int, ...]
    repeats: int = 1


_IMAGE = (INPUTS, SIDE, SIDE)
_KINDS: Mapping[str, _Kind] = {
    "linear": _Kind(lambda b, spec: b.linear(INPUTS, OUTPUTS, spec), F.linear, (INPUTS,)),
    "downsampling": _Kind(lambda b, s: b.downsampling(INPUTS, OUTPUTS, s), _downsampled, _IMAGE),
    "upsampling": _Kind(lambda b, s: b.upsampling(INPUTS, OUTPUTS, s), _upsampled, _IMAGE),
    "direct_coding": _Kind(
        lambda b, spec: b.direct_coding(3, INPUTS, spec, TIME_STEPS),
        _downsampled,
        (3, SIDE, SIDE),
        TIME_STEPS,
    ),
}
LAYERS = tuple(_KINDS)


def layer_findings(
    backend: SpikingBackend, name: str, spec: NeuronSpec, device: torch.device
) -> Iterator[Finding]:
    """Compare a layer of a backend with its equations, in training and in evaluation mode.

    Args:
        backend: the backend.
        name: one of ``LAYERS``.
        spec: neuron of the layer.
        device: device to compute on.

    Yields:
        A finding for each property.

    Raises:
        UnsupportedNeuronError: the backend cannot build the neuron.
    """
    kind = _KINDS[name]
    layer = _built(backend, kind, spec, device)
    values = _input(kind, device)
    yield from _in_training(layer, kind, spec, values)
    with torch.no_grad():
        layer.eval()
        currents = _currents(layer, kind, spec, values)
        yield _spikes("in evaluation mode", spec, layer(values), currents)


def sequence_finding(backend: SpikingBackend, spec: NeuronSpec, device: torch.device) -> Finding:
    """Compare the last layer of a sequence with its equations, from the spikes of the first.

    Args:
        backend: the backend.
        spec: neuron of the layers.
        device: device to compute on.
    """
    layers = OrderedDict[str, nn.Module](
        first=_built(backend, _KINDS["direct_coding"], spec, device),
        second=_built(backend, _KINDS["downsampling"], spec, device),
    )
    sequence = backend.sequence(layers).to(device).eval()
    values = _input(_KINDS["direct_coding"], device)
    second = sequence.get_submodule("second")
    assert isinstance(second, SpikingLayer)
    with torch.no_grad():
        spikes = sequence.get_submodule("first")(values)
        currents = _currents(second, _KINDS["downsampling"], spec, spikes)
        return _spikes("in a sequence", spec, sequence(values), currents)


def readout_finding(backend: SpikingBackend, device: torch.device) -> Finding:
    """Compare the last layer with ``tanh(sum_t 0.8^(T - t) * (W * s_t + b))``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        readout = backend.readout(INPUTS, 3).to(device)
    spikes = _input(_KINDS["downsampling"], device)
    weight, bias = (_double(readout.synapse, name) for name in ("weight", "bias"))
    total = torch.zeros(IMAGES, 3, SIDE, SIDE, dtype=torch.float64, device=device)
    for spike in spikes.double():
        total = READOUT_DECAY * total + F.conv_transpose2d(spike, weight, bias, padding=1)
    with torch.no_grad():
        images = readout.eval()(spikes)
    error = (images.double() - total.tanh()).abs().max().item()
    if not error <= CURRENT_ERROR:
        return Finding(ANOTHER_NEURON, f"the images differ from the equations by up to {error:.2g}")
    plain = PlainBackend().readout(INPUTS, 3).to(device)
    plain.load_state_dict(readout.state_dict())
    with torch.no_grad():
        same = torch.equal(plain(spikes), images)
    return Finding(EXACT) if same else Finding(WITHIN_ROUNDING, "images differ in their last bits")


def _in_training(
    layer: SpikingLayer, kind: _Kind, spec: NeuronSpec, values: Tensor
) -> Iterator[Finding]:
    layer.train()
    currents = _currents(layer, kind, spec, values)
    with torch.no_grad():
        finding = _spikes("in training", spec, layer(values), currents)
    yield finding
    if finding.verdict == ANOTHER_NEURON:
        return
    yield _statistics(layer, kind, values)
    yield _gradients(layer, kind, spec, values)


def _gradients(layer: SpikingLayer, kind: _Kind, spec: NeuronSpec, values: Tensor) -> Finding:
    """Compare the gradients of the weights, but for neurons near a jump of the surrogate."""
    parameters = _parameters(layer)
    spikes = layer(values)
    doubles = {name: p.detach().double().requires_grad_() for name, p in parameters.items()}
    currents = _currents(layer, kind, spec, values, parameters=doubles)
    forward = lif_forward(spec, currents.detach(), None, spikes.detach())
    tolerance = CURRENT_ERROR * potential_bound(spec, currents)
    near = from_window_edge(spec, forward.potentials) <= tolerance
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(spikes.shape, generator=generator).to(spikes.device) * ~near.any(0)
    found = torch.autograd.grad((spikes * weights).sum(), [*parameters.values()])
    grad_currents, _ = lif_backward(
        spec, forward.potentials, spikes.detach(), weights, torch.zeros_like(forward.membrane)
    )
    expected = torch.autograd.grad(currents, [*doubles.values()], grad_currents)
    for name, one, other in zip(parameters, found, expected, strict=True):
        error = ((one.double() - other).abs().max() / other.abs().max()).item()
        if not error <= 4 * GRADIENT_TOLERANCE:
            return Finding(
                ANOTHER_NEURON,
                f"in training: the gradient of {name} differs from the equations by up to "
                f"{error:.2g} of the largest",
            )
    plain = _plain_gradients(layer, kind, spec, values, weights=weights)
    if all(torch.equal(one, other) for one, other in zip(found, plain, strict=True)):
        return Finding(EXACT)
    return Finding(WITHIN_ROUNDING, "gradients of weights differ in their last bits")


def _plain_gradients(
    layer: SpikingLayer, kind: _Kind, spec: NeuronSpec, values: Tensor, *, weights: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients that a plain layer with the same weights has in the same precision."""
    plain = _built(PlainBackend(), kind, spec, values.device)
    plain.load_state_dict(layer.state_dict())
    total = (plain.train()(values) * weights).sum()
    return torch.autograd.grad(total, [*_parameters(plain).values()])


def _parameters(layer: SpikingLayer) -> dict[str, Tensor]:
    """Return the parameters that have a gradient: tdBN takes the bias of the synapses away."""
    names = ("synapse.weight", "norm.weight", "norm.bias")
    return {name: layer.get_parameter(name) for name in names}


def _statistics(layer: SpikingLayer, kind: _Kind, values: Tensor) -> Finding:
    """Compare the running statistics of tdBN after one more pass in training."""
    weight, bias = (_double(layer.synapse, name) for name in ("weight", "bias"))
    synapse = _synapse(kind, values, weight, bias).movedim(2, 0).flatten(1)
    before = {name: _double(layer.norm, name) for name in ("running_mean", "running_var")}
    count = synapse.shape[1] * kind.repeats
    unbiased = synapse.var(1, correction=0) * count / (count - 1)
    batch = {"running_mean": synapse.mean(1), "running_var": unbiased}
    with torch.no_grad():
        layer(values)
    for name, old in before.items():
        expected = (1 - NORM_MOMENTUM) * old + NORM_MOMENTUM * batch[name]
        error = (_double(layer.norm, name) - expected).abs().max().item()
        if not error <= CURRENT_ERROR * expected.abs().max().item() + 1e-6:
            return Finding(
                ANOTHER_NEURON, f"{name} of tdBN differs from its equation by up to {error:.2g}"
            )
    return Finding(EXACT)


def _spikes(when: str, spec: NeuronSpec, spikes: Tensor, currents: Tensor) -> Finding:
    currents = currents.detach()
    tolerance = CURRENT_ERROR * potential_bound(spec, currents)
    finding = spike_deviation(spec, spikes.detach(), currents, None, tolerance=tolerance)
    return replace(finding, message=finding.message and f"{when}: {finding.message}")


def _built(
    backend: SpikingBackend, kind: _Kind, spec: NeuronSpec, device: torch.device
) -> SpikingLayer:
    """Build a layer whose neurons fire now and then, whatever its initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = kind.build(backend, spec).to(device)
    with torch.no_grad():
        layer.norm.weight.fill_(1.5)
        layer.norm.bias.fill_(0.5 * spec.threshold)
    return layer


def _input(kind: _Kind, device: torch.device) -> Tensor:
    """Return a spike train ``(T, N, ...)``, or images ``(N, C, H, W)`` for direct coding."""
    generator = torch.Generator().manual_seed(1)
    if kind.repeats > 1:
        return (
            torch.rand(IMAGES, *kind.inputs, generator=generator, dtype=torch.float32) * 2 - 1
        ).to(device)
    train = torch.rand(TIME_STEPS, IMAGES, *kind.inputs, generator=generator) < 0.3
    return train.float().to(device)


def _synapse(kind: _Kind, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the output of the synapses ``(T, N, ...)``, float64; T = 1 for direct coding."""
    steps = values[None] if kind.repeats > 1 else values
    return torch.stack([kind.synapse(step.double(), weight, bias) for step in steps])


def _currents(
    layer: SpikingLayer,
    kind: _Kind,
    spec: NeuronSpec,
    values: Tensor,
    *,
    parameters: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return the normalised currents ``(T, N, ...)`` of a layer, float64.

    Args:
        layer: the layer; it is not called, and in training its statistics are not used.
        kind: kind of the layer.
        spec: neuron of the layer, whose threshold scales tdBN.
        values: input of the layer.
        parameters: ``synapse.weight``, ``norm.weight`` and ``norm.bias`` in float64, with
            gradients; None for the layer's own.
    """
    known = parameters or {}
    weight = known.get("synapse.weight", _double(layer.synapse, "weight"))
    gamma = known.get("norm.weight", _double(layer.norm, "weight"))
    beta = known.get("norm.bias", _double(layer.norm, "bias"))
    currents = _synapse(kind, values, weight, _double(layer.synapse, "bias"))
    channels = [1, 1, -1, *[1] * (currents.ndim - 3)]
    if layer.training:
        axes = [axis for axis in range(currents.ndim) if axis != 2]
        mean, variance = currents.mean(axes), currents.var(axes, correction=0)
    else:
        mean, variance = (_double(layer.norm, f"running_{name}") for name in ("mean", "var"))
    deviation = (variance + NORM_EPSILON).sqrt()
    normal = (currents - mean.view(channels)) / deviation.view(channels)
    scaled = spec.threshold * normal * gamma.view(channels) + beta.view(channels)
    return scaled.expand(len(scaled) * kind.repeats, *scaled.shape[1:])


def _double(module: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer ``(...)`` in float64, without gradients."""
    tensor: Tensor = getattr(module, name)
    return tensor.detach().double()
