"""Spiking convolutions with ordinary batch norm (arXiv:2308.10187 and its official code).

Statistics are over (T, N, H, W) as in tdBN, without its factor, the threshold.
"""

from torch import nn

from bench.backend import (
    DirectCodingLayer,
    NeuronSpec,
    SpikingBackend,
    SpikingLayer,
    TimeDependentBatchNorm,
)


def spiking_layer(
    synapse: nn.Conv2d | nn.ConvTranspose2d, spec: NeuronSpec, backend: SpikingBackend
) -> nn.Module:
    """Return a layer from spikes ``(T, N, C, H, W)`` to spikes ``(T, N, C', H', W')``.

    Args:
        synapse: convolution from ``(R, C, H, W)`` to ``(R, C', H', W')``, R any batch size.
        spec: neuron of the layer.
        backend: builds the neurons.
    """
    norm = TimeDependentBatchNorm(synapse.out_channels, 1.0)
    return backend.fastest(SpikingLayer(synapse, norm, backend.neuron(spec)))


def repeated_input_layer(
    synapse: nn.Conv2d, spec: NeuronSpec, backend: SpikingBackend, time_steps: int
) -> nn.Module:
    """Return a layer from inputs ``(N, C, H, W)``, equal at each step, to ``(T, N, C', H', W')``.

    Its currents are the same at each time step, so synapses and batch norm run once.

    Args:
        synapse: convolution from ``(R, C, H, W)`` to ``(R, C', H', W')``, R any batch size.
        spec: neuron of the layer.
        backend: builds the neurons.
        time_steps: number of time steps T.
    """
    norm = TimeDependentBatchNorm(synapse.out_channels, 1.0)
    neuron = backend.neuron(spec)
    return backend.fastest(DirectCodingLayer(synapse, norm, neuron, time_steps))


def convolution3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution, ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        stride: 1 to keep height and width, 2 to halve them.
    """
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1)
