"""The contract of a spiking backend, and the layers that every backend gets in plain PyTorch.

A backend builds layers of spiking networks from a :class:`NeuronSpec`. Only
:meth:`SpikingBackend.neuron` must be written; the layers around the neuron have plain PyTorch
defaults, which a fast backend replaces. Spike trains have time first: ``(T, N, ...)``.
"""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import SkippedError
from bench.protocol import ArctangentSurrogate, Protocol

NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1
READOUT_DECAY = 0.8


class UnsupportedNeuronError(SkippedError):
    """Raised by a backend that cannot build a neuron; its message is the reason.

    The cell is skipped with that reason.
    """


@dataclass(frozen=True)
class Rectangle:
    """Surrogate gradient ``(1 / width) * [|u - centre| < width / 2]``.

    Attributes:
        centre: membrane potential at the centre of the window.
        width: width of the window; one over its height.
    """

    centre: float
    width: float

    def gradient(self, excess: Tensor, threshold: float) -> Tensor:
        """Return the gradient ``(...)`` for ``excess = u - threshold``, ``(...)``."""
        inside = (excess - (self.centre - threshold)).abs() < self.width / 2
        return inside.to(excess.dtype) / self.width


@dataclass(frozen=True)
class Triangle:
    """Surrogate gradient ``(1 / width) * max(0, 1 - |u - threshold| / width)``.

    Attributes:
        width: distance from the threshold at which the gradient reaches 0.
    """

    width: float = 1.0

    def gradient(self, excess: Tensor, threshold: float) -> Tensor:
        """Return the gradient ``(...)`` for ``excess = u - threshold``, ``(...)``."""
        return (1 - excess.abs() / self.width).clamp(min=0) / self.width


@dataclass(frozen=True)
class Arctangent:
    """Surrogate gradient ``(alpha / 2) / (1 + (pi / 2 * alpha * (u - threshold))^2)``.

    Source: Fang et al., ICCV 2021, arXiv:2007.05785.

    Attributes:
        alpha: steepness; twice the gradient at the threshold.
    """

    alpha: float = 2.0

    def gradient(self, excess: Tensor, threshold: float) -> Tensor:
        """Return the gradient ``(...)`` for ``excess = u - threshold``, ``(...)``."""
        return self.alpha / 2 / (1 + (math.pi / 2 * self.alpha * excess).square())


Surrogate = Rectangle | Triangle | Arctangent


@dataclass(frozen=True)
class NeuronSpec:
    """An integrate-and-fire neuron, with or without leak, and with a hard reset to 0.

    ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + x_t``, ``o_t = [u_t > threshold]``, ``u_0 = 0``
    (arXiv:2110.00375).

    Attributes:
        decay: factor of the membrane potential per time step, in (0, 1]; 1 for no leak.
        threshold: potential above which the neuron fires.
        surrogate: gradient that replaces the derivative of the step function.
        reset_gradient: True if gradients flow through the reset ``1 - o_{t-1}``.
        fires_at_threshold: True if a potential equal to the threshold fires.
    """

    decay: float
    threshold: float
    surrogate: Surrogate
    reset_gradient: bool = True
    fires_at_threshold: bool = False

    def fire(self, potential: Tensor) -> Tensor:
        """Return spikes in {0, 1}, ``(...)``, with a surrogate gradient, for potentials ``(...)``.

        >>> spec = NeuronSpec(0.25, 0.2, Rectangle(0.2, 1.0))
        >>> spec.fire(torch.tensor([0.1, 0.2, 0.3])).tolist()
        [0.0, 0.0, 1.0]
        """
        return self.fire_excess(potential - self.threshold)

    def fire_excess(self, excess: Tensor) -> Tensor:
        """Return :meth:`fire` for ``potential - threshold``, ``(...)``, as libraries pass it."""
        return _Step.apply(excess, self)

    def reset(self, potential: Tensor, spikes: Tensor) -> Tensor:
        """Return the potential ``(...)`` after the reset: 0 where ``spikes`` ``(...)`` is 1."""
        return potential * (1 - (spikes if self.reset_gradient else spikes.detach()))


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, excess: Tensor, spec: NeuronSpec) -> Tensor:
        ctx.save_for_backward(excess)
        ctx.spec = spec
        return (excess >= 0 if spec.fires_at_threshold else excess > 0).to(excess.dtype)

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None]:
        (excess,) = ctx.saved_tensors
        return grad_spikes * ctx.spec.surrogate.gradient(excess, ctx.spec.threshold), None


