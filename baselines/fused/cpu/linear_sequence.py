"""Fully connected spiking layers on the CPU, one kernel per layer, for runs without gradients.

A step of such a layer is so short that PyTorch's overhead takes longer than the computation.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from baselines.fused.cpu import linear_kernels
from baselines.fused.cpu.aligned_memory import padded
from baselines.fused.cpu.packed_spikes import Words
from baselines.fused.cpu.simd import LANES
from baselines.fused.lazy_tensors import bytes_of
from baselines.fused.neuron import track
from bench.backend import NORM_EPSILON, NeuronState


class LinearSequence(nn.Sequential):
    """Fully connected spiking layers of :class:`~baselines.fused.neuron.FusedNeuron` neurons.

    Where no gradient flows, layers pass packed spikes to each other without calling their modules.
    If a hook is registered at one of the modules, all modules are called instead. The spikes are
    equal except that batch statistics in training mode are summed in another order.
    """

    def __init__(self, layers: OrderedDict[str, nn.Module]) -> None:
        super().__init__(layers)
        self._prepared: tuple[NeuronState, _Sequence] | None = None

    def forward(self, spikes: Tensor) -> Tensor:
        """Return spikes ``(T, N, C')`` for spikes ``(T, N, C)``."""
        alone = self.training and spikes[..., 0].numel() == 1
        if alone or torch.is_grad_enabled() or spikes.device.type != "cpu":
            through_all: Tensor = super().forward(spikes)
            return through_all
        sequence = self._sequence()
        fired = bytes_of(spikes)
        return super().forward(fired) if sequence.watched else sequence.fire(fired)

    def _sequence(self) -> "_Sequence":
        """Return the layers' kernel parameters, computed once per stateful sequence."""
        first: Any = self[0]
        state: NeuronState | None = first.neuron.state
        if state is None:
            return _Sequence(self)
        if self._prepared is None or self._prepared[0] is not state:
            self._prepared = state, _Sequence(self)
        return self._prepared[1]


class _Sequence:
    """The layers' kernel parameters, valid while the modules' parameters do not change."""

    def __init__(self, chain: LinearSequence) -> None:
        self._modules = list(chain.modules())
        self._layers = [_Layer(layer) for layer in chain]

    @property
    def watched(self) -> bool:
        """True if a hook observes calls of the modules."""
        return bool(hooks._has_any_global_hook()) or any(
            module._forward_hooks or module._forward_pre_hooks for module in self._modules
        )

    def fire(self, spikes: Tensor) -> Tensor:
        """Return uint8 spikes ``(T, N, C')`` for uint8 spikes ``(T, N, C)``."""
        words = Words.packed(spikes[:, :, None])
        for layer in self._layers:
            words = layer.fire(words)
        return words.unpacked[:, :, 0]


class _Layer:
    """A layer's parameters as its kernel takes them."""

    def __init__(self, layer: Any) -> None:
        self._neuron, self._norm = layer.neuron, layer.norm
        weight, bias = layer.synapse.weight.detach(), layer.synapse.bias.detach()
        if self._norm.training:
            affine = self._norm.weight * self._norm.scale, self._norm.bias
        else:
            affine = self._neuron.known_norm(self._norm).affine
        bias, scale, shift = (padded(each.detach(), LANES).numpy() for each in (bias, *affine))
        weights = padded(weight.mT, LANES, LANES)
        strides = LANES, len(bias)
        if self._neuron.state is not None:
            # Reading contiguous blocks takes a tenth less time, which pays after a few steps.
            weights = weights.unflatten(1, (-1, LANES)).transpose(0, 1).contiguous()
            strides = weights[0].numel(), LANES
        number = bias.dtype.type
        self._parameters = (
            weights.view(-1).numpy(),
            *strides,
            bias,
            scale,
            shift,
            number(self._neuron.spec.decay),
            number(self._neuron.spec.threshold),
            number(NORM_EPSILON),
        )
        self._outputs, self._dtype = len(weight), weight.dtype
        self._statistics = weight.new_empty((2, len(bias)))
        self._written = [each.numpy() for each in self._statistics]

    def fire(self, words: Words) -> Words:
        """Compute packed spikes, carry state over, and track batch statistics in training mode."""
        state: NeuronState | None = self._neuron.state
        size = torch.Size((words.images, self._outputs))
        started = None if state is None else state.membrane_for(size)
        membrane = torch.empty(size, dtype=self._dtype) if started is None else started
        membrane = padded(membrane, LANES)
        fired = Words.empty(words.steps, words.images, 1, self._outputs)
        linear_kernels.fire(
            words.array,
            *words.layout[1:],
            words.steps,
            *self._parameters,
            self._norm.training,
            torch.is_autocast_enabled("cpu"),
            started is None,
            membrane.view(-1).numpy(),
            fired.array,
            *fired.layout[1:],
            *self._written,
        )
        if state is not None:
            state.membrane = membrane[:, : self._outputs]
        if self._norm.training:
            mean, variance = self._statistics[:, : self._outputs]
            track(self._norm, mean, variance, words.steps * words.images)
        return fired
