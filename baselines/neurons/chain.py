"""Fully connected spiking layers that are run step by step on the CPU, a kernel for each.

A step of such a layer is so little work that what PyTorch does around it takes longer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from baselines.neurons import linear_kernels
from baselines.neurons.bits import Words
from baselines.neurons.deferred import bytes_of
from baselines.neurons.lanes import LANES
from baselines.neurons.padding import padded
from bench.model import CarriedState


class Chain(nn.Sequential):
    """Fully connected spiking layers of :class:`~baselines.neurons.fused.FusedLIF` neurons.

    Where statistics are known and state is carried, layers hand bits on to each other. Not while a
    hook is registered at one of their modules, which must then see it called: the spikes are the
    same.
    """

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes ``(T, N, C')`` for spikes ``(T, N, C)``."""
        first: Any = self[0]
        carried: CarriedState | None = first.neuron.carried
        learns = self.training or torch.is_grad_enabled()
        if carried is None or learns or spikes.device.type != "cpu":
            through_all: Tensor = super().forward(spikes)
            return through_all
        if "chain" not in carried.kept:
            carried.kept["chain"] = _Sequence(self)
        sequence: _Sequence = carried.kept["chain"]
        fired = bytes_of(spikes)
        return super().forward(fired) if sequence.watched else sequence.fire(fired)


class _Sequence:
    """A chain while its state is carried, and its parameters stay as they are."""

    def __init__(self, chain: Chain) -> None:
        self._modules = list(chain.modules())
        self._layers = [_Layer(layer) for layer in chain]

    @property
    def watched(self) -> bool:
        """Whether anyone sees the modules called."""
        return bool(hooks._has_any_global_hook()) or any(
            module._forward_hooks or module._forward_pre_hooks for module in self._modules
        )

    def fire(self, spikes: Tensor) -> Tensor:
        """Spikes in bytes for spikes in bytes."""
        words = Words.packed(spikes[:, :, None])
        for layer in self._layers:
            words = layer.fire(words)
        return words.unpacked[:, :, 0]


class _Layer:
    """A layer's parameters as its kernel takes them."""

    def __init__(self, layer: Any) -> None:
        self._neuron = layer.neuron
        weight, bias = layer.synapse.weight.detach(), layer.synapse.bias.detach()
        by_block = padded(weight.mT, LANES, LANES).unflatten(1, (-1, LANES)).transpose(0, 1)
        affine = self._neuron.known(layer.norm).affine
        bias, scale, shift = (padded(each.detach(), LANES).numpy() for each in (bias, *affine))
        number = bias.dtype.type
        self._parameters = (
            by_block.contiguous().numpy(),
            bias,
            scale,
            shift,
            number(self._neuron.decay),
            number(self._neuron.threshold),
        )
        self._outputs, self._dtype = len(weight), weight.dtype

    def fire(self, words: Words) -> Words:
        """Spikes for spikes; the neurons' membranes go on."""
        carried: CarriedState = self._neuron.carried
        size = torch.Size((words.images, self._outputs))
        started = carried.membrane_of(size)
        membrane = torch.empty(size, dtype=self._dtype) if started is None else started
        membrane = padded(membrane, LANES)
        fired = Words.empty(words.steps, words.images, 1, self._outputs)
        linear_kernels.fire(
            words.array,
            *words.layout[1:],
            *self._parameters,
            torch.is_autocast_enabled("cpu"),
            words.steps,
            started is None,
            membrane.view(-1).numpy(),
            fired.array,
            *fired.layout[1:],
        )
        carried.membrane = membrane[:, : self._outputs]
        return fired