def protocol_neuron(protocol: Protocol) -> NeuronSpec:
    """Return the neuron that a protocol describes."""
    gradient = protocol.surrogate_gradient
    surrogate = (
        Arctangent(gradient.alpha)
        if isinstance(gradient, ArctangentSurrogate)
        else Rectangle(gradient.centre, gradient.width)
    )
    return NeuronSpec(
        protocol.membrane_decay,
        protocol.threshold,
        surrogate,
        reset_gradient=protocol.reset_gradient,
        fires_at_threshold=protocol.fires_at_threshold,
    )


@dataclass
class NeuronState:
    """State that a neuron carries from call to call inside :func:`stateful`.

    Attributes:
        membrane: potential after the last call ``(N, ...)``; None before the first call.
    """

    membrane: Tensor | None = None

    def membrane_for(self, size: torch.Size) -> Tensor | None:
        """Return the potential ``(N, ...)`` from which neurons of that ``size`` continue.

        Raises:
            ValueError: the carried potential has another shape.
        """
        if self.membrane is not None and self.membrane.shape != size:
            raise ValueError(
                f"neurons of shape {tuple(size)} cannot continue from a state of shape "
                f"{tuple(self.membrane.shape)}: the shape must not change within a sequence"
            )
        return self.membrane


class SpikingNeuron(nn.Module, ABC):
    """A layer of neurons: currents ``(T, N, ...)`` in, spikes ``(T, N, ...)`` out.

    A forward pass starts at rest, except inside :func:`stateful`. Potentials are computed in
    float32 or float64, whatever the precision of the currents.

    Attributes:
        spec: the neuron to compute.
        state: state carried from call to call; None outside :func:`stateful`.
    """

    def __init__(self, spec: NeuronSpec) -> None:
        super().__init__()
        self.spec = spec
        self.state: NeuronState | None = None

    def forward(self, currents: Tensor, repeats: int = 1) -> Tensor:
        """Return spikes in {0, 1}, ``(T, N, ...)``.

        Args:
            currents: input currents ``(T, N, ...)``, or ``(1, N, ...)`` if they are the same at
                every step.
            repeats: number T of equal time steps that currents ``(1, N, ...)`` stand for; 1 for
                currents of T steps. The gradient of the currents is the sum over the steps.

        Raises:
            ValueError: the carried state has another shape, or the currents cannot be repeated.
        """
        check_repeats(currents, repeats)
        membrane = None if self.state is None else self.state.membrane_for(currents.shape[1:])
        with torch.autocast(currents.device.type, enabled=False):
            precise = at_least_float32(currents)
            steps = precise.expand(repeats, *precise.shape[1:]) if repeats > 1 else precise
            spikes, membrane = self.integrate(steps, membrane)
        if self.state is not None:
            self.state.membrane = membrane
        return spikes

    @abstractmethod
    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the spikes ``(T, N, ...)`` and the potential ``(N, ...)`` after the last reset.

        Args:
            currents: input currents ``(T, N, ...)``, float32 or float64.
            membrane: initial potential ``(N, ...)``; None to start at rest.
        """


@contextmanager
def stateful(module: nn.Module) -> Iterator[None]:
    """Let the neurons in ``module`` carry their state from call to call, starting at rest.

    Parameters and buffers must not change inside the context.
    """
    neurons = [layer for layer in module.modules() if isinstance(layer, SpikingNeuron)]
    for neuron in neurons:
        neuron.state = NeuronState()
    try:
        yield
    finally:
        for neuron in neurons:
            neuron.state = None


def check_repeats(currents: Tensor, repeats: int) -> None:
    """Check that currents ``(T, N, ...)`` can stand for ``repeats`` equal time steps.

    Raises:
        ValueError: ``repeats`` is not positive, or it is above 1 and the currents have other than
            one time step.
    """
    if repeats < 1 or (repeats > 1 and len(currents) != 1):
        raise ValueError(
            f"currents of {len(currents)} time steps cannot stand for {repeats} equal ones: pass "
            "the currents of a single step, or repeats = 1"
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor ``(...)`` in float32 if its precision is lower, else unchanged."""
    return tensor.float() if tensor.dtype in {torch.bfloat16, torch.float16} else tensor


