"""Fully connected spiking layers on the CPU: one kernel per layer where no gradient flows.

A time step of such a layer is so little work that PyTorch's own overhead would dominate it.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from baselines.fused.cpu import linear_kernels, lookup
from baselines.fused.cpu.aligned_memory import padded
from baselines.fused.cpu.lazy_tensors import bytes_of
from baselines.fused.cpu.lif_constants import LIFConstants
from baselines.fused.cpu.linear_kernels import BatchStatistics, LinearWeights
from baselines.fused.cpu.lookup_kernels import Affine, Membranes
from baselines.fused.cpu.packed_spikes import PackedSpikes
from baselines.fused.cpu.simd import LANES
from baselines.fused.neuron import track
from bench.backend import NORM_EPSILON, NeuronState


class LinearSequence(nn.Sequential):
    """Fully connected spiking layers of :class:`~baselines.fused.neuron.FusedNeuron` neurons.

    Where no gradient flows, layers pass packed spikes on to each other. This path is disabled while
    any submodule has a forward hook, because hooks must see the call. Spikes are the same on both
    paths, except that in training mode statistics are summed in another order.
    """

    def __init__(self, layers: OrderedDict[str, nn.Module]) -> None:
        super().__init__(layers)
        self._prepared: tuple[NeuronState, _PreparedLayers] | None = None

    def forward(self, spikes: Tensor) -> Tensor:
        """Return spikes ``(T, N, C')`` for spikes ``(T, N, C)``."""
        single = self.training and spikes[..., 0].numel() == 1
        if single or torch.is_grad_enabled() or spikes.device.type != "cpu":
            output: Tensor = super().forward(spikes)
            return output
        prepared = self._prepare()
        uint8 = bytes_of(spikes)
        return super().forward(uint8) if prepared.hooked else prepared.lif_forward(uint8)

    def _prepare(self) -> "_PreparedLayers":
        """Return the parameters as the kernels take them; prepared once per stateful sequence."""
        first: Any = self[0]
        state: NeuronState | None = first.neuron.state
        if state is None:
            return _PreparedLayers(self)
        if self._prepared is None or self._prepared[0] is not state:
            self._prepared = state, _PreparedLayers(self)
        return self._prepared[1]


class _PreparedLayers:
    """The layers while their parameters do not change."""

    def __init__(self, sequence: LinearSequence) -> None:
        self._modules = list(sequence.modules())
        self._layers = [_PreparedLayer(layer) for layer in sequence]

    @property
    def hooked(self) -> bool:
        """True if any module has a forward hook."""
        return bool(hooks._has_any_global_hook()) or any(
            module._forward_hooks or module._forward_pre_hooks for module in self._modules
        )

    def lif_forward(self, spikes: Tensor) -> Tensor:
        """Return uint8 spikes ``(T, N, C')`` for uint8 spikes ``(T, N, C)``."""
        packed = PackedSpikes.pack(spikes[:, :, None])
        for layer in self._layers:
            packed = layer.lif_forward(packed)
        return packed.unpacked[:, :, 0]


class _PreparedLayer:
    """A layer's parameters as its kernel takes them."""

    def __init__(self, layer: Any) -> None:
        self._neuron, self._norm = layer.neuron, layer.norm
        rounded = torch.is_autocast_enabled("cpu")
        weight, bias = (
            lookup.values(each, rounded) for each in (layer.synapse.weight, layer.synapse.bias)
        )
        if self._norm.training:
            affine = self._norm.weight * self._norm.scale, self._norm.bias
        else:
            affine = self._neuron.known_norm(self._norm).affine
        scale, shift = (padded(each.detach(), LANES).numpy() for each in affine)
        self._outputs, self._dtype = len(weight), weight.dtype
        self._parameters = _linear_weights(
            weight, bias, reused=self._neuron.state is not None, rounded=rounded
        )
        self._affine = Affine(scale, shift)
        self._constants = LIFConstants.of(self._neuron.spec).scalars(scale)
        self._statistics = weight.new_empty((2, len(scale)))
        means, variances = self._statistics.numpy()
        self._kernel_statistics = BatchStatistics(
            means, variances, scale.dtype.type(NORM_EPSILON), self._norm.training
        )

    def lif_forward(self, spikes: PackedSpikes) -> PackedSpikes:
        """Return the layer's spikes; updates carried state and running statistics."""
        state: NeuronState | None = self._neuron.state
        steps, images = spikes.packed.steps, spikes.packed.images
        size = torch.Size((images, self._outputs))
        initial = None if state is None else state.membrane_for(size)
        membrane = torch.empty(size, dtype=self._dtype) if initial is None else initial
        membrane = padded(membrane, LANES)
        row = membrane.view(-1).numpy()
        fired = PackedSpikes.empty(steps, images, 1, self._outputs)
        linear_kernels.lif_forward(
            spikes.packed,
            self._parameters,
            self._affine,
            self._kernel_statistics,
            self._constants,
            membranes=Membranes(row, row, initial is None),
            fired=fired.packed,
        )
        if state is not None:
            state.membrane = membrane[:, : self._outputs]
        if self._norm.training:
            mean, variance = self._statistics[:, : self._outputs]
            track(self._norm, mean, variance, steps * images)
        return fired


def _linear_weights(weight: Tensor, bias: Tensor, reused: bool, rounded: bool) -> LinearWeights:
    """Return the parameters of a layer as its kernel takes them.

    Args:
        weight: weights ``(O, C)``.
        bias: bias ``(O,)``.
        reused: True to lay the weights out in the order in which they are read. That takes a tenth
            off the time of a step, and pays after a few steps.
        rounded: True to round the currents to bfloat16.
    """
    weights, biases = padded(weight.mT, LANES, LANES), padded(bias, LANES).numpy()
    if not reused:
        return LinearWeights(weights.view(-1).numpy(), biases, LANES, len(biases), rounded)
    by_block = weights.unflatten(1, (-1, LANES)).transpose(0, 1).contiguous()
    return LinearWeights(by_block.view(-1).numpy(), biases, by_block[0].numel(), LANES, rounded)
