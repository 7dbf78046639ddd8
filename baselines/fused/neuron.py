"""The fast neuron: tdBN and the LIF equations over all time steps in one kernel."""

from contextlib import nullcontext

import torch
from torch import Tensor

from baselines.fused.cpu import lif, lookup
from baselines.fused.cpu.lif_constants import LIFConstants
from baselines.fused.cpu.periodic import LONGEST
from bench.backend import (
    NORM_EPSILON,
    NORM_MOMENTUM,
    NeuronSpec,
    NeuronState,
    SpikingNeuron,
    TimeDependentBatchNorm,
    at_least_float32,
    check_repeats,
)

# Axes of the currents of linear layers, (T, N, C).
SMALL_AXES = 3


class FusedNeuron(SpikingNeuron):
    """LIF neurons in one kernel over all time steps, forward and backward.

    The backward pass recomputes the potentials instead of storing them. The kernel includes tdBN;
    on CUDA, PyTorch computes the tdBN of linear layers, which are small.

    Args:
        spec: the neuron to compute.
        in_bytes: True to return uint8 spikes where no gradient flows, and float spikes with a
            uint8 copy elsewhere. The layers of this backend accept both.
        periodic: True to return
            :class:`~baselines.fused.cpu.periodic.PeriodicSpikes` for repeated currents on a CPU.

    Raises:
        UnsupportedNeuronError: the kernels do not compute its surrogate gradient.
    """

    def __init__(self, spec: NeuronSpec, in_bytes: bool = False, periodic: bool = False) -> None:
        super().__init__(spec)
        self._constants = LIFConstants.of(spec)
        self._in_bytes, self._periodic = in_bytes, periodic
        self._known: tuple[NeuronState, lif.Normalisation] | None = None

    def forward(
        self,
        currents: Tensor,
        repeats: int = 1,
        *,
        norm: TimeDependentBatchNorm | lif.Normalisation | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Return spikes ``(T, N, ...)``; see the base class.

        Args:
            currents: input currents ``(T, N, ...)``, or ``(1, N, ...)`` if they are the same at
                every step. The kernel reads currents that are repeated once.
            repeats: number T of equal time steps that currents ``(1, N, ...)`` stand for.
            norm: tdBN to apply to the currents first, or on a CPU any normalisation.
            bias: summand per channel ``(C,)`` that the currents lack; only with a norm, on CUDA.
        """
        check_repeats(currents, repeats)
        membrane = None if self.state is None else self.state.membrane_for(currents.shape[1:])
        device = currents.device.type
        casts = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if casts else nullcontext():
            if norm is None:
                spikes, membrane = self.integrate(at_least_float32(currents), membrane, repeats)
            elif isinstance(norm, lif.Normalisation):
                spikes, membrane = self._lif(currents, membrane, repeats * len(currents), norm)
            else:
                spikes, membrane = self._normalised(currents, norm, repeats, membrane, bias)
        if self.state is not None:
            self.state.membrane = membrane
        return spikes

    def integrate(
        self, currents: Tensor, membrane: Tensor | None, repeats: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Return spikes ``(T, N, ...)`` and the last potential ``(N, ...)``.

        Args:
            currents: input currents ``(T, N, ...)`` or ``(1, N, ...)``, float32 or float64.
            membrane: initial potential ``(N, ...)``; None to start at rest.
            repeats: number T of equal time steps that currents ``(1, N, ...)`` stand for.
        """
        time_steps = repeats * len(currents)
        if currents.device.type == "cuda":
            from baselines.fused import cuda

            return cuda.lif_forward(currents, membrane, self._constants, time_steps=time_steps)
        return self._lif(currents, membrane, time_steps, None)

    def known_norm(self, norm: TimeDependentBatchNorm) -> lif.Normalisation:
        """Return tdBN with its running statistics; computed once per stateful sequence."""
        if self.state is None:
            return normalisation(norm, norm.running_mean, norm.running_var)
        if self._known is None or self._known[0] is not self.state:
            computed = normalisation(norm, norm.running_mean, norm.running_var)
            self._known = self.state, computed
        return self._known[1]

    def _normalised(
        self,
        currents: Tensor,
        norm: TimeDependentBatchNorm,
        repeats: int,
        membrane: Tensor | None,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Normalise and integrate; in one kernel, which on a CPU also evaluates lazy currents."""
        values = repeats * currents.numel() // currents.shape[2]
        one = norm.training and values == 1
        # Of small currents, more kernels would start than PyTorch starts.
        if currents.device.type == "cuda" and currents.dim() > SMALL_AXES and not one:
            return self._on_cuda(at_least_float32(currents), norm, repeats, membrane, bias)
        if currents.device.type != "cpu" or one:
            if bias is not None:
                currents = currents + bias.view(-1, *[1] * (currents.dim() - 3))
            normed = norm(currents.flatten(0, 1), repeats).unflatten(0, currents.shape[:2])
            return self.integrate(normed, membrane, repeats)
        if norm.training:
            applied = _batch_normalisation(norm, currents, values)
        elif torch.is_grad_enabled():
            applied = normalisation(norm, norm.running_mean, norm.running_var)
        else:
            applied = self.known_norm(norm)
            if isinstance(currents, lookup.LazyCurrents) and repeats == 1:
                return currents.lif_forward(membrane, *applied.affine, self._constants)
        return self._lif(currents, membrane, repeats * len(currents), applied)

    def _on_cuda(
        self,
        currents: Tensor,
        norm: TimeDependentBatchNorm,
        repeats: int,
        membrane: Tensor | None,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Normalise and integrate in kernels of Triton; see :meth:`forward`."""
        from baselines.fused import cuda

        # The mean of the currents without the bias: what is subtracted need not be added.
        added = 0 if bias is None else bias.detach()
        if norm.training:
            mean, variance = cuda.moments(currents)
            values = repeats * currents.numel() // currents.shape[2]
            track(norm, mean + added, variance, values)
        else:
            mean, variance = norm.running_mean - added, norm.running_var
        return cuda.lif_forward(
            currents,
            membrane,
            self._constants,
            time_steps=repeats * len(currents),
            norm=normalisation(norm, mean, variance),
            synapse_bias=bias,
        )

    def _lif(
        self,
        currents: Tensor,
        membrane: Tensor | None,
        time_steps: int,
        norm: lif.Normalisation | None,
    ) -> tuple[Tensor, Tensor]:
        repeated = len(currents) == 1 < time_steps <= LONGEST and self.state is None
        return lif.lif_forward(
            currents,
            membrane,
            time_steps,
            self._constants,
            norm=norm,
            in_bytes=self._in_bytes,
            periodic=self._periodic and repeated,
        )


def normalisation(
    norm: TimeDependentBatchNorm, mean: Tensor, variance: Tensor
) -> lif.Normalisation:
    """Return tdBN with given statistics.

    Args:
        norm: layer whose weight, bias and scale are applied.
        mean: mean per channel ``(C,)``.
        variance: biased variance per channel ``(C,)``.
    """
    weight, inverse_deviation = norm.weight * norm.scale, torch.rsqrt(variance + NORM_EPSILON)
    return lif.Normalisation(weight, norm.bias, mean, inverse_deviation, norm.training)


def track(norm: TimeDependentBatchNorm, mean: Tensor, variance: Tensor, values: int) -> None:
    """Update the running statistics of a norm with the statistics of a batch.

    Args:
        norm: layer to update.
        mean: mean per channel ``(C,)``.
        variance: biased variance per channel ``(C,)``.
        values: number of elements per channel in the batch; at least 2.
    """
    norm.running_mean.lerp_(mean, NORM_MOMENTUM)
    norm.running_var.lerp_(variance * (values / (values - 1)), NORM_MOMENTUM)


def _batch_normalisation(
    norm: TimeDependentBatchNorm, currents: Tensor, values: int
) -> lif.Normalisation:
    """Return tdBN with the statistics of ``currents``, which the norm tracks."""
    mean, variance = (
        currents.moments if isinstance(currents, lookup.LazyCurrents) else lif.moments(currents)
    )
    track(norm, mean, variance, values)
    return normalisation(norm, mean, variance)