class TimeDependentBatchNorm(nn.Module):
    """tdBN: batch norm with statistics over time, batch and space, scaled to the threshold.

    ``scale * (x - mean) / sqrt(var + 1e-5) * gamma + beta`` (Zheng et al., AAAI 2021,
    arXiv:2011.05280).

    Args:
        features: number of channels C.
        scale: factor of the normalised values, ``alpha * threshold`` in the paper.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, input: Tensor, repeats: int = 1) -> Tensor:
        """Normalise currents ``(T * N, C, ...)``; returns the same shape, float32 at least.

        Args:
            input: currents with time folded into the batch, ``(T * N, C, ...)``.
            repeats: number of equal time steps that ``input`` stands for. It changes the unbiased
                variance that is tracked, not the mean or the biased variance.
        """
        input = at_least_float32(input)
        n = input.numel() // input.shape[1]
        if self.training and n * repeats == 1:
            # A single value is its own mean; PyTorch refuses it, as it has no unbiased variance.
            return self.bias.expand_as(input)
        kept = (1 - NORM_MOMENTUM) * self.running_var
        output = F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight * self.scale,
            self.bias,
            self.training,
            NORM_MOMENTUM,
            NORM_EPSILON,
        )
        if self.training and repeats > 1:
            correction = (n - 1) / n * (n * repeats) / (n * repeats - 1)
            # In place and past autograd, which would take it for a change of an input.
            self.running_var.data.copy_(kept + (self.running_var - kept) * correction)
        return output


class SpikingLayer(nn.Module):
    """Synapses, tdBN and neurons: spikes ``(T, N, ...)`` in, spikes ``(T, N, ...)`` out."""

    def __init__(
        self, synapse: nn.Module, norm: TimeDependentBatchNorm, neuron: SpikingNeuron
    ) -> None:
        super().__init__()
        self.synapse = synapse
        self.norm = norm
        self.neuron = neuron

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the layer's spikes ``(T, N, ...)`` for input spikes ``(T, N, ...)``."""
        currents = self.norm(self.synapse(spikes.flatten(0, 1)))
        return self.neuron(currents.unflatten(0, spikes.shape[:2]))


class DirectCodingLayer(SpikingLayer):
    """The first layer: images ``(N, C, H, W)`` are its input at each of ``time_steps`` steps.

    Its currents are the same at every time step, so synapses and norm run once.
    """

    def __init__(
        self,
        synapse: nn.Module,
        norm: TimeDependentBatchNorm,
        neuron: SpikingNeuron,
        time_steps: int,
    ) -> None:
        super().__init__(synapse, norm, neuron)
        self.time_steps = time_steps

    def forward(self, images: Tensor) -> Tensor:
        """Return spikes ``(T, N, C', H', W')`` for images ``(N, C, H, W)``."""
        currents = self.norm(self.synapse(images), self.time_steps)
        return self.neuron(currents[None], self.time_steps)


