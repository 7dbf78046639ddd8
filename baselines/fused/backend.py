"""The LIF equations as compiled kernels: Numba's on a CPU, with tdBN in them; Triton's on CUDA."""

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.fused.cpu import lif, lookup
from baselines.fused.cpu.lif_constants import LIFConstants
from baselines.fused.cpu.linear_sequence import Chain
from baselines.layers import EPSILON, TimeDependentBatchNorm
from bench.model import SpikingNeuron, SurrogateWindow


class FusedLIF(SpikingNeuron):
    """The papers' LIF equations, all time steps in one kernel, forward and backward.

    The backward pass computes the potentials again instead of keeping them. On a CPU the kernel
    takes in tdBN as well; on CUDA, PyTorch computes tdBN before it. The images' channels lie last.
    """

    memory_format: ClassVar[torch.memory_format] = torch.channels_last

    def __init__(self, decay: float, threshold: float, surrogate: SurrogateWindow) -> None:
        super().__init__(decay, threshold, surrogate)
        centre = surrogate.centre - threshold
        self._constants = LIFConstants(decay, threshold, centre, surrogate.width)

    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run the kernel of the currents' device; see the base class."""
        if currents.device.type == "cuda":
            from baselines.fused import cuda

            return cuda.fire(currents, membrane, self._constants)
        return self._fire(currents, membrane, len(currents), None)

    def integrate_normalised(
        self, currents: Tensor, norm: nn.Module, repeats: int, membrane: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """On a CPU in one kernel, if the norm is tdBN; see the base class.

        Where the statistics are known, currents that are to be looked up are, in that kernel.
        """
        values = repeats * currents.numel() // currents.shape[2]
        if (
            currents.device.type != "cpu"
            or not isinstance(norm, TimeDependentBatchNorm)
            or (norm.training and values == 1)
        ):
            return super().integrate_normalised(currents, norm, repeats, membrane)
        known = not (norm.training or torch.is_grad_enabled())
        if norm.training:
            statistics = _batch_statistics(norm, currents, values)
            normalisation = _normalisation(norm, *statistics)
        elif known:
            normalisation = self.known(norm)
        else:
            normalisation = _normalisation(norm, norm.running_mean, norm.running_var)
        if known and isinstance(currents, lookup.Currents):
            return currents.fire(membrane, *normalisation.affine, self._constants)
        return self._fire(currents, membrane, repeats * len(currents), normalisation)

    def known(self, norm: TimeDependentBatchNorm) -> lif.Normalisation:
        """What tdBN does where its statistics are known, computed once for a sequence."""
        kept = {} if self.carried is None else self.carried.kept
        if "norm" not in kept:
            kept["norm"] = _normalisation(norm, norm.running_mean, norm.running_var)
        found: lif.Normalisation = kept["norm"]
        return found

    def _fire(
        self,
        currents: Tensor,
        membrane: Tensor | None,
        time_steps: int,
        norm: lif.Normalisation | None,
    ) -> tuple[Tensor, Tensor]:
        return lif.fire(currents, membrane, time_steps, self._constants, norm, self.bytes_taken)

    @classmethod
    def chain(cls, layers: OrderedDict[str, nn.Module]) -> nn.Sequential:
        """One that needs little more than its kernels' time for a step; see the base class."""
        return Chain(layers)

    @classmethod
    def implementation(cls, device: torch.device) -> str:
        """The compiler that made the kernel, and its version.

        Raises:
            RuntimeError: there is no kernel for the device, or no compiler for the kernel.
        """
        if device.type == "cuda":
            return f"Triton {_triton_version()}, one kernel over all time steps"
        if device.type != "cpu":
            raise RuntimeError(f"the fused neurons run on cpu and cuda, not on {device.type}")
        import numba

        return f"Numba {numba.__version__}, one kernel over all time steps, tdBN included"


def _batch_statistics(
    norm: TimeDependentBatchNorm, currents: Tensor, values: int
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the currents, which the norm tracks; ``values`` is theirs a channel."""
    mean, variance = (
        currents.moments if isinstance(currents, lookup.Currents) else lif.moments(currents)
    )
    norm.track(mean, variance, values)
    return mean, variance


def _normalisation(
    norm: TimeDependentBatchNorm, mean: Tensor, variance: Tensor
) -> lif.Normalisation:
    """What tdBN does."""
    weight, inverse_deviation = norm.weight * norm.scale, torch.rsqrt(variance + EPSILON)
    return lif.Normalisation(weight, norm.bias, mean, inverse_deviation, norm.training)


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
