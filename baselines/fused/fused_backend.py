"""The fast backend: Numba kernels on a CPU, Triton kernels on CUDA."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from baselines.fused.cpu import spike_products
from baselines.fused.cpu.lazy_tensors import ByteSpikes
from baselines.fused.layers import FusedDirectCodingLayer, FusedLayer, FusedReadout
from baselines.fused.linear_sequence import LinearSequence
from baselines.fused.neuron import FusedNeuron
from baselines.fused.per_step import fastest
from baselines.fused.synapses import Downsampling, SpikeLinear, Upsampling
from bench.backend import (
    MembraneReadout,
    NeuronSpec,
    SpikingBackend,
    SpikingLayer,
    TimeDependentBatchNorm,
    to_image,
)


class FusedBackend(SpikingBackend):
    """Layers whose synapses, tdBN and neurons share kernels; weights have the channels last."""

    differentiable_twice = False

    def neuron(self, spec: NeuronSpec) -> FusedNeuron:
        """Return a neuron on its own, which takes and returns float spikes.

        Raises:
            UnsupportedNeuronError: see :class:`~baselines.fused.neuron.FusedNeuron`.
        """
        return FusedNeuron(spec)

    def fastest(self, layer: nn.Module) -> nn.Module:
        """Return a layer of the spiking GANs in a faster form; see the base class."""
        return fastest(layer)

    def implementation(self, device: torch.device) -> str:
        """Return the compiler of the kernels and its version.

        Raises:
            RuntimeError: there are no kernels for the device, or no compiler for them.
        """
        if device.type == "cuda":
            return f"Triton {_triton_version()}, one kernel over all time steps"
        if device.type != "cpu":
            raise RuntimeError(f"the fused neurons run on cpu and cuda, not on {device.type}")
        import numba

        return f"Numba {numba.__version__}, one kernel over all time steps, tdBN included"

    def linear(
        self, inputs: int, outputs: int, spec: NeuronSpec, alpha: float = 1.0
    ) -> SpikingLayer:
        """Return a fully connected layer; see the base class."""
        synapse = SpikeLinear(inputs, outputs)
        synapse.weight.data = synapse.weight.data.mT.contiguous().mT
        return self.layer(synapse, outputs, spec, alpha)

    def downsampling(self, inputs: int, outputs: int, spec: NeuronSpec) -> SpikingLayer:
        """Return a convolution; see the base class."""
        synapse = _channels_last(Downsampling(inputs, outputs, spiking_input=True, normalised=True))
        return self.layer(synapse, outputs, spec)

    def upsampling(self, inputs: int, outputs: int, spec: NeuronSpec) -> SpikingLayer:
        """Return a transposed convolution; see the base class."""
        synapse = _channels_last(Upsampling(inputs, outputs, spiking_input=True, normalised=True))
        return self.layer(synapse, outputs, spec)

    def direct_coding(
        self, inputs: int, outputs: int, spec: NeuronSpec, time_steps: int
    ) -> FusedDirectCodingLayer:
        """Return the first layer; see the base class."""
        norm = TimeDependentBatchNorm(outputs, spec.threshold)
        neuron = FusedNeuron(spec, in_bytes=True)
        synapse = _channels_last(Downsampling(inputs, outputs, normalised=True))
        return FusedDirectCodingLayer(synapse, norm, neuron, time_steps)

    def readout(self, inputs: int, channels: int) -> MembraneReadout:
        """Return the last layer; see the base class."""
        return FusedReadout(to_image(inputs, channels))

    def sequence(self, layers: OrderedDict[str, nn.Module]) -> nn.Sequential:
        """Return the layers as one module; linear ones run in a kernel each without gradients."""
        linear = all(
            isinstance(layer, FusedLayer) and isinstance(layer.synapse, SpikeLinear)
            for layer in layers.values()
        )
        return LinearSequence(layers) if linear else nn.Sequential(layers)

    def weighted_sums(self, spikes: Tensor, weights: Tensor) -> Tensor:
        """Return weighted sums over time; see the base class."""
        if _in_bytes(spikes):
            return spike_products.weighted_sums(spikes, weights)
        return super().weighted_sums(spikes, weights)

    def inner_products(self, spikes: Tensor, maps: Tensor) -> Tensor:
        """Return inner products with maps; see the base class."""
        if _in_bytes(spikes):
            return spike_products.inner_products(spikes, maps)
        return super().inner_products(spikes, maps)

    def layer(
        self, synapse: nn.Module, outputs: int, spec: NeuronSpec, alpha: float = 1.0
    ) -> SpikingLayer:
        """Return a layer of given synapses; see the base class."""
        norm = TimeDependentBatchNorm(outputs, alpha * spec.threshold)
        return FusedLayer(synapse, norm, FusedNeuron(spec, in_bytes=True))


def _channels_last(synapse: nn.Module) -> nn.Module:
    return synapse.to(memory_format=torch.channels_last)


def _in_bytes(spikes: Tensor) -> bool:
    return isinstance(spikes, ByteSpikes) or spikes.dtype == torch.uint8


def _triton_version() -> str:
    try:
        import triton
    except ImportError as error:
        raise RuntimeError(
            f"the fused neurons need Triton on cuda, which cannot be imported ({error}): choose "
            "another backend, or a platform whose PyTorch comes with Triton, such as Linux"
        ) from error
    version: str = triton.__version__
    return version
