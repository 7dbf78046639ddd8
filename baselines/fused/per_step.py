"""Layers with batch norm per time step, whose neurons normalise in their own kernel."""

from typing import Any

import torch
from torch import Tensor, nn

from baselines.fused.cpu import lif, pooling
from baselines.fused.cpu.lazy_tensors import ByteSpikes, bytes_of, materialised
from baselines.fused.cpu.periodic import PeriodicSpikes, PooledSpikes
from baselines.fused.layers import weighted_sum
from baselines.fused.neuron import FusedNeuron
from baselines.fused.synapses import PlainUpsampling, PooledConvolution, SpikeLinear
from baselines.gan_layers import Integrator, PerStepBatchNorm, PerStepLayer, average
from bench.backend import NORM_EPSILON, NORM_MOMENTUM


def fastest(layer: nn.Module) -> nn.Module:
    """Return a layer in the form that is fastest on a CPU; unchanged if there is no other."""
    if isinstance(layer, Integrator):
        return FusedIntegrator(layer.synapse)
    if not isinstance(layer, PerStepLayer):
        return _fast_synapse(layer)
    neuron = FusedNeuron(layer.neuron.spec, in_bytes=True, periodic=True)
    return FusedPerStepLayer(_fast_synapse(layer.synapse), neuron, layer.norm, layer.pooled)


class FusedPerStepLayer(PerStepLayer):
    """Synapses, and neurons that apply batch norm per time step themselves."""

    def forward(self, inputs: Tensor, repeats: int = 1) -> Tensor:
        """Return spikes ``(repeats * T, N, outputs, ...)``, averaged if pooled; see the base class.

        Args:
            inputs: inputs ``(T, N, inputs, ...)``.
            repeats: number of equal time steps that each of the T stands for.
        """
        if inputs.device.type != "cpu":
            return super().forward(inputs, repeats)
        currents = self.synapse(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
        if self.norm is None:
            spikes = self.neuron(currents, repeats)
        elif currents.numel() == len(currents) * currents.shape[2]:
            # A single value per channel and step.
            spikes = self.neuron(self.norm(currents, repeats), repeats)
        else:
            spikes = self.neuron(
                currents, repeats, norm=_normalisation(self.norm, currents, repeats)
            )
        return _average(spikes) if self.pooled else spikes


class FusedIntegrator(Integrator):
    """The integrator, on spikes of a byte each."""

    def weighted_sum(self, spikes: Tensor, weights: list[float]) -> Tensor:
        """Return ``sum_t w_t * s_t``, ``(N, ...)``, for spikes ``(T, N, ...)`` and T weights."""
        return weighted_sum(spikes, weights, self.synapse.weight.dtype)


def _fast_synapse(synapse: nn.Module) -> nn.Module:
    """Return synapses that take spikes of this backend, with the same weights."""
    with torch.device("meta"):
        fast: nn.Linear | nn.Conv2d | nn.ConvTranspose2d
        match synapse:
            case nn.Linear(bias=nn.Parameter()):
                fast = SpikeLinear(synapse.in_features, synapse.out_features)
                last = synapse.weight.data.mT.contiguous().mT
            case nn.Conv2d(kernel_size=(side, width), padding=(0, 0), stride=(1, 1)) if (
                side == width and _is_plain(synapse)
            ):
                fast = PooledConvolution(synapse.in_channels, synapse.out_channels, side)
                last = synapse.weight.data.contiguous(memory_format=torch.channels_last)
            case nn.ConvTranspose2d(kernel_size=(4, 4), stride=(2, 2), padding=(1, 1)) if (
                synapse.output_padding == (0, 0) and _is_plain(synapse)
            ):
                channels = synapse.in_channels, synapse.out_channels
                fast = PlainUpsampling(*channels, kernel_size=4, stride=2, padding=1)
                last = synapse.weight.data.contiguous(memory_format=torch.channels_last)
            case _:
                return synapse
    synapse.weight.data = last
    fast.weight, fast.bias = synapse.weight, synapse.bias
    return fast


def _is_plain(synapse: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Return True for a convolution with bias, and without dilation or groups."""
    return synapse.bias is not None and synapse.dilation == (1, 1) and synapse.groups == 1


def _normalisation(norm: PerStepBatchNorm, currents: Tensor, repeats: int) -> lif.Normalisation:
    """Return the norm of currents ``(T, N, C, ...)``, and track their statistics in training.

    Args:
        norm: batch norm.
        currents: currents.
        repeats: number of equal time steps that each of the T stands for.
    """
    from_batch = norm.training or norm.batch_statistics
    if from_batch:
        mean, variance = lif.moments(currents, per_step=True)
    else:
        mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        _track(norm, mean, variance, currents[:, :, 0].numel() // len(currents), repeats)
    inverse_deviation = torch.rsqrt(variance + NORM_EPSILON)
    return lif.Normalisation(norm.weight, norm.bias, mean, inverse_deviation, from_batch)


def _track(
    norm: PerStepBatchNorm, mean: Tensor, variance: Tensor, values: int, repeats: int
) -> None:
    """Update the running statistics with the statistics of T time steps, one after the other.

    Args:
        norm: batch norm.
        mean: means ``(T, C)``.
        variance: biased variances ``(T, C)``.
        values: number of values per channel and step, at least 2.
        repeats: number of equal time steps that each of the T stands for.
    """
    steps, kept = len(mean), (1 - NORM_MOMENTUM) ** repeats
    exponents = torch.arange(steps - 1, -1, -1, dtype=mean.dtype)
    weights = (1 - kept) * kept**exponents
    norm.running_mean.mul_(kept**steps).add_(weights @ mean)
    norm.running_var.mul_(kept**steps).add_(weights @ variance, alpha=values / (values - 1))


def _average(spikes: Tensor) -> Tensor:
    """Average spikes ``(T, N, C, H, W)`` over squares of 2x2: ``(T, N, C, H / 2, W / 2)``."""
    height, width = spikes.shape[-2:]
    in_bytes = isinstance(spikes, ByteSpikes) or spikes.dtype == torch.uint8
    return _Average.apply(spikes) if in_bytes and height % 2 == width % 2 == 0 else average(spikes)


class _Average(torch.autograd.Function):
    """Averages over squares, of spikes of a byte each; the gradient is not spread out."""

    @staticmethod
    def forward(ctx: Any, spikes: Tensor) -> Tensor:
        if isinstance(spikes, PeriodicSpikes):
            unrecorded = PeriodicSpikes(spikes.periods, spikes.time_steps, spikes.dtype)
            return PooledSpikes(unrecorded)
        return pooling.average(bytes_of(spikes), torch.get_default_dtype())

    @staticmethod
    def backward(ctx: Any, grad_averages: Tensor) -> Tensor:
        return pooling.PooledGradient(materialised(grad_averages))