class MembraneReadout(nn.Module):
    """``tanh(sum_t 0.8^(T - t) * (W * s_t + b))``: last potential of a leaky integrator.

    The sum is linear in the synapses, so they run once, on the weighted sum of their inputs
    (arXiv:2110.00375).
    """

    def __init__(self, synapse: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.synapse = synapse

    def forward(self, spikes: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in [-1, 1] for spikes ``(T, N, C', H, W)``."""
        weights = readout_weights(len(spikes)).tolist()
        return self._image(self.weighted_sum(spikes, weights), weights)

    def weighted_sum(self, spikes: Tensor, weights: list[float]) -> Tensor:
        """Return ``sum_t w_t * s_t``, ``(N, ...)``, for spikes ``(T, N, ...)`` and T weights."""
        total = torch.zeros_like(spikes[0], dtype=self.synapse.weight.dtype)
        for weight, spike in zip(weights, spikes, strict=True):
            total = total.add(spike, alpha=weight)
        return total

    def prefixes(self, spikes: Tensor) -> Iterator[Tensor]:
        """Yield the images ``(N, C, H, W)`` of the first t = 1..T steps of ``(T, N, C', H, W)``."""
        total = torch.zeros_like(spikes[0], dtype=self.synapse.weight.dtype)
        for t, spike in enumerate(spikes, start=1):
            total = READOUT_DECAY * total + spike
            yield self._image(total, readout_weights(t).tolist())

    def _image(self, total: Tensor, weights: list[float]) -> Tensor:
        potential = self.synapse(total).to(total)
        assert self.synapse.bias is not None
        extra_bias = (sum(weights) - 1) * self.synapse.bias
        return torch.tanh(potential + extra_bias[:, None, None])


def readout_weights(time_steps: int) -> Tensor:
    """Return ``0.8^(T - t)`` for t = 1..T, shape ``(T,)``, float64.

    >>> readout_weights(3).tolist()
    [0.6400000000000001, 0.8, 1.0]
    """
    exponents = torch.arange(time_steps - 1, -1, -1, dtype=torch.float64)
    return READOUT_DECAY**exponents


class SpikingBackend(ABC):
    """Builds the layers of spiking networks.

    Layers take and return spike trains in {0, 1}, of any numeric dtype: convert them before
    arithmetic. A layer's modules are named ``synapse``, ``norm`` and ``neuron``, and ``synapse``
    draws its initial weights as PyTorch's layer of the same kind does.

    Attributes:
        differentiable_twice: True if gradients of the layers can be differentiated again, as a
            gradient penalty needs.
    """

    differentiable_twice: ClassVar[bool] = True

    @abstractmethod
    def neuron(self, spec: NeuronSpec) -> SpikingNeuron:
        """Return a layer of neurons.

        Raises:
            UnsupportedNeuronError: the backend cannot compute this neuron; says why.
        """

    def fastest(self, layer: nn.Module) -> nn.Module:
        """Return the backend's fastest form of a layer in plain PyTorch.

        The result has the same parameters under the same names, and computes the same.

        Args:
            layer: layer of a model, with neurons of this backend or between its layers; returned
                as it is if the backend has no faster form.
        """
        return layer

    def implementation(self, device: torch.device) -> str:
        """Return the name and version of the code that computes the neuron on ``device``.

        Raises:
            RuntimeError: the backend cannot run on this device.
        """
        return f"{type(self).__name__}, PyTorch {torch.__version__}"

    def linear(
        self, inputs: int, outputs: int, spec: NeuronSpec, alpha: float = 1.0
    ) -> SpikingLayer:
        """Return a fully connected layer: ``(T, N, inputs)`` to ``(T, N, outputs)``.

        Args:
            inputs: number of input features.
            outputs: number of output features.
            spec: the layer's neuron.
            alpha: scale of tdBN in units of the threshold.
        """
        return self.layer(nn.Linear(inputs, outputs), outputs, spec, alpha)

    def downsampling(self, inputs: int, outputs: int, spec: NeuronSpec) -> SpikingLayer:
        """Return a convolution: ``(T, N, inputs, H, W)`` to ``(T, N, outputs, H / 2, W / 2)``.

        Args:
            inputs: number of input channels.
            outputs: number of output channels.
            spec: the layer's neuron.
        """
        return self.layer(downsampling(inputs, outputs), outputs, spec)

    def upsampling(self, inputs: int, outputs: int, spec: NeuronSpec) -> SpikingLayer:
        """Return a transposed convolution: ``(T, N, inputs, H, W)`` to ``(.., outputs, 2H, 2W)``.

        Args:
            inputs: number of input channels.
            outputs: number of output channels.
            spec: the layer's neuron.
        """
        return self.layer(upsampling(inputs, outputs), outputs, spec)

    def direct_coding(
        self, inputs: int, outputs: int, spec: NeuronSpec, time_steps: int
    ) -> DirectCodingLayer:
        """Return the first layer: images ``(N, inputs, H, W)`` to ``(T, N, outputs, H/2, W/2)``.

        Args:
            inputs: number of image channels.
            outputs: number of output channels.
            spec: the layer's neuron.
            time_steps: T, the number of steps at which the image is the input.
        """
        norm = TimeDependentBatchNorm(outputs, spec.threshold)
        synapse = downsampling(inputs, outputs)
        return DirectCodingLayer(synapse, norm, self.neuron(spec), time_steps)

    def readout(self, inputs: int, channels: int) -> MembraneReadout:
        """Return the last layer: spikes ``(T, N, inputs, H, W)`` to images ``(N, channels, H, W)``.

        Args:
            inputs: number of input channels.
            channels: number of image channels.
        """
        return MembraneReadout(to_image(inputs, channels))

    def sequence(self, layers: OrderedDict[str, nn.Module]) -> nn.Sequential:
        """Return layers of this backend as one module that runs them in order."""
        return nn.Sequential(layers)

    def weighted_sums(self, spikes: Tensor, weights: Tensor) -> Tensor:
        """Return ``sum_t w[t, n, g] * s[t, n]``, ``(N, G, ...)``, with gradients.

        Args:
            spikes: output s of this backend's layers, ``(T, N, ...)``.
            weights: weights w ``(T, N, G)``, float32 or float64.
        """
        return torch.einsum("tn...,tng->ng...", spikes.to(weights.dtype), weights)

    def inner_products(self, spikes: Tensor, maps: Tensor) -> Tensor:
        """Return ``<s[t, n], m[g]>``, ``(T, N, G)``, with gradients.

        Args:
            spikes: output s of this backend's layers, ``(T, N, ...)``.
            maps: maps m ``(G, ...)``, float32 or float64.
        """
        return torch.einsum("tn...,g...->tng", spikes.to(maps.dtype), maps)

    def layer(
        self, synapse: nn.Module, outputs: int, spec: NeuronSpec, alpha: float = 1.0
    ) -> SpikingLayer:
        """Return a layer of given synapses, with tdBN and neurons.

        Args:
            synapse: module from ``(R, inputs, ...)`` to ``(R, outputs, ...)``, R any batch size.
            outputs: number of output features or channels.
            spec: the layer's neuron.
            alpha: scale of tdBN in units of the threshold.
        """
        norm = TimeDependentBatchNorm(outputs, alpha * spec.threshold)
        return SpikingLayer(synapse, norm, self.neuron(spec))


def downsampling(inputs: int, outputs: int) -> nn.Conv2d:
    """Return the papers' convolution: ``(N, inputs, H, W)`` to ``(N, outputs, H / 2, W / 2)``."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=2, padding=1)


def upsampling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Return its transpose: ``(N, inputs, H, W)`` to ``(N, outputs, 2 * H, 2 * W)``."""
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1)


def to_image(inputs: int, channels: int) -> nn.ConvTranspose2d:
    """Return the last transposed convolution, which keeps height and width.

    ``(N, inputs, H, W)`` to ``(N, channels, H, W)``.
    """
    return nn.ConvTranspose2d(inputs, channels, kernel_size=3, padding=1)
